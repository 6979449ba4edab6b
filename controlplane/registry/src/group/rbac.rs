//! The group `rbac.authorization.k8s.io`: roles and bindings, of namespaces and of the cluster.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, items, items_mut, object, set, text};
use crate::metadata::NameRule;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn strategy(plural: &str) -> Option<&'static Strategy> {
    Some(match plural {
        "roles" => &ROLES,
        "clusterroles" => &CLUSTER_ROLES,
        "rolebindings" => &ROLE_BINDINGS,
        "clusterrolebindings" => &CLUSTER_ROLE_BINDINGS,
        _ => return None,
    })
}

static ROLES: Strategy = Strategy {
    name: NameRule::PathSegment,
    default: |role| fill(role, "rules", Value::Null),
    validate: |role, errors| rules(role, true, errors),
    row: |role, _: Timestamp| vec![row::name(role), text(role, &["metadata", "creationTimestamp"]).into()],
    ..Strategy::BASE
};

static CLUSTER_ROLES: Strategy = Strategy {
    validate: |role, errors| {
        rules(role, false, errors);
        let path = Path::new("aggregationRule");
        let list = path.field("clusterRoleSelectors");
        if at(role, &["aggregationRule"]).is_some() {
            let selectors = items(role, &["aggregationRule", "clusterRoleSelectors"]);
            if selectors.is_empty() {
                errors.required(
                    &list,
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                );
            }
            for (i, selector) in selectors.iter().enumerate() {
                check::selector(Some(selector), &list.index(i), errors);
            }
        }
    },
    ..ROLES
};

static ROLE_BINDINGS: Strategy = Strategy {
    name: NameRule::PathSegment,
    default: default_binding,
    validate: |binding, errors| validate_binding(binding, &["ClusterRole", "Role"], errors),
    validate_change: |new, old, errors| {
        if new.get("roleRef") != old.get("roleRef") {
            errors.invalid(&Path::new("roleRef"), new["roleRef"].clone(), "cannot change roleRef");
        }
    },
    row: binding_cells,
    ..Strategy::BASE
};

static CLUSTER_ROLE_BINDINGS: Strategy = Strategy {
    validate: |binding, errors| validate_binding(binding, &["ClusterRole"], errors),
    ..ROLE_BINDINGS
};

fn default_binding(binding: &mut Value) {
    if let Some(role) = binding.get_mut("roleRef") {
        fill_empty(role, "apiGroup", GROUP);
    }
    for subject in items_mut(binding, &["subjects"]) {
        if matches!(text(subject, &["kind"]), "User" | "Group") {
            fill_empty(subject, "apiGroup", GROUP);
        }
    }
    object(binding, "roleRef");
}

fn rules(role: &Value, namespaced: bool, errors: &mut Errors) {
    let list = Path::new("rules");
    for (i, rule) in items(role, &["rules"]).iter().enumerate() {
        let path = list.index(i);
        if !set(rule, &["verbs"]) {
            errors.required(&path.field("verbs"), "verbs must contain at least one value");
        }
        if set(rule, &["nonResourceURLs"]) {
            if namespaced {
                let shown = rule["nonResourceURLs"].clone();
                errors.invalid(
                    &path.field("nonResourceURLs"),
                    shown,
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if set(rule, &["apiGroups"]) || set(rule, &["resources"]) || set(rule, &["resourceNames"]) {
                let shown = rule["nonResourceURLs"].clone();
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(&path.field("nonResourceURLs"), shown, detail);
            }
            continue;
        }
        for name in ["apiGroups", "resources"] {
            if !set(rule, &[name]) {
                errors.required(&path.field(name), "resource rules must supply at least one value");
            }
        }
    }
}

fn validate_binding(binding: &Value, kinds: &[&str], errors: &mut Errors) {
    let path = Path::new("roleRef");
    let role = binding.get("roleRef").unwrap_or(&Value::Null);
    if text(role, &["apiGroup"]) != GROUP {
        errors.not_supported(&path.field("apiGroup"), text(role, &["apiGroup"]), &[GROUP]);
    }
    if !kinds.contains(&text(role, &["kind"])) {
        errors.not_supported(&path.field("kind"), text(role, &["kind"]), kinds);
    }
    let name = text(role, &["name"]);
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    } else if let Some(problem) = NameRule::PathSegment.problem(name) {
        errors.invalid(&path.field("name"), name, problem);
    }
    let list = Path::new("subjects");
    for (i, one) in items(binding, &["subjects"]).iter().enumerate() {
        subject(one, &list.index(i), errors);
    }
}

fn subject(subject: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = text(subject, &["name"]);
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    }
    let group = text(subject, &["apiGroup"]);
    match text(subject, &["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                check::subdomain(name, &path.field("name"), errors);
            }
            if !group.is_empty() {
                errors.not_supported(&path.field("apiGroup"), group, &[""]);
            }
            if text(subject, &["namespace"]).is_empty() {
                errors.required(&path.field("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(&path.field("apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.not_supported(&path.field("kind"), other, &["Group", "ServiceAccount", "User"]),
    }
}

fn binding_cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let names = |kind: &str| {
        let of_kind = items(binding, &["subjects"]).iter().filter(|s| text(s, &["kind"]) == kind);
        let shown: Vec<String> = of_kind
            .map(|s| match text(s, &["namespace"]) {
                namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
                    format!("{namespace}/{}", text(s, &["name"]))
                }
                _ => text(s, &["name"]).to_owned(),
            })
            .collect();
        json!(shown.join(", "))
    };
    let role = format!("{}/{}", text(binding, &["roleRef", "kind"]), text(binding, &["roleRef", "name"]));
    vec![
        row::name(binding),
        role.into(),
        row::age(binding, now),
        names("User"),
        names("Group"),
        names("ServiceAccount"),
    ]
}
