//! Which files a config map, secret, downward volume or token becomes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::{
    VolumeError,
    atomic::{File, Payload},
};
use crate::env::{
    EnvError,
    fields::{self, NodeFields},
};

/// How files of one source are chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// Keys and the paths they go to; all keys when absent.
    pub(crate) items: Option<&'a [KeyToPath]>,
    /// Permission bits of files that name none.
    pub(crate) mode: i32,
    /// Whether missing keys are fine.
    pub(crate) optional: bool,
}

/// The files of a config map.
pub(crate) fn config_map(map: &ConfigMap, choice: Choice<'_>) -> Result<Payload, VolumeError> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    choose(text.chain(binary).collect(), choice, "config")
}

/// The files of a secret.
pub(crate) fn secret(secret: &Secret, choice: Choice<'_>) -> Result<Payload, VolumeError> {
    choose(
        secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice())).collect(),
        choice,
        "secret",
    )
}

fn choose(
    data: BTreeMap<&str, &[u8]>,
    choice: Choice<'_>,
    kind: &'static str,
) -> Result<Payload, VolumeError> {
    let file = |content: &[u8], mode: i32| File { content: content.to_vec(), mode: bits(mode) };
    let Some(items) = choice.items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(k, v)| (k.to_owned(), file(v, choice.mode))).collect());
    };
    let mut files = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(content) => {
                files.insert(item.path.clone(), file(content, item.mode.unwrap_or(choice.mode)));
            }
            None if choice.optional => {}
            None => return Err(VolumeError::NoKey { kind, key: item.key.clone() }),
        }
    }
    Ok(files)
}

/// Permission bits as the API gives them.
pub(crate) fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o7777
}

/// The files of a downward volume.
pub(crate) fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    pod_ips: &[String],
    node: &NodeFields,
) -> Result<Payload, VolumeError> {
    let mut files = Payload::new();
    for item in items {
        let text = downward_text(pod, item, pod_ips, node)?;
        let mode = bits(item.mode.unwrap_or(mode));
        files.insert(item.path.clone(), File { content: text.into_bytes(), mode });
    }
    Ok(files)
}

fn downward_text(
    pod: &Pod,
    item: &DownwardAPIVolumeFile,
    pod_ips: &[String],
    node: &NodeFields,
) -> Result<String, EnvError> {
    if let Some(selector) = &item.field_ref {
        return fields::field(pod, pod_ips, node, &selector.field_path);
    }
    let Some(selector) = &item.resource_field_ref else { return Ok(String::new()) };
    let name = selector.container_name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref().ok_or_else(|| EnvError::Resource(selector.resource.clone()))?;
    let container =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name);
    let container =
        container.ok_or_else(|| EnvError::Resource(format!("{} of {name:?}", selector.resource)))?;
    fields::resource(container, node, selector)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map() -> ConfigMap {
        serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "/wA="}})).unwrap()
    }

    #[test]
    fn all_keys_become_files_unless_items_choose() {
        let all = config_map(&map(), Choice { items: None, mode: 0o600, optional: false }).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(all["c"].content, [0xff, 0]);
        assert_eq!(all["a"].mode, 0o600);
        let items: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "a", "path": "x/y", "mode": 0o400}])).unwrap();
        let some = config_map(&map(), Choice { items: Some(&items), mode: 0o644, optional: false }).unwrap();
        assert_eq!(some.keys().collect::<Vec<_>>(), ["x/y"]);
        assert_eq!(some["x/y"].mode, 0o400);
    }

    #[test]
    fn a_missing_key_is_an_error_unless_optional() {
        let items: Vec<KeyToPath> = serde_json::from_value(json!([{"key": "z", "path": "z"}])).unwrap();
        let of = |optional| config_map(&map(), Choice { items: Some(&items), mode: 0o644, optional });
        assert!(of(true).unwrap().is_empty());
        assert_eq!(of(false).unwrap_err().to_string(), "references non-existent config key: z");
    }
}
