//! Discovery documents: the legacy lists and the aggregated one.

use serde_json::{Value, json};

use crate::registry::{Group, Registry};
use crate::resource::{Resource, Subresource};

/// `GET /api`: the versions of the core group.
#[must_use]
pub fn api_versions(registry: &Registry, server_address: &str) -> Value {
    let core = registry.groups().iter().find(|g| g.name.is_empty());
    let versions: Vec<&str> = core.map(|g| g.versions.iter().map(|v| &**v).collect()).unwrap_or_default();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `GET /apis`: all named groups.
#[must_use]
pub fn api_groups(registry: &Registry) -> Value {
    let groups: Vec<Value> =
        registry.groups().iter().filter(|g| !g.name.is_empty()).map(group_members).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/GROUP`: one named group.
#[must_use]
pub fn api_group(registry: &Registry, group: &str) -> Option<Value> {
    let found = registry.groups().iter().find(|g| &*g.name == group && !group.is_empty())?;
    let mut out = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(out), Value::Object(members)) = (&mut out, group_members(found)) {
        out.extend(members);
    }
    Some(out)
}

fn group_members(group: &Group) -> Value {
    let version = |v: &str| json!({"groupVersion": format!("{}/{v}", group.name), "version": v});
    let versions: Vec<Value> = group.versions.iter().map(|v| version(v)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

/// `GET /api/v1` and `GET /apis/GROUP/VERSION`: the resources of one group version.
#[must_use]
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut resources: Vec<(String, Value)> = Vec::new();
    for resource in registry.in_version(group, version) {
        resources.push((resource.plural.to_string(), listed(resource)));
        for sub in &resource.subresources {
            resources.push((format!("{}/{}", resource.plural, sub.name), listed_subresource(resource, sub)));
        }
    }
    if resources.is_empty() {
        return None;
    }
    resources.sort_by(|a, b| a.0.cmp(&b.0));
    let items: Vec<Value> = resources.into_iter().map(|(_, r)| r).collect();
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": items}))
}

fn listed(resource: &Resource) -> Value {
    let mut out = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        out["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        out["categories"] = json!(resource.categories);
    }
    if resource.has_verb("list") {
        out["storageVersionHash"] = storage_version_hash(resource).into();
    }
    out
}

fn listed_subresource(resource: &Resource, sub: &Subresource) -> Value {
    let mut out = json!({
        "name": format!("{}/{}", resource.plural, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.gvk.kind,
        "verbs": sub.verbs,
    });
    if sub.gvk.group != resource.group || sub.gvk.version != resource.version {
        out["group"] = json!(sub.gvk.group);
        out["version"] = json!(sub.gvk.version);
    }
    out
}

/// Base64 of eight bytes that change when the stored form of a kind changes.
fn storage_version_hash(resource: &Resource) -> String {
    let text = format!("{}/{}/{}", resource.storage_id.group, resource.storage_version, resource.kind);
    crate::base64::encode(&fnv(text.as_bytes()).to_be_bytes())
}

/// FNV-1a, 64 bits: stable across runs, needs no key.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// The aggregated document (`apidiscovery.k8s.io/v2`) of `/api` (core) or `/apis` (all others).
#[must_use]
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<Value> = registry
        .groups()
        .iter()
        .filter(|g| g.name.is_empty() == core)
        .map(|g| aggregated_group(registry, g))
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(registry: &Registry, group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let mut resources: Vec<_> = registry.in_version(&group.name, version).collect();
            resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            let resources: Vec<Value> = resources.into_iter().map(|r| aggregated_resource(r)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut out = json!({
        "resource": resource.plural,
        "responseKind": response_kind(resource, &resource.group, &resource.version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        out["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        out["categories"] = json!(resource.categories);
    }
    let mut subresources: Vec<&Subresource> = resource.subresources.iter().collect();
    subresources.sort_by(|a, b| a.name.cmp(&b.name));
    if !subresources.is_empty() {
        let entry = |s: &&Subresource| {
            json!({
                "subresource": s.name,
                "responseKind": response_kind(resource, &s.gvk.group, &s.gvk.version, &s.gvk.kind),
                "verbs": s.verbs,
            })
        };
        out["subresources"] = subresources.iter().map(entry).collect();
    }
    out
}

/// A kind; group and version are left empty when a built-in resource's own.
fn response_kind(resource: &Resource, group: &str, version: &str, kind: &str) -> Value {
    let own = resource.builtin && group == &*resource.group && version == &*resource.version;
    if own {
        json!({"group": "", "version": "", "kind": kind})
    } else {
        json!({"group": group, "version": version, "kind": kind})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_groups_with_the_preferred_version() {
        let groups = api_groups(&Registry::builtin());
        let all = groups["groups"].as_array().unwrap();
        let autoscaling = all.iter().find(|g| g["name"] == "autoscaling").unwrap();
        assert_eq!(autoscaling["preferredVersion"]["groupVersion"], "autoscaling/v2");
        assert_eq!(api_versions(&Registry::builtin(), "a:1")["versions"], json!(["v1"]));
    }

    #[test]
    fn lists_subresources_beside_their_resource() {
        let list = resource_list(&Registry::builtin(), "apps", "v1").unwrap();
        let names: Vec<&str> =
            list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
        assert!(names.contains(&"deployments/scale") && names.contains(&"deployments"));
        assert!(resource_list(&Registry::builtin(), "apps", "v9").is_none());
    }

    #[test]
    fn aggregates_core_apart_from_the_groups() {
        let core = aggregated(&Registry::builtin(), true);
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        let pods = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
        assert!(pods.iter().any(|r| r["resource"] == "pods" && r["subresources"].is_array()));
    }
}
