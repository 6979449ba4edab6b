//! Containers of all three kinds.

use std::collections::HashSet;

use serde_json::Value;

use super::{env, probe, resources, security, volume_mount};
use crate::check;
use crate::error::Errors;
use crate::field::{at, flag, int, items, set, text};
use crate::path::Path;

/// Names that containers refer to or must not repeat.
pub(crate) struct Names<'a> {
    pub(super) volumes: &'a [&'a Value],
    containers: HashSet<&'a str>,
    pub(super) user_namespace: bool,
}

impl<'a> Names<'a> {
    /// Nothing seen but the volumes.
    pub(crate) fn new(spec: &'a Value, volumes: &'a [&'a Value]) -> Self {
        let user_namespace = at(spec, &["hostUsers"]).and_then(Value::as_bool) == Some(false);
        Self { volumes, containers: HashSet::new(), user_namespace }
    }
}

/// Regular containers: at least one.
pub(super) fn regular<'a>(spec: &'a Value, names: &mut Names<'a>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("containers");
    let containers = items(spec, &["containers"]);
    if containers.is_empty() {
        errors.required(&path, "");
    }
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(container, names, &path, errors);
        lifecycle(container, &path, errors);
        probe::all(container, &path, errors);
        restart_policy(container, &["Always", "OnFailure", "Never"], &path, errors);
    }
}

/// Init containers; those that restart are sidecars and may have probes.
pub(super) fn init<'a>(spec: &'a Value, names: &mut Names<'a>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("initContainers");
    for (i, container) in items(spec, &["initContainers"]).iter().enumerate() {
        let path = path.index(i);
        common(container, names, &path, errors);
        restart_policy(container, &["Always", "OnFailure", "Never"], &path, errors);
        if text(container, &["restartPolicy"]) == "Always" {
            lifecycle(container, &path, errors);
            probe::all(container, &path, errors);
            continue;
        }
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if at(container, &[name]).is_some() {
                errors.forbidden(
                    &path.field(name),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
    }
}

/// Ephemeral containers: no ports, probes, lifecycle or resources.
pub(crate) fn ephemeral<'a>(spec: &'a Value, volumes: &'a [&'a Value], path: &Path<'_>, errors: &mut Errors) {
    let mut names = Names::new(spec, volumes);
    let others = items(spec, &["containers"]).iter().chain(items(spec, &["initContainers"]));
    names.containers.extend(others.map(|c| text(c, &["name"])));
    let targets = names.containers.clone();
    let path = path.field("ephemeralContainers");
    for (i, container) in items(spec, &["ephemeralContainers"]).iter().enumerate() {
        let path = path.index(i);
        common(container, &mut names, &path, errors);
        let target = text(container, &["targetContainerName"]);
        if !target.is_empty() && !targets.contains(target) {
            errors.not_found(&path.field("targetContainerName"), target);
        }
        for name in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resources",
            "resizePolicy",
        ] {
            if set(container, &[name]) {
                errors.forbidden(&path.field(name), "cannot be set for an Ephemeral Container");
            }
        }
    }
}

fn common<'a>(container: &'a Value, names: &mut Names<'a>, path: &Path<'_>, errors: &mut Errors) {
    let name = text(container, &["name"]);
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    } else {
        check::dns_label(name, &path.field("name"), errors);
        if !names.containers.insert(name) {
            errors.duplicate(&path.field("name"), name);
        }
    }
    let image = text(container, &["image"]);
    if image.is_empty() {
        errors.required(&path.field("image"), "");
    } else if image.trim() != image {
        errors.invalid(&path.field("image"), image, "must not have leading or trailing whitespace");
    }
    check::one_of(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], path, errors);
    check::one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    ports(items(container, &["ports"]), &path.field("ports"), errors);
    env::variables(container, path, errors);
    env::sources(container, path, errors);
    volume_mount::mounts(container, names, path, errors);
    volume_mount::devices(container, names, path, errors);
    if let Some(requirements) = at(container, &["resources"]) {
        resources::validate(requirements, &path.field("resources"), errors);
    }
    security::container(container, names, path, errors);
}

fn restart_policy(container: &Value, supported: &[&str], path: &Path<'_>, errors: &mut Errors) {
    check::one_of(container, "restartPolicy", supported, path, errors);
}

fn lifecycle(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("lifecycle");
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = at(container, &["lifecycle", hook]) {
            probe::handler(handler, &["exec", "httpGet", "tcpSocket", "sleep"], &path.field(hook), errors);
        }
    }
}

fn ports(ports: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let before = errors.len();
            check::port_name(name, &path.field("name"), errors);
            if errors.len() == before && !names.insert(name) {
                errors.duplicate(&path.field("name"), name);
            }
        }
        match int(port, &["containerPort"]).unwrap_or(0) {
            0 => errors.required(&path.field("containerPort"), ""),
            number => check::port_number(number, &path.field("containerPort"), errors),
        }
        if let Some(number) = int(port, &["hostPort"]).filter(|n| *n != 0) {
            check::port_number(number, &path.field("hostPort"), errors);
        }
        check::required_one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
    }
}

/// Host ports must not repeat, and equal the container's under hostNetwork.
pub(super) fn host_ports(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let host_network = flag(spec, &["hostNetwork"]);
    for list in ["containers", "initContainers"] {
        let mut used = HashSet::new();
        let list_path = path.field(list);
        for (i, container) in items(spec, &[list]).iter().enumerate() {
            let container_path = list_path.index(i);
            let ports_path = container_path.field("ports");
            for (j, port) in items(container, &["ports"]).iter().enumerate() {
                let path = ports_path.index(j);
                let number = int(port, &["hostPort"]).unwrap_or(0);
                // In templates a host port may be left out: it is filled in when the pod is made.
                if host_network && number != 0 && Some(number) != int(port, &["containerPort"]) {
                    let detail = "must match `containerPort` when `hostNetwork` is true";
                    errors.invalid(&path.field("hostPort"), number, detail);
                }
                if list == "containers"
                    && number != 0
                    && !used.insert((text(port, &["protocol"]), text(port, &["hostIP"]), number))
                {
                    errors.duplicate(&path.field("hostPort"), number.to_string());
                }
            }
        }
    }
}
