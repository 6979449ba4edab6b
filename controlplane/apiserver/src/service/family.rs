//! Which address families a Service has: what it asks for, what it had, and what the cluster offers (KEP-563). Pure.
//!
//! Only what depends on the cluster or on the change is decided and refused here; values that are wrong in themselves
//! are left alone, for validation to name.

use std::net::IpAddr;

use serde_json::{Value, json};
use skep_model::IpFamily;

use crate::status::Cause;

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Fills in `ipFamilyPolicy` and `ipFamilies` of a Service with a cluster address (or `None`). `configured` holds the
/// cluster's families, the primary one first.
pub fn settle(new: &mut Value, old: Option<&Value>, configured: &[IpFamily]) -> Result<(), Vec<Cause>> {
    if old.is_some_and(|old| keeps_preference(new, old)) {
        return Ok(());
    }
    let headless_without_selector = new["spec"]["clusterIP"] == "None" && !has_selector(new);
    if text(new, "ipFamilyPolicy").is_empty() {
        let before = old.map(|old| text(old, "ipFamilyPolicy")).filter(|policy| !policy.is_empty());
        let fresh = if headless_without_selector { REQUIRE } else { SINGLE };
        new["spec"]["ipFamilyPolicy"] = before.unwrap_or(fresh).into();
    }
    if !is_sound(new) {
        return Ok(());
    }
    if let Some(old) = old {
        trim_or_refuse(new, old)?;
    }
    infer_from_addresses(new, configured)?;
    if !headless_without_selector {
        refuse_absent_families(new, configured)?;
    }
    let mut families = families(new);
    if families.is_empty() {
        families.extend(configured.first());
    }
    let both = headless_without_selector || configured.len() == 2;
    if text(new, "ipFamilyPolicy") != SINGLE && families.len() == 1 && both {
        families.push(other(families[0]));
    }
    new["spec"]["ipFamilies"] = families.iter().map(ToString::to_string).collect();
    Ok(())
}

/// The families a Service names, as far as they are families.
pub fn families(object: &Value) -> Vec<IpFamily> {
    let known = |name: &str| IpFamily::ALL.into_iter().find(|family| family.to_string() == name);
    list(object, "ipFamilies").into_iter().filter_map(known).collect()
}

/// A Service that prefers two families is neither upgraded nor downgraded by an update that does not ask for it.
fn keeps_preference(new: &Value, old: &Value) -> bool {
    let same = |field: &str| new["spec"][field] == old["spec"][field];
    text(new, "ipFamilyPolicy") == PREFER
        && ["ipFamilyPolicy", "type", "clusterIP", "clusterIPs", "ipFamilies"].into_iter().all(same)
}

/// Whether families and addresses are well-formed enough to reason about.
fn is_sound(object: &Value) -> bool {
    let (named, addresses) = (list(object, "ipFamilies"), list(object, "clusterIPs"));
    let policy = text(object, "ipFamilyPolicy");
    let parsed: Vec<IpFamily> = addresses.iter().filter_map(|address| family_of(address)).collect();
    let good_addresses = addresses == ["None"] || parsed.len() == addresses.len();
    [SINGLE, PREFER, REQUIRE].contains(&policy)
        && is_distinct(&families(object))
        && families(object).len() == named.len()
        && good_addresses
        && is_distinct(&parsed)
        && parsed.iter().zip(families(object)).all(|(address, named)| *address == named)
}

fn is_distinct(families: &[IpFamily]) -> bool {
    families.len() < 2 || families.len() == 2 && families[0] != families[1]
}

/// `SingleStack` releases the second family and address; nothing else may.
fn trim_or_refuse(new: &mut Value, old: &Value) -> Result<(), Vec<Cause>> {
    let policy = text(new, "ipFamilyPolicy").to_owned();
    let mut causes = Vec::new();
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (now, before) = (list(new, field).len(), list(old, field).len());
        if policy == SINGLE {
            if now == 2 && new["spec"][field] == old["spec"][field] {
                let first = new["spec"][field][0].clone();
                new["spec"][field] = json!([first]);
            }
        } else if now > 0 && now < before {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            causes.push(invalid("spec.ipFamilyPolicy", &policy, &detail));
        }
    }
    refuse(causes)
}

fn infer_from_addresses(new: &mut Value, configured: &[IpFamily]) -> Result<(), Vec<Cause>> {
    let mut families = families(new);
    let mut causes = Vec::new();
    for (i, address) in list(new, "clusterIPs").into_iter().enumerate().skip(families.len()) {
        let Some(family) = family_of(address) else { break };
        if configured.contains(&family) {
            families.push(family);
        } else {
            let detail = format!("{family} is not configured on this cluster");
            causes.push(invalid(&format!("spec.clusterIPs[{i}]"), address, &detail));
        }
    }
    if !families.is_empty() {
        new["spec"]["ipFamilies"] = families.iter().map(ToString::to_string).collect();
    }
    refuse(causes)
}

fn refuse_absent_families(new: &Value, configured: &[IpFamily]) -> Result<(), Vec<Cause>> {
    let mut causes = Vec::new();
    if text(new, "ipFamilyPolicy") == REQUIRE && configured.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        causes.push(invalid("spec.ipFamilyPolicy", REQUIRE, detail));
    }
    for (i, family) in
        families(new).into_iter().enumerate().filter(|(_, family)| !configured.contains(family))
    {
        let field = format!("spec.ipFamilies[{i}]");
        causes.push(invalid(&field, &family.to_string(), "not configured on this cluster"));
    }
    refuse(causes)
}

fn refuse(causes: Vec<Cause>) -> Result<(), Vec<Cause>> {
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

fn invalid(field: &str, value: &str, detail: &str) -> Cause {
    Cause::new("FieldValueInvalid", field, format!("Invalid value: {value:?}: {detail}"))
}

fn other(family: IpFamily) -> IpFamily {
    match family {
        IpFamily::V4 => IpFamily::V6,
        IpFamily::V6 => IpFamily::V4,
    }
}

fn family_of(address: &str) -> Option<IpFamily> {
    address.parse::<IpAddr>().ok().map(IpFamily::of)
}

fn has_selector(object: &Value) -> bool {
    object["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty())
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["spec"][field].as_str().unwrap_or_default()
}

fn list<'a>(object: &'a Value, field: &str) -> Vec<&'a str> {
    object["spec"][field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[IpFamily] = &[IpFamily::V4];
    const DUAL: &[IpFamily] = &[IpFamily::V4, IpFamily::V6];

    fn service(spec: Value) -> Value {
        json!({"spec": spec})
    }

    fn settled(
        spec: Value,
        old: Option<Value>,
        configured: &[IpFamily],
    ) -> Result<(Value, Value), Vec<String>> {
        let mut new = service(spec);
        let old = old.map(service);
        let causes = |causes: Vec<Cause>| causes.into_iter().map(|cause| cause.field).collect::<Vec<_>>();
        settle(&mut new, old.as_ref(), configured).map_err(causes)?;
        Ok((new["spec"]["ipFamilyPolicy"].clone(), new["spec"]["ipFamilies"].clone()))
    }

    #[test]
    fn a_new_service_gets_the_primary_family_or_what_it_asks_for() {
        let case = |spec: Value, configured, policy: &str, families: Value| {
            assert_eq!(settled(spec.clone(), None, configured), Ok((policy.into(), families)), "{spec}");
        };
        case(json!({}), DUAL, SINGLE, json!(["IPv4"]));
        case(json!({}), &[IpFamily::V6], SINGLE, json!(["IPv6"]));
        case(json!({"ipFamilyPolicy": PREFER}), DUAL, PREFER, json!(["IPv4", "IPv6"]));
        case(json!({"ipFamilyPolicy": PREFER}), V4, PREFER, json!(["IPv4"]));
        case(
            json!({"ipFamilyPolicy": REQUIRE, "ipFamilies": ["IPv6"]}),
            DUAL,
            REQUIRE,
            json!(["IPv6", "IPv4"]),
        );
        case(json!({"ipFamilies": ["IPv6"]}), DUAL, SINGLE, json!(["IPv6"]));
        case(json!({"clusterIP": "fd00::9", "clusterIPs": ["fd00::9"]}), DUAL, SINGLE, json!(["IPv6"]));
        case(
            json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
            DUAL,
            SINGLE,
            json!(["IPv4"]),
        );
        case(json!({"clusterIP": "None", "clusterIPs": ["None"]}), V4, REQUIRE, json!(["IPv4", "IPv6"]));
    }

    #[test]
    fn what_the_cluster_does_not_offer_is_refused() {
        let refused = |spec: Value| settled(spec, None, V4).unwrap_err();
        assert_eq!(refused(json!({"ipFamilyPolicy": REQUIRE})), ["spec.ipFamilyPolicy"]);
        assert_eq!(refused(json!({"ipFamilies": ["IPv4", "IPv6"]})), ["spec.ipFamilies[1]"]);
        assert_eq!(
            refused(json!({"clusterIP": "fd00::9", "clusterIPs": ["fd00::9"]})),
            ["spec.clusterIPs[0]"]
        );
    }

    fn dual(policy: &str) -> Value {
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"],
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy})
    }

    #[test]
    fn single_stack_releases_the_second_family_and_nothing_else_does() {
        let mut new = service(dual(SINGLE));
        settle(&mut new, Some(&service(dual(REQUIRE))), DUAL).unwrap();
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.9"]));
        assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4"]));
        let mut fewer = dual(REQUIRE);
        fewer["clusterIPs"] = json!(["10.96.0.9"]);
        fewer["ipFamilies"] = json!(["IPv4"]);
        let fields = settled(fewer, Some(dual(REQUIRE)), DUAL).unwrap_err();
        assert_eq!(fields, ["spec.ipFamilyPolicy", "spec.ipFamilyPolicy"]);
    }

    #[test]
    fn a_preference_is_not_acted_upon_by_an_unrelated_update() {
        let mut single = dual(PREFER);
        single["clusterIPs"] = json!(["10.96.0.9"]);
        single["ipFamilies"] = json!(["IPv4"]);
        assert_eq!(settled(single.clone(), Some(single.clone()), DUAL).unwrap().1, json!(["IPv4"]));
        let mut asked = single.clone();
        asked["ipFamilyPolicy"] = REQUIRE.into();
        assert_eq!(settled(asked, Some(single), DUAL).unwrap().1, json!(["IPv4", "IPv6"]));
    }

    #[test]
    fn nonsense_is_left_for_validation() {
        for spec in [
            json!({"ipFamilies": ["IPv4", "IPv4"]}),
            json!({"ipFamilies": ["IPv9"]}),
            json!({"clusterIP": "x", "clusterIPs": ["x"]}),
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"], "ipFamilies": ["IPv4"]}),
        ] {
            let families = spec.get("ipFamilies").cloned().unwrap_or_default();
            assert_eq!(settled(spec, None, DUAL).unwrap().1, families);
        }
    }
}
