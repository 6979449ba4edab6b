//! Ingresses.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::check;
use crate::error::Errors;
use crate::field::{at, int, items, set, text};
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];

pub(crate) static STRATEGY: Strategy = Strategy {
    prepare_create: |ingress| ingress["status"] = json!({"loadBalancer": {}}),
    validate,
    warnings: |ingress, out| {
        if at(ingress, &["metadata", "annotations", CLASS_ANNOTATION]).is_some() {
            out.push(format!(
                "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
            ));
        }
    },
    row: cells,
    ..Strategy::WITH_STATUS
};

fn validate(ingress: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &ingress["spec"];
    if !set(spec, &["rules"]) && at(spec, &["defaultBackend"]).is_none() {
        errors.invalid(&path, spec.clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = at(spec, &["defaultBackend"]) {
        self::backend(backend, &path.field("defaultBackend"), errors);
    }
    let list = path.field("rules");
    for (i, rule) in items(spec, &["rules"]).iter().enumerate() {
        let path = list.index(i);
        host(text(rule, &["host"]), &path.field("host"), errors);
        let Some(http) = at(rule, &["http"]) else { continue };
        let http_path = path.field("http");
        let paths = http_path.field("paths");
        let all = items(http, &["paths"]);
        if all.is_empty() {
            errors.required(&paths, "");
        }
        for (i, one) in all.iter().enumerate() {
            http_rule(one, &paths.index(i), errors);
        }
    }
    let list = path.field("tls");
    for (i, tls) in items(spec, &["tls"]).iter().enumerate() {
        let hosts = list.index(i);
        let hosts = hosts.field("hosts");
        for (i, name) in items(tls, &["hosts"]).iter().filter_map(Value::as_str).enumerate() {
            domain(name, &hosts.index(i), errors);
        }
    }
    let class = text(spec, &["ingressClassName"]);
    if !class.is_empty() {
        check::subdomain(class, &path.field("ingressClassName"), errors);
    }
}

fn host(host: &str, path: &Path<'_>, errors: &mut Errors) {
    if host.is_empty() {
        return;
    }
    if format::ip(host).is_some() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
    }
    domain(host, path, errors);
}

fn domain(host: &str, path: &Path<'_>, errors: &mut Errors) {
    if host.contains('*') {
        if !format::is_wildcard_domain(host) {
            errors.invalid(path, host, "a wildcard DNS-1123 subdomain must start with '*.'");
        }
    } else {
        check::subdomain(host, path, errors);
    }
}

fn http_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("path");
    let value = text(rule, &["path"]);
    match text(rule, &["pathType"]) {
        "" => errors.required(&path.field("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.invalid(&place, value, "must be an absolute path");
            }
            for wrong in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(wrong) {
                    errors.invalid(&place, value, format!("must not contain '{wrong}'"));
                }
            }
            for wrong in ["/..", "/."] {
                if value.ends_with(wrong) {
                    errors.invalid(&place, value, format!("cannot end with '{wrong}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&place, value, "must be an absolute path");
            }
        }
        other => errors.not_supported(&path.field("pathType"), other, PATH_TYPES),
    }
    backend(rule.get("backend").unwrap_or(&Value::Null), &path.field("backend"), errors);
}

fn backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (at(backend, &["service"]), at(backend, &["resource"])) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (None, None) => errors.required(path, "must specify either a service or a resource backend"),
        (None, Some(resource)) => {
            for name in ["kind", "name"] {
                check::required(resource, name, &path.field("resource"), errors);
            }
        }
        (Some(service), None) => {
            let path = path.field("service");
            let name = text(service, &["name"]);
            if name.is_empty() {
                errors.required(&path.field("name"), "");
            } else if !format::is_service_name(name) {
                errors.invalid(&path.field("name"), name, "must be a DNS-1035 label");
            }
            let port = path.field("port");
            let (named, number) =
                (text(service, &["port", "name"]), int(service, &["port", "number"]).unwrap_or(0));
            match (named.is_empty(), number) {
                (false, 0) => check::port_name(named, &port.field("name"), errors),
                (true, 0) => errors.required(&port, "port name or number is required"),
                (true, number) => check::port_number(number, &port.field("number"), errors),
                (false, _) => errors.invalid(&path, "", "cannot set both port name & port number"),
            }
        }
    }
}

fn cells(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let class = text(ingress, &["spec", "ingressClassName"]);
    let class =
        if class.is_empty() { text(ingress, &["metadata", "annotations", CLASS_ANNOTATION]) } else { class };
    let mut hosts: Vec<&str> = items(ingress, &["spec", "rules"])
        .iter()
        .map(|r| text(r, &["host"]))
        .filter(|h| !h.is_empty())
        .collect();
    let more = hosts.len().saturating_sub(3);
    hosts.truncate(3);
    let shown = match (hosts.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, 0) => hosts.join(","),
        (false, more) => format!("{} + {more} more...", hosts.join(",")),
    };
    let addresses: Vec<&str> = items(ingress, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|i| if text(i, &["ip"]).is_empty() { text(i, &["hostname"]) } else { text(i, &["ip"]) })
        .collect();
    let ports = if set(ingress, &["spec", "tls"]) { "80, 443" } else { "80" };
    vec![
        row::name(ingress),
        row::or_none(class),
        shown.into(),
        addresses.join(",").into(),
        ports.into(),
        row::age(ingress, now),
    ]
}
