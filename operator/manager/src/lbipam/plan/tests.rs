//! What users of pools expect, case by case.

use k8s_openapi::jiff::Timestamp;
use skep_api::{IpBlock, LoadBalancerIPPoolSpec};

use super::*;
use crate::lbipam::facts::{PoolFacts, Sharing};

pub(super) fn name(text: &str) -> NamespacedName {
    text.parse().unwrap_or_else(|_| NamespacedName::new("default", text))
}

fn pool(blocks: &str) -> PoolFacts {
    let block = |text: &str| match text.split_once('-') {
        Some((start, stop)) => IpBlock { cidr: None, start: Some(start.into()), stop: Some(stop.into()) },
        None => IpBlock { cidr: Some(text.into()), ..IpBlock::default() },
    };
    let blocks = blocks.split(' ').map(block).collect();
    PoolFacts { spec: LoadBalancerIPPoolSpec { blocks, ..Default::default() }, ..PoolFacts::default() }
}

fn service(age: i64) -> ServiceFacts {
    ServiceFacts {
        balanced: true,
        class: Some(CLASS.into()),
        created: Timestamp::from_second(age).unwrap(),
        families: vec![IpFamily::V4],
        ports: [("TCP".to_owned(), 80)].into(),
        ingress_ours: true,
        ..ServiceFacts::default()
    }
}

fn wanting(age: i64, ips: &[&str]) -> ServiceFacts {
    ServiceFacts { wanted: ips.iter().map(|ip| ip.parse().unwrap()).collect(), ..service(age) }
}

fn holding(age: i64, ips: &[&str]) -> ServiceFacts {
    ServiceFacts { ingress: ips.iter().map(|ip| ip.parse().unwrap()).collect(), ..service(age) }
}

fn known(pools: &[(&str, PoolFacts)], services: &[(&str, ServiceFacts)]) -> Known {
    Known {
        services: services.iter().map(|(text, facts)| (name(text), facts.clone())).collect(),
        pools: pools.iter().map(|(name, facts)| ((*name).to_owned(), facts.clone())).collect(),
        nodes: BTreeMap::new(),
    }
}

/// Addresses of a Service, or the reason why something is missing.
fn outcome(known: &Known, service: &str) -> String {
    outcome_with(known, &Settings::default(), service)
}

fn outcome_with(known: &Known, settings: &Settings, service: &str) -> String {
    let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match plan(known, settings).services.get(&name(service)) {
        None => "alone".into(),
        Some(Verdict::Assigned(ips, _)) => list(ips),
        Some(Verdict::Released(ips)) => format!("released {}", list(ips)),
        Some(Verdict::Unmet(ips, problems)) => {
            format!("{} {}", list(ips), problems.first().map_or("?", Problem::reason)).trim().to_owned()
        }
    }
}

fn message(known: &Known, service: &str) -> String {
    match plan(known, &Settings::default()).services.remove(&name(service)) {
        Some(Verdict::Unmet(_, problems)) => problems[0].to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_service_gets_the_lowest_free_address_the_eldest_first() {
    let known = known(&[("p", pool("10.0.0.0/29"))], &[("a", service(2)), ("b", service(1))]);
    assert_eq!((outcome(&known, "b"), outcome(&known, "a")), ("10.0.0.1".into(), "10.0.0.2".into()));
}

#[test]
fn what_is_assigned_stays_and_a_second_claim_yields() {
    let known = known(
        &[("p", pool("10.0.0.0/29"))],
        &[("old", holding(1, &["10.0.0.1"])), ("thief", holding(2, &["10.0.0.1"])), ("new", service(0))],
    );
    assert_eq!(outcome(&known, "old"), "10.0.0.1");
    assert_eq!(outcome(&known, "new"), "10.0.0.2");
    assert_eq!(outcome(&known, "thief"), "10.0.0.3");
}

#[test]
fn other_classes_and_types_are_left_alone() {
    let other = ServiceFacts { class: Some("example.com/x".into()), ..holding(1, &["10.0.0.1"]) };
    let plain = ServiceFacts { balanced: false, class: None, ..service(1) };
    let classless = ServiceFacts { class: None, ..service(2) };
    let services = [("other", other), ("plain", plain), ("classless", classless), ("ours", service(3))];
    let known = known(&[("p", pool("10.0.0.0/29"))], &services);
    for service in ["other", "plain", "classless"] {
        assert_eq!(outcome(&known, service), "alone");
    }
    // Another's address is nobody's to give.
    assert_eq!(outcome(&known, "ours"), "10.0.0.2");
    let settings = Settings { default_class: true, ..Settings::default() };
    assert_eq!(outcome_with(&known, &settings, "classless"), "10.0.0.2");
}

#[test]
fn requests_are_met_before_anybody_gets_any_address() {
    let known = known(
        &[("p", pool("10.0.0.0/29"))],
        &[("any", service(1)), ("picky", wanting(2, &["10.0.0.1", "10.0.0.4"]))],
    );
    assert_eq!(outcome(&known, "picky"), "10.0.0.1 10.0.0.4");
    assert_eq!(outcome(&known, "any"), "10.0.0.2");
}

#[test]
fn each_reason_why_nothing_fits_is_told_apart() {
    let full = known(&[("p", pool("10.0.0.1-10.0.0.1"))], &[("a", service(1)), ("b", service(2))]);
    assert_eq!(message(&full, "b"), "every IPv4 address of the pool p is in use");
    assert_eq!(
        message(&known(&[], &[("a", service(1))]), "a"),
        "no pool matches for IPv4: there is no LoadBalancerIPPool"
    );
    let mut shop = pool("10.0.0.0/24");
    shop.spec.service_selector = serde_json::from_str(r#"{"matchLabels": {"app": "shop"}}"#).unwrap();
    let pools = [("p", shop), ("six", pool("fd00::/64"))];
    let picky = known(
        &pools,
        &[("a", service(1)), ("b", wanting(2, &["10.0.0.9"])), ("c", wanting(3, &["10.9.9.9"]))],
    );
    assert_eq!(
        message(&picky, "a"),
        "no pool matches for IPv4: p does not select this Service, six has no IPv4 block"
    );
    assert_eq!(message(&picky, "b"), "10.0.0.9 cannot be given: the pool p does not select this Service");
    assert_eq!(message(&picky, "c"), "10.9.9.9 lies outside all pools");
    let rivals =
        [("a", wanting(1, &["10.0.0.9"])), ("b", wanting(2, &["10.0.0.9"])), ("c", wanting(3, &["fd00::1"]))];
    let taken = known(&[("p", pool("10.0.0.0/24 fd00::/64"))], &rivals);
    assert_eq!(message(&taken, "b"), "10.0.0.9 is in use by default/a: it is not shared");
    assert_eq!(message(&taken, "c"), "fd00::1 is asked for, but IPv6 is not among the Service's ipFamilies");
    let ends = known(&[("p", pool("10.0.0.0/24"))], &[("a", wanting(1, &["10.0.0.255"]))]);
    assert!(message(&ends, "a").contains("first or last address"));
}

#[test]
fn a_request_with_a_typo_is_told_and_costs_nothing() {
    let facts = ServiceFacts { malformed: Some("10.0.0.x".into()), ..holding(1, &["10.0.0.3"]) };
    let known = known(&[("p", pool("10.0.0.0/29"))], &[("a", facts)]);
    assert_eq!(outcome(&known, "a"), "10.0.0.3 InvalidRequest");
}

#[test]
fn two_families_need_two_addresses_unless_one_will_do() {
    let both = ServiceFacts { families: vec![IpFamily::V6, IpFamily::V4], ..service(1) };
    let content = ServiceFacts { partial: true, ..both.clone() };
    let services = [("both", both), ("content", content)];
    let dual = known(&[("p", pool("10.0.0.0/29 fd00::/64"))], &services);
    assert_eq!(outcome(&dual, "both"), "fd00::1 10.0.0.1");
    let single = known(&[("p", pool("10.0.0.0/29"))], &services);
    assert_eq!(outcome(&single, "both"), "10.0.0.1 NoMatchingPool");
    assert_eq!(outcome(&single, "content"), "10.0.0.2");
}

#[test]
fn a_request_of_one_family_leaves_the_other_to_us() {
    let facts = ServiceFacts { families: vec![IpFamily::V4, IpFamily::V6], ..wanting(1, &["fd00::7"]) };
    let known = known(&[("p", pool("10.0.0.0/29 fd00::/64"))], &[("a", facts)]);
    assert_eq!(outcome(&known, "a"), "10.0.0.1 fd00::7");
}

#[test]
fn a_removed_pool_takes_its_addresses_along_and_a_disabled_one_does_not() {
    let services = [("a", holding(1, &["10.0.0.3"])), ("b", service(2))];
    let gone = known(&[("q", pool("10.1.0.0/29"))], &services);
    assert_eq!(outcome(&gone, "a"), "10.1.0.1");
    let mut disabled = pool("10.0.0.0/29");
    disabled.spec.disabled = true;
    let kept = known(&[("p", disabled)], &services);
    assert_eq!((outcome(&kept, "a"), outcome(&kept, "b")), ("10.0.0.3".into(), "NoMatchingPool".into()));
}

#[test]
fn a_pool_in_conflict_keeps_what_it_gave_and_gives_nothing() {
    let mut young = pool("10.0.0.0/29 10.0.1.0/29");
    young.created = Timestamp::from_second(9).unwrap();
    let services = [("a", holding(1, &["10.0.1.3"])), ("b", wanting(2, &["10.0.1.4"]))];
    let known = known(&[("p", pool("10.0.0.0/29")), ("young", young)], &services);
    assert_eq!(outcome(&known, "a"), "10.0.1.3");
    assert_eq!(
        message(&known, "b"),
        "10.0.1.4 cannot be given: the pool young is in conflict with another pool"
    );
}

#[test]
fn addresses_of_nodes_and_external_ips_are_never_given() {
    let other = ServiceFacts { balanced: false, external: vec!["10.0.0.2".parse().unwrap()], ..service(1) };
    let services = [("other", other), ("a", service(2)), ("b", wanting(3, &["10.0.0.1"]))];
    let mut known = known(&[("p", pool("10.0.0.0/29"))], &services);
    known.nodes.insert("node-1".into(), ["10.0.0.1".parse().unwrap()].into());
    assert_eq!(outcome(&known, "a"), "10.0.0.3");
    assert_eq!(message(&known, "b"), "10.0.0.1 is in use by the node node-1");
}

#[test]
fn services_of_one_key_share_an_address() {
    let sharing = |age, port| ServiceFacts {
        sharing: Some(Sharing { key: "k".into(), ..Sharing::default() }),
        ports: [("TCP".to_owned(), port)].into(),
        ..service(age)
    };
    let services = [("a", sharing(1, 80)), ("b", sharing(2, 443)), ("c", sharing(3, 80)), ("d", service(4))];
    let known = known(&[("p", pool("10.0.0.0/29"))], &services);
    let outcomes: Vec<_> = ["a", "b", "c", "d"].map(|service| outcome(&known, service)).into();
    assert_eq!(outcomes, ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
}

#[test]
fn a_service_that_is_not_ours_any_more_gives_its_address_back() {
    let mark = crate::lbipam::report::condition(ASSIGNED, true, "Assigned", String::new(), 0);
    let former = ServiceFacts { conditions: vec![mark], ..holding(1, &["10.0.0.1", "192.0.2.1"]) };
    let plain = ServiceFacts { balanced: false, ..former.clone() };
    let other = ServiceFacts { class: Some("example.com/x".into()), ..former };
    let known = known(&[("p", pool("10.0.0.0/29"))], &[("plain", plain), ("other", other)]);
    assert_eq!(outcome(&known, "plain"), "released ");
    assert_eq!(outcome(&known, "other"), "released 192.0.2.1");
}
