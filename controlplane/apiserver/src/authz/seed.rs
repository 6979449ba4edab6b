//! The roles and bindings every cluster begins with, reconciled at each start: missing rules and subjects are added,
//! what an administrator added stays, and `rbac.authorization.kubernetes.io/autoupdate: "false"` keeps an object as
//! it is. The facts live in `seed.jsonl`, one object a line.

use serde_json::{Map, Value, json};

use crate::authz::policy::{GROUP, RbacKind};
use crate::authz::rule::{Rule, uncovered};
use crate::meta;

const SEED: &str = include_str!("seed.jsonl");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Role of the controllers, which run as one user.
const CONTROLLERS: &str = "system:controllers";

/// One object to have.
pub struct Seed {
    /// Its kind.
    pub kind: RbacKind,
    /// The object.
    pub object: Value,
}

/// Everything to have.
pub fn seeds() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = SEED.lines().filter_map(read_line).collect();
    seeds.extend(controllers(&seeds));
    seeds
}

fn read_line(line: &str) -> Option<Seed> {
    let Ok(Value::Object(entry)) = serde_json::from_str(line) else { return None };
    let (plural, object) = entry.into_iter().next()?;
    let kind = RbacKind::of(&plural)?;
    Some(Seed { kind, object: complete(kind, object) })
}

fn complete(kind: RbacKind, mut object: Value) -> Value {
    let name = match kind {
        RbacKind::Role => "Role",
        RbacKind::ClusterRole => "ClusterRole",
        RbacKind::RoleBinding => "RoleBinding",
        RbacKind::ClusterRoleBinding => "ClusterRoleBinding",
    };
    let metadata = meta::of(&mut object);
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    labels["kubernetes.io/bootstrapping"] = "rbac-defaults".into();
    metadata.insert("annotations".into(), json!({AUTOUPDATE: "true"}));
    let mut out = Map::new();
    out.insert("apiVersion".into(), format!("{GROUP}/v1").into());
    out.insert("kind".into(), name.into());
    if let Value::Object(members) = object {
        out.extend(members);
    }
    Value::Object(out)
}

/// All controllers run in one process as one user, which holds the roles of all of them.
fn controllers(seeds: &[Seed]) -> Vec<Seed> {
    let rules: Vec<Value> = seeds
        .iter()
        .filter(|s| s.kind == RbacKind::ClusterRole)
        .filter(|s| meta::text(&s.object, "name").starts_with("system:controller:"))
        .flat_map(|s| s.object["rules"].as_array().cloned().unwrap_or_default())
        .collect();
    let role = json!({"metadata": {"name": CONTROLLERS}, "rules": rules});
    let binding = json!({
        "metadata": {"name": CONTROLLERS},
        "subjects": [{"kind": "User", "apiGroup": GROUP, "name": "system:kube-controller-manager"}],
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": CONTROLLERS},
    });
    let of = |kind, object| Seed { kind, object: complete(kind, object) };
    vec![of(RbacKind::ClusterRole, role), of(RbacKind::ClusterRoleBinding, binding)]
}

/// The object that should replace the present one; `None` when nothing is missing.
pub fn reconcile(present: &Value, wanted: &Value) -> Option<Value> {
    if present["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut merged = present.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][map].as_object().into_iter().flatten() {
            if !merged["metadata"][map].is_object() {
                merged["metadata"][map] = json!({});
            }
            merged["metadata"][map][key] = value.clone();
        }
    }
    if wanted["aggregationRule"].is_object() {
        merged["aggregationRule"] = wanted["aggregationRule"].clone();
    } else if wanted["rules"].is_array() {
        add_rules(&mut merged, wanted);
    }
    for subject in wanted["subjects"].as_array().into_iter().flatten() {
        match merged["subjects"].as_array_mut() {
            Some(list) if list.contains(subject) => {}
            Some(list) => list.push(subject.clone()),
            None => merged["subjects"] = json!([subject]),
        }
    }
    (merged != *present).then_some(merged)
}

fn add_rules(merged: &mut Value, wanted: &Value) {
    let missing = uncovered(&Rule::read_all(&merged["rules"]), &Rule::read_all(&wanted["rules"]));
    if missing.is_empty() {
        return;
    }
    let mut rules = merged["rules"].as_array().cloned().unwrap_or_default();
    rules.extend(missing.iter().map(Rule::to_value));
    merged["rules"] = rules.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_an_object_and_the_known_roles_are_there() {
        assert_eq!(SEED.lines().count() + 2, seeds().len());
        let names: Vec<String> = seeds().iter().map(|s| meta::text(&s.object, "name").to_owned()).collect();
        for name in [
            "cluster-admin",
            "admin",
            "edit",
            "view",
            "system:node",
            "system:kube-scheduler",
            "system:basic-user",
        ] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
    }

    #[test]
    fn adds_what_is_missing_and_keeps_what_was_added() {
        let wanted =
            json!({"metadata": {}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        let present = json!({"metadata": {}, "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["nodes"]}]});
        let merged = reconcile(&present, &wanted).unwrap();
        assert_eq!(merged["rules"].as_array().unwrap().len(), 2);
        assert!(reconcile(&merged, &wanted).is_none());
    }
}
