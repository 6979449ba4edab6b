//! What is accepted in a pod spec but unwise.

use serde_json::Value;

use crate::check::quantity;
use crate::field::{at, int, items, members, text};
use crate::path::Path;

const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

/// Warnings for a Pod.
pub(super) fn collect(pod: &Value, out: &mut Vec<String>) {
    of_spec(&pod["spec"], &Path::new("spec"), out);
}

/// Warnings for a pod template below the path.
pub(crate) fn of_spec(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let selector = path.field("nodeSelector");
    for (key, _) in members(spec, &["nodeSelector"]) {
        if let Some((_, advice)) = OLD_LABELS.iter().find(|(old, _)| *old == key) {
            out.push(format!("{}: {advice}", selector.key(key)));
        }
    }
    for list in ["initContainers", "containers"] {
        let list_path = path.field(list);
        for (i, container) in items(spec, &[list]).iter().enumerate() {
            of_container(container, &list_path.index(i), out);
        }
    }
}

fn of_container(container: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let resources = path.field("resources");
    for kind in ["limits", "requests"] {
        let kind_path = resources.field(kind);
        for name in ["memory", "ephemeral-storage"] {
            let Some(amount) = at(container, &["resources", kind, name]) else { continue };
            if !quantity(amount).is_whole() {
                let shown = amount.as_str().unwrap_or_default();
                out.push(format!(
                    "{}: fractional byte value {shown:?} is invalid, must be an integer",
                    kind_path.key(name)
                ));
            }
        }
    }
    let list = path.field("env");
    let variables = items(container, &["env"]);
    for (i, variable) in variables.iter().enumerate() {
        let name = text(variable, &["name"]);
        if variables[..i].iter().any(|v| text(v, &["name"]) == name) {
            out.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                list.index(i)
            ));
        }
    }
    let list = path.field("ports");
    for (i, port) in items(container, &["ports"]).iter().enumerate() {
        let ip = text(port, &["hostIP"]);
        if !ip.is_empty() && int(port, &["hostPort"]).unwrap_or(0) == 0 {
            out.push(format!(
                "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                list.index(i),
                text(port, &["name"]),
                int(port, &["containerPort"]).unwrap_or(0),
                text(port, &["protocol"]),
            ));
        }
    }
}
