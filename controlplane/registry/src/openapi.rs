//! OpenAPI documents of everything that is served, derived from the registry.
//!
//! Clients use them to explain fields, to learn which query parameters a PATCH takes, and to find merge keys:
//! `components.schemas` carries types, defaults and `x-kubernetes-*` facts, `paths` the operations of each resource.
//! Field descriptions come from k8s-openapi ([`description`]), those of custom resources from their definitions.

mod definition;
mod description;
mod operation;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use serde_json::{Map, Value, json};

use crate::{
    registry::Registry,
    resource::{Behaviour, Resource},
};

/// Which OpenAPI is spoken; they differ in where definitions live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> String {
        match self {
            Dialect::V2 => format!("#/definitions/{name}"),
            Dialect::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// The OpenAPI v2 document.
#[must_use]
pub fn v2(registry: &Registry) -> Value {
    let resources: Vec<_> = registry.resources().iter().collect();
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": operation::paths(&resources, Dialect::V2),
        "definitions": definition::all(&resources, Dialect::V2),
    })
}

/// The OpenAPI v3 root: group version paths (`api/v1`, `apis/apps/v1`) and the hashed URLs of their documents.
#[must_use]
pub fn v3_root(registry: &Registry) -> Value {
    let paths: Map<_, _> = versions(registry)
        .into_iter()
        .map(|((group, version), resources)| {
            let path = operation::prefix(group, version);
            let url = format!("/openapi/v3/{path}?hash={:016X}", fingerprint(&resources));
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// The OpenAPI v3 document of one group version.
#[must_use]
pub fn v3_group(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let resources: Vec<_> = registry.in_version(group, version).collect();
    (!resources.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0",
            "info": info(),
            "paths": operation::paths(&resources, Dialect::V3),
            "components": {"schemas": definition::all(&resources, Dialect::V3)},
        })
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

fn versions(registry: &Registry) -> BTreeMap<(&str, &str), Vec<&Arc<Resource>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for resource in registry.resources() {
        found.entry((&*resource.group, &*resource.version)).or_default().push(resource);
    }
    found
}

/// Changes when the document does: built-in parts with the build, custom ones with their definitions.
fn fingerprint(resources: &[&Arc<Resource>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    for resource in resources {
        (&resource.kind, &resource.plural, resource.namespaced).hash(&mut hasher);
        if let Behaviour::Custom(custom) = &resource.behaviour {
            custom.published_schema().map(Value::to_string).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_in_the_root_has_a_document_whose_references_resolve() {
        let registry = Registry::builtin();
        let root = v3_root(&registry);
        for path in root["paths"].as_object().unwrap().keys() {
            let (rest, version) = path.rsplit_once('/').unwrap();
            let group = rest.strip_prefix("apis/").unwrap_or_default();
            let document = v3_group(&registry, group, version).unwrap();
            let schemas = document["components"]["schemas"].as_object().unwrap();
            for reference in references(&document) {
                let name = reference.strip_prefix("#/components/schemas/").unwrap();
                assert!(schemas.contains_key(name), "{path}: {reference}");
            }
        }
    }

    #[test]
    fn references_of_the_second_version_resolve_too() {
        let document = v2(&Registry::builtin());
        for reference in references(&document) {
            let name = reference.strip_prefix("#/definitions/").unwrap();
            assert!(document["definitions"].get(name).is_some(), "{reference}");
        }
    }

    #[test]
    fn a_patch_names_its_kind_and_its_query_parameters() {
        let document = v3_group(&Registry::builtin(), "apps", "v1").unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let names: Vec<_> =
            patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"), "{names:?}");
    }

    #[test]
    fn fields_carry_descriptions_merge_keys_and_defaults() {
        let document = v3_group(&Registry::builtin(), "", "v1").unwrap();
        let container = &document["components"]["schemas"]["io.k8s.api.core.v1.Container"];
        let ports = &container["properties"]["ports"];
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
        assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
        assert!(ports["description"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(container["required"], json!(["name"]));
    }

    fn references(value: &Value) -> Vec<String> {
        match value {
            Value::Object(members) => members
                .iter()
                .flat_map(|(name, member)| match (name.as_str(), member) {
                    ("$ref", Value::String(target)) => vec![target.clone()],
                    _ => references(member),
                })
                .collect(),
            Value::Array(items) => items.iter().flat_map(references).collect(),
            _ => vec![],
        }
    }
}
