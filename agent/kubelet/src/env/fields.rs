//! Fields of a pod and resources of a container as text, for environment variables and downward files. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};

use super::EnvError;
use crate::quantity;

/// The node's share of what fields can name.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeFields {
    /// The node's addresses, the first one preferred.
    pub(crate) host_ips: Vec<String>,
    /// What a container without a limit may use.
    pub(crate) allocatable: BTreeMap<String, Quantity>,
}

/// A field of the pod, e.g. `metadata.labels['app']`.
pub(crate) fn field(
    pod: &Pod,
    pod_ips: &[String],
    node: &NodeFields,
    path: &str,
) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(EnvError::Field(path.to_owned())),
        };
        return Ok(text(map.as_ref().and_then(|m| m.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => text(node.host_ips.first()),
        "status.hostIPs" => node.host_ips.join(","),
        "status.podIP" => text(pod_ips.first()),
        "status.podIPs" => pod_ips.join(","),
        _ => return Err(EnvError::Field(path.to_owned())),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    Some((map, key.trim_matches(|c| c == '\'' || c == '"')))
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// A resource of `container` in units of the selector's divisor.
pub(crate) fn resource(
    container: &Container,
    node: &NodeFields,
    selector: &ResourceFieldSelector,
) -> Result<String, EnvError> {
    let unsupported = || EnvError::Resource(selector.resource.clone());
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()?.get(name));
    let value = match list {
        "limits" => limit.or_else(|| node.allocatable.get(name)),
        "requests" => resources.and_then(|r| r.requests.as_ref()?.get(name)).or(limit),
        _ => return Err(unsupported()),
    };
    let one = Quantity("1".to_owned());
    let zero = Quantity("0".to_owned());
    let divisor = selector.divisor.as_ref().filter(|d| d.0 != "0" && !d.0.is_empty()).unwrap_or(&one);
    quantity::divided(value.unwrap_or(&zero), divisor).map(|v| v.to_string()).ok_or_else(unsupported)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"app": "web", "x": "a\"b"}},
            "spec": {"nodeName": "n", "containers": []}}))
        .unwrap()
    }

    #[test]
    fn names_fields_and_subscripts() {
        let node = NodeFields { host_ips: vec!["10.0.0.1".into()], ..NodeFields::default() };
        let get = |path: &str| field(&pod(), &["10.1.0.2".to_owned()], &node, path);
        assert_eq!(get("metadata.name").unwrap(), "p");
        assert_eq!(get("metadata.labels['app']").unwrap(), "web");
        assert_eq!(get("metadata.labels").unwrap(), "app=\"web\"\nx=\"a\\\"b\"");
        assert_eq!(get("status.podIP").unwrap(), "10.1.0.2");
        assert_eq!(get("status.hostIP").unwrap(), "10.0.0.1");
        assert!(get("spec.secret").is_err());
    }

    #[test]
    fn a_container_without_a_limit_may_use_the_node() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "resources": {"requests": {"cpu": "250m"}}})).unwrap();
        let node = NodeFields {
            allocatable: BTreeMap::from([("cpu".to_owned(), Quantity("2".to_owned()))]),
            ..NodeFields::default()
        };
        let get = |resource: &str, divisor: &str| {
            let selector = ResourceFieldSelector {
                resource: resource.to_owned(),
                divisor: Some(Quantity(divisor.to_owned())),
                container_name: None,
            };
            super::resource(&container, &node, &selector).unwrap()
        };
        assert_eq!(get("limits.cpu", "1"), "2");
        assert_eq!(get("requests.cpu", "1m"), "250");
    }
}
