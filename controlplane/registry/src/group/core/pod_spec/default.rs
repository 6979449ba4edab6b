//! Defaults of pod specs.

use serde_json::{Map, Value, json};

use crate::field::{at, fill, fill_empty, items_mut, object, text};

const CONTAINER_LISTS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];
const MODE: i64 = 0o644;

/// Fills in a pod template's spec. Idempotent.
pub(crate) fn template(template: &mut Value) {
    spec(object(template, "spec"));
}

/// Fills in a pod spec. Idempotent.
pub(crate) fn spec(spec: &mut Value) {
    fill_empty(spec, "restartPolicy", "Always");
    fill_empty(spec, "dnsPolicy", "ClusterFirst");
    fill_empty(spec, "schedulerName", "default-scheduler");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "securityContext", Map::new());
    mirror_service_account(spec);
    for list in CONTAINER_LISTS {
        items_mut(spec, &[list]).for_each(container);
    }
    items_mut(spec, &["volumes"]).for_each(volume);
    fill_resource_requests(spec.get_mut("resources"));
}

/// What is filled in for Pods but not for templates.
pub(crate) fn pod_only(spec: &mut Value) {
    fill(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for list in &CONTAINER_LISTS[..2] {
        for container in items_mut(spec, &[list]) {
            fill_resource_requests(container.get_mut("resources"));
            if host_network {
                for port in items_mut(container, &["ports"]) {
                    let number = port.get("containerPort").cloned().unwrap_or_default();
                    fill_empty(port, "hostPort", number);
                }
            }
        }
    }
}

fn mirror_service_account(spec: &mut Value) {
    let name = text(spec, &["serviceAccountName"]).to_owned();
    let old_name = text(spec, &["serviceAccount"]).to_owned();
    let name = if name.is_empty() { old_name } else { name };
    if !name.is_empty() {
        spec["serviceAccountName"] = name.as_str().into();
        spec["serviceAccount"] = name.into();
    }
}

/// Requests that are not given equal the limits.
fn fill_resource_requests(resources: Option<&mut Value>) {
    let Some(resources) = resources else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    for (name, limit) in limits {
        fill(object(resources, "requests"), &name, limit);
    }
}

fn container(container: &mut Value) {
    let image = text(container, &["image"]);
    let policy = if tag(image) == "latest" { "Always" } else { "IfNotPresent" };
    fill_empty(container, "imagePullPolicy", policy);
    fill_empty(container, "terminationMessagePath", "/dev/termination-log");
    fill_empty(container, "terminationMessagePolicy", "File");
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            fill_empty(probe, "timeoutSeconds", 1);
            fill_empty(probe, "periodSeconds", 10);
            fill_empty(probe, "successThreshold", 1);
            fill_empty(probe, "failureThreshold", 3);
            http_get(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            http_get(hook);
        }
    }
    for port in items_mut(container, &["ports"]) {
        fill_empty(port, "protocol", "TCP");
    }
    for variable in items_mut(container, &["env"]) {
        if let Some(from) = variable.get_mut("valueFrom") {
            field_source(from);
        }
    }
}

/// The image's tag: `latest` when there is neither tag nor digest.
fn tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let after_slash = name.rsplit('/').next().unwrap_or_default();
    match (after_slash.split_once(':'), digest) {
        (Some((_, tag)), _) => tag,
        (None, Some(_)) => "",
        (None, None) => "latest",
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        fill_empty(get, "path", "/");
        fill_empty(get, "scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc") {
        fill(grpc, "service", "");
    }
}

fn field_source(source: &mut Value) {
    if let Some(field) = source.get_mut("fieldRef") {
        fill_empty(field, "apiVersion", "v1");
    }
    if let Some(field) = source.get_mut("resourceFieldRef") {
        fill_empty(field, "divisor", "0");
    }
}

fn volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|v| v.keys().any(|k| k != "name"));
    if !has_source {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            fill(source, "defaultMode", MODE);
        }
    }
    items_mut(volume, &["downwardAPI", "items"]).for_each(field_source);
    for source in items_mut(volume, &["projected", "sources"]) {
        if let Some(token) = source.get_mut("serviceAccountToken") {
            fill(token, "expirationSeconds", 3600);
        }
        items_mut(source, &["downwardAPI", "items"]).for_each(field_source);
    }
    if let Some(host_path) = volume.get_mut("hostPath") {
        fill(host_path, "type", "");
    }
    if at(volume, &["ephemeral", "volumeClaimTemplate", "spec"]).is_some() {
        fill_empty(&mut volume["ephemeral"]["volumeClaimTemplate"]["spec"], "volumeMode", "Filesystem");
    }
    if let Some(image) = volume.get_mut("image") {
        let policy = if tag(text(image, &["reference"])) == "latest" { "Always" } else { "IfNotPresent" };
        fill_empty(image, "pullPolicy", policy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_always_only_without_a_fixed_tag() {
        for (image, expected) in [
            ("i", "latest"),
            ("i:latest", "latest"),
            ("host:5000/i", "latest"),
            ("i:v1", "v1"),
            ("r.io/i@sha256:aa", ""),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }

    #[test]
    fn filling_in_twice_changes_nothing() {
        let mut once = json!({"containers": [{"name": "c", "image": "i",
            "livenessProbe": {"httpGet": {"port": 1}}, "resources": {"limits": {"cpu": "1"}}}], "volumes": [{"name": "v"}]});
        spec(&mut once);
        pod_only(&mut once);
        let mut twice = once.clone();
        spec(&mut twice);
        pod_only(&mut twice);
        assert_eq!(once, twice);
        assert_eq!(once["containers"][0]["resources"]["requests"]["cpu"], "1");
        assert!(once["volumes"][0]["emptyDir"].is_object());
    }
}
