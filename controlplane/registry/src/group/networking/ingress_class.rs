//! IngressClasses.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill_empty, set, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    generation: true,
    default: |class| {
        if let Some(parameters) = class.get_mut("spec").and_then(|s| s.get_mut("parameters")) {
            fill_empty(parameters, "scope", "Cluster");
        }
    },
    validate,
    validate_change: |new, old, errors| {
        check::immutable(&new["spec"], &old["spec"], &["controller"], &Path::new("spec"), errors);
    },
    row: |class, now| {
        let parameters = match at(class, &["spec", "parameters"]) {
            Some(p) if set(p, &["apiGroup"]) => {
                format!("{}.{}/{}", text(p, &["kind"]), text(p, &["apiGroup"]), text(p, &["name"]))
            }
            Some(p) => format!("{}/{}", text(p, &["kind"]), text(p, &["name"])),
            None => "<none>".to_owned(),
        };
        vec![
            row::name(class),
            text(class, &["spec", "controller"]).into(),
            parameters.into(),
            row::age(class, now),
        ]
    },
    ..Strategy::BASE
};

fn validate(class: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let place = path.field("controller");
    let controller = text(class, &["spec", "controller"]);
    if controller.is_empty() {
        errors.required(&place, "");
    } else if !controller
        .split_once('/')
        .is_some_and(|(domain, rest)| crate::metadata::format::is_dns_subdomain(domain) && !rest.is_empty())
    {
        errors.invalid(&place, controller, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    }
    let Some(parameters) = at(class, &["spec", "parameters"]) else { return };
    let path = path.field("parameters");
    check::required(parameters, "kind", &path, errors);
    check::required(parameters, "name", &path, errors);
    check::required_one_of(parameters, "scope", &["Cluster", "Namespace"], &path, errors);
    let namespace = text(parameters, &["namespace"]);
    match text(parameters, &["scope"]) {
        "Namespace" if namespace.is_empty() => {
            errors.required(&path.field("namespace"), "`parameters.scope` is set to 'Namespace'");
        }
        "Cluster" if !namespace.is_empty() => {
            errors.forbidden(&path.field("namespace"), "`parameters.scope` is set to 'Cluster'");
        }
        _ => {}
    }
}
