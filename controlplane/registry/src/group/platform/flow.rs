//! FlowSchemas and PriorityLevelConfigurations: served and checked; this API server does not act on them.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, int, items, set, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const VERBS: &[&str] = &[
    "*",
    "connect",
    "create",
    "delete",
    "deletecollection",
    "get",
    "head",
    "list",
    "options",
    "patch",
    "post",
    "proxy",
    "put",
    "update",
    "watch",
];

pub(crate) static SCHEMAS: Strategy = Strategy {
    default: |flow| {
        if let Some(spec) = flow.get_mut("spec") {
            fill_empty(spec, "matchingPrecedence", 1000);
        }
    },
    validate,
    row: |flow, now| {
        let missing =
            items(flow, &["status", "conditions"]).iter().find(|c| text(c, &["type"]) == "Dangling");
        let method = text(flow, &["spec", "distinguisherMethod", "type"]);
        vec![
            row::name(flow),
            text(flow, &["spec", "priorityLevelConfiguration", "name"]).into(),
            int(flow, &["spec", "matchingPrecedence"]).unwrap_or(0).into(),
            row::or_none(method),
            row::age(flow, now),
            missing.map_or("?", |c| text(c, &["status"])).into(),
        ]
    },
    ..Strategy::WITH_STATUS
};

pub(crate) static LEVELS: Strategy = Strategy {
    default: |level| {
        if let Some(limited) = level.get_mut("spec").and_then(|s| s.get_mut("limited")) {
            fill(limited, "nominalConcurrencyShares", 30);
            fill(limited, "lendablePercent", 0);
            if let Some(queuing) = limited.get_mut("limitResponse").and_then(|r| r.get_mut("queuing")) {
                fill_empty(queuing, "queues", 64);
                fill_empty(queuing, "handSize", 8);
                fill_empty(queuing, "queueLengthLimit", 50);
            }
        }
    },
    validate: |level, errors| {
        let path = Path::new("spec");
        check::required_one_of(&level["spec"], "type", &["Exempt", "Limited"], &path, errors);
    },
    row: |level, now| {
        let limited = &level["spec"]["limited"];
        let number = |path: &[&str]| int(limited, path).map_or_else(|| "<none>".into(), Value::from);
        vec![
            row::name(level),
            text(level, &["spec", "type"]).into(),
            number(&["nominalConcurrencyShares"]),
            number(&["limitResponse", "queuing", "queues"]),
            number(&["limitResponse", "queuing", "handSize"]),
            number(&["limitResponse", "queuing", "queueLengthLimit"]),
            row::age(level, now),
        ]
    },
    ..Strategy::WITH_STATUS
};

fn validate(flow: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &flow["spec"];
    let precedence = int(spec, &["matchingPrecedence"]).unwrap_or(0);
    if !(1..=10000).contains(&precedence) {
        errors.invalid(&path.field("matchingPrecedence"), precedence, "must be a value between 1 and 10000");
    } else if precedence == 1 && text(flow, &["metadata", "name"]) != "exempt" {
        errors.invalid(
            &path.field("matchingPrecedence"),
            1,
            "only the schema named 'exempt' may have matchingPrecedence 1",
        );
    }
    if let Some(method) = at(spec, &["distinguisherMethod"]) {
        let kinds = ["ByNamespace", "ByUser"];
        check::required_one_of(method, "type", &kinds, &path.field("distinguisherMethod"), errors);
    }
    check::required(
        &spec["priorityLevelConfiguration"],
        "name",
        &path.field("priorityLevelConfiguration"),
        errors,
    );
    let list = path.field("rules");
    for (i, one) in items(spec, &["rules"]).iter().enumerate() {
        rule(one, &list.index(i), errors);
    }
}

fn rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let subjects = path.field("subjects");
    if !set(rule, &["subjects"]) {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    for (i, subject) in items(rule, &["subjects"]).iter().enumerate() {
        let path = subjects.index(i);
        let kind = text(subject, &["kind"]);
        let field = match kind {
            "User" => "user",
            "Group" => "group",
            "ServiceAccount" => "serviceAccount",
            _ => {
                errors.not_supported(&path.field("kind"), kind, &["Group", "ServiceAccount", "User"]);
                continue;
            }
        };
        if at(subject, &[field]).is_none() {
            errors.required(&path.field(field), "is required for this subject kind");
        }
    }
    if !set(rule, &["resourceRules"]) && !set(rule, &["nonResourceRules"]) {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let list = path.field("resourceRules");
    for (i, one) in items(rule, &["resourceRules"]).iter().enumerate() {
        let path = list.index(i);
        verbs(one, &path, errors);
        for name in ["apiGroups", "resources"] {
            if !set(one, &[name]) {
                errors.required(&path.field(name), "");
            }
        }
        if !set(one, &["namespaces"]) && !crate::field::flag(one, &["clusterScope"]) {
            errors.required(
                &path.field("namespaces"),
                "resource rules that are not cluster scoped must supply at least one namespace",
            );
        }
    }
    let list = path.field("nonResourceRules");
    for (i, one) in items(rule, &["nonResourceRules"]).iter().enumerate() {
        let path = list.index(i);
        verbs(one, &path, errors);
        let urls = path.field("nonResourceURLs");
        for (i, url) in items(one, &["nonResourceURLs"]).iter().filter_map(Value::as_str).enumerate() {
            if url != "*" && !url.starts_with('/') {
                errors.invalid(&urls.index(i), url, "must start with '/'");
            }
        }
    }
}

fn verbs(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("verbs");
    let verbs = items(rule, &["verbs"]);
    if verbs.is_empty() {
        errors.required(&place, "verbs must contain at least one value");
    }
    if verbs.iter().filter_map(Value::as_str).any(|v| !VERBS.contains(&v)) {
        errors.not_supported(&place, verbs.to_vec(), VERBS);
    }
}
