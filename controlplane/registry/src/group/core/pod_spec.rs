//! Pod specs, shared by Pods and every pod template: defaults and validation.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, flag, int, items, text};
use crate::metadata::format;
use crate::path::Path;

mod affinity;
mod container;
pub(crate) mod default;
mod env;
mod probe;
mod resources;
mod security;
mod tolerations;
mod volume;
mod volume_mount;

pub(crate) use affinity::node_selector;
pub(crate) use container::{Names, ephemeral};
pub(crate) use tolerations::validate as tolerations;

const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

/// Validates a pod template: labels, annotations and spec. `restart` are the allowed restart policies.
pub(crate) fn validate_template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(metadata) = template.get("metadata") {
        crate::metadata::labels(metadata.get("labels"), &path.field("labels"), errors);
    }
    validate(template.get("spec").unwrap_or(&Value::Null), &path.field("spec"), errors);
    let containers = items(template, &["spec", "ephemeralContainers"]);
    if !containers.is_empty() {
        errors.forbidden(
            &path.field("spec").field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// Validates a template whose pods run for ever: restart policy Always and no deadline.
pub(crate) fn validate_lasting_template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    validate_template(template, path, errors);
    let spec_path = path.field("spec");
    let restart = text(template, &["spec", "restartPolicy"]);
    if matches!(restart, "Never" | "OnFailure") {
        errors.not_supported(&spec_path.field("restartPolicy"), restart, &["Always"]);
    }
    if at(template, &["spec", "activeDeadlineSeconds"]).is_some() {
        errors.forbidden(
            &spec_path.field("activeDeadlineSeconds"),
            "activeDeadlineSeconds in this workload is not supported",
        );
    }
}

/// Validates a pod spec.
pub(crate) fn validate(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let volumes = volume::validate(spec, path, errors);
    let mut names = Names::new(spec, &volumes);
    container::regular(spec, &mut names, path, errors);
    container::init(spec, &mut names, path, errors);
    container::host_ports(spec, path, errors);
    check::required_one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, errors);
    dns(spec, path, errors);
    check_names(spec, path, errors);
    check_placement(spec, path, errors);
    security::pod(spec, path, errors);
    if let Some(deadline) = int(spec, &["activeDeadlineSeconds"])
        && !(1..=i64::from(i32::MAX)).contains(&deadline)
    {
        errors.invalid(
            &path.field("activeDeadlineSeconds"),
            deadline,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    if flag(spec, &["hostPID"]) && flag(spec, &["shareProcessNamespace"]) {
        errors.invalid(
            &path.field("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    if let Some(resources) = at(spec, &["resources"]) {
        resources::validate(resources, &path.field("resources"), errors);
    }
    let overhead = path.field("overhead");
    for (name, amount) in crate::field::members(spec, &["overhead"]) {
        check::quantity_non_negative(amount, &overhead.key(name), errors);
    }
}

fn dns(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    check::required_one_of(spec, "dnsPolicy", DNS_POLICIES, path, errors);
    let config = path.field("dnsConfig");
    let servers = items(spec, &["dnsConfig", "nameservers"]);
    if text(spec, &["dnsPolicy"]) == "None" && servers.is_empty() {
        errors.required(
            &config.field("nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    let place = config.field("nameservers");
    if servers.len() > 3 {
        errors.invalid(&place, servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        if format::ip(server).is_none() {
            errors.invalid(
                &place.index(i),
                server,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
    let searches = config.field("searches");
    for (i, search) in items(spec, &["dnsConfig", "searches"]).iter().filter_map(Value::as_str).enumerate() {
        if search != "." {
            check::subdomain(&search.trim_end_matches('.').replace('_', "-"), &searches.index(i), errors);
        }
    }
    for (i, option) in items(spec, &["dnsConfig", "options"]).iter().enumerate() {
        if text(option, &["name"]).is_empty() {
            errors.required(&config.field("options").index(i), "must not be empty");
        }
    }
}

fn check_names(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for name in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let value = text(spec, &[name]);
        if !value.is_empty() {
            check::subdomain(value, &path.field(name), errors);
        }
    }
    for name in ["hostname", "subdomain"] {
        let value = text(spec, &[name]);
        if !value.is_empty() {
            check::dns_label(value, &path.field(name), errors);
        }
    }
    let scheduler = text(spec, &["schedulerName"]);
    if !scheduler.is_empty() {
        check::qualified_name(scheduler, &path.field("schedulerName"), errors);
    }
    for (i, secret) in items(spec, &["imagePullSecrets"]).iter().enumerate() {
        check::required(secret, "name", &path.field("imagePullSecrets").index(i), errors);
    }
    let aliases = path.field("hostAliases");
    for (i, alias) in items(spec, &["hostAliases"]).iter().enumerate() {
        let path = aliases.index(i);
        let ip = text(alias, &["ip"]);
        if format::ip(ip).is_none() {
            errors.invalid(
                &path.field("ip"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        for host in items(alias, &["hostnames"]).iter().filter_map(Value::as_str) {
            check::subdomain(host, &path.field("hostnames"), errors);
        }
    }
    check::one_of(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"], path, errors);
    if let Some(os) = at(spec, &["os"]) {
        check::required_one_of(os, "name", &["linux", "windows"], &path.field("os"), errors);
    }
}

fn check_placement(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    crate::metadata::labels(spec.get("nodeSelector"), &path.field("nodeSelector"), errors);
    tolerations::validate(items(spec, &["tolerations"]), &path.field("tolerations"), errors);
    if let Some(affinity) = at(spec, &["affinity"]) {
        affinity::validate(affinity, &path.field("affinity"), errors);
    }
    let gates = path.field("readinessGates");
    for (i, gate) in items(spec, &["readinessGates"]).iter().enumerate() {
        check::qualified_name(text(gate, &["conditionType"]), &gates.index(i).field("conditionType"), errors);
    }
    scheduling_gates(spec, path, errors);
    spread(spec, path, errors);
}

fn scheduling_gates(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("schedulingGates");
    let gates = items(spec, &["schedulingGates"]);
    let mut seen = Vec::new();
    for (i, gate) in gates.iter().enumerate() {
        let name = text(gate, &["name"]);
        check::qualified_name(name, &list.index(i), errors);
        if seen.contains(&name) {
            errors.duplicate(&list.index(i), name);
        }
        seen.push(name);
    }
    if !gates.is_empty() && !text(spec, &["nodeName"]).is_empty() {
        errors
            .forbidden(&path.field("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

fn spread(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("topologySpreadConstraints");
    let constraints = items(spec, &["topologySpreadConstraints"]);
    for (i, constraint) in constraints.iter().enumerate() {
        let path = list.index(i);
        let skew = int(constraint, &["maxSkew"]).unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&path.field("maxSkew"), skew, "must be greater than zero");
        }
        let key = text(constraint, &["topologyKey"]);
        if key.is_empty() {
            errors.required(&path.field("topologyKey"), "can not be empty");
        } else {
            check::qualified_name(key, &path.field("topologyKey"), errors);
        }
        let action = text(constraint, &["whenUnsatisfiable"]);
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(
                &path.field("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        let same = |c: &Value| text(c, &["topologyKey"]) == key && text(c, &["whenUnsatisfiable"]) == action;
        if constraints[..i].iter().any(same) {
            errors.duplicate(&path.field("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = int(constraint, &["minDomains"]) {
            if domains <= 0 {
                errors.invalid(&path.field("minDomains"), domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                errors.invalid(
                    &path.field("minDomains"),
                    domains,
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule",
                );
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            check::one_of(constraint, name, &["Ignore", "Honor"], &path, errors);
        }
        check::selector(constraint.get("labelSelector"), &path.field("labelSelector"), errors);
    }
}
