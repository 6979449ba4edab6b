//! Paths: which operations a resource serves, with the query parameters that clients look for.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Dialect,
    definition::{builtin_name, kind_value, list_name_of, name_of},
};
use crate::{resource::Resource, schema::GroupVersionKind};

/// `api/v1` or `apis/apps/v1`.
pub(super) fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The paths of the resources and their subresources.
pub(super) fn paths(resources: &[&Arc<Resource>], dialect: Dialect) -> Map<String, Value> {
    let mut out = Map::new();
    for resource in resources {
        let base = format!("/{}", prefix(&resource.group, &resource.version));
        let collection = match resource.namespaced {
            true => format!("{base}/namespaces/{{namespace}}/{}", resource.plural),
            false => format!("{base}/{}", resource.plural),
        };
        let gvk = resource.gvk();
        let path = Path { dialect, gvk: &gvk, namespaced: resource.namespaced, kind: name_of(resource) };
        let list = Path { kind: list_name_of(resource), ..path.clone() };
        put(
            &mut out,
            collection.clone(),
            list.operations(&resource.verbs, &["list", "deletecollection"]),
            false,
        );
        put(&mut out, collection.clone(), path.operations(&resource.verbs, &["create"]), false);
        if resource.namespaced {
            let everywhere = Path { namespaced: false, ..list };
            put(
                &mut out,
                format!("{base}/{}", resource.plural),
                everywhere.operations(&resource.verbs, &["list"]),
                false,
            );
        }
        let item = format!("{collection}/{{name}}");
        put(
            &mut out,
            item.clone(),
            path.operations(&resource.verbs, &["get", "update", "patch", "delete"]),
            true,
        );
        for sub in &resource.subresources {
            let kind = builtin_name(&sub.gvk).unwrap_or_else(|| name_of(resource));
            let path = Path { gvk: &sub.gvk, kind, ..path.clone() };
            let operations = path.operations(&sub.verbs, &["get", "update", "patch", "create"]);
            put(&mut out, format!("{item}/{}", sub.name), operations, true);
        }
    }
    out
}

fn put(out: &mut Map<String, Value>, path: String, operations: Vec<(&'static str, Value)>, named: bool) {
    if operations.is_empty() {
        return;
    }
    let namespaced = path.contains("{namespace}");
    let entry = out.entry(path).or_insert_with(|| {
        let mut parameters = Vec::new();
        for (wanted, name) in [(named, "name"), (namespaced, "namespace")] {
            if wanted {
                parameters.push(
                    json!({"in": "path", "name": name, "required": true, "schema": {"type": "string"}}),
                );
            }
        }
        json!({"parameters": parameters})
    });
    for (method, operation) in operations {
        entry[method] = operation;
    }
}

#[derive(Clone)]
struct Path<'a> {
    dialect: Dialect,
    gvk: &'a GroupVersionKind,
    namespaced: bool,
    kind: String,
}

impl Path<'_> {
    /// The served operations among `these` verbs.
    fn operations(&self, served: &[Box<str>], these: &[&'static str]) -> Vec<(&'static str, Value)> {
        let serves = |verb: &&&str| served.iter().any(|name| &**name == **verb);
        these.iter().filter(serves).map(|verb| (method(verb), self.operation(verb))).collect()
    }

    fn operation(&self, verb: &str) -> Value {
        let scope = if self.namespaced { "Namespaced" } else { "" };
        let version = format!("{}{}", self.gvk.group, self.gvk.version);
        let parameters: Vec<_> =
            parameters(verb).iter().map(|(name, kind)| self.parameter(name, kind)).collect();
        let mut out = json!({
            "operationId": format!("{verb}{scope}{version}{}", self.gvk.kind),
            "parameters": parameters,
            "responses": {"200": self.response()},
            "x-kubernetes-action": action(verb),
            "x-kubernetes-group-version-kind": kind_value(self.gvk),
        });
        if matches!(verb, "create" | "update") && self.dialect == Dialect::V3 {
            out["requestBody"] = json!({"required": true, "content": {"*/*": {"schema": self.schema()}}});
        }
        out
    }

    fn parameter(&self, name: &str, kind: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"in": "query", "name": name, "type": kind, "uniqueItems": true}),
            Dialect::V3 => {
                json!({"in": "query", "name": name, "schema": {"type": kind, "uniqueItems": true}})
            }
        }
    }

    fn response(&self) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"description": "OK", "schema": self.schema()}),
            Dialect::V3 => {
                json!({"description": "OK", "content": {"application/json": {"schema": self.schema()}}})
            }
        }
    }

    fn schema(&self) -> Value {
        json!({"$ref": self.dialect.reference(&self.kind)})
    }
}

fn method(verb: &str) -> &'static str {
    match verb {
        "create" => "post",
        "update" => "put",
        "patch" => "patch",
        "delete" | "deletecollection" => "delete",
        _ => "get",
    }
}

fn action(verb: &str) -> &str {
    match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    }
}

fn parameters(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "create" | "update" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
        }
        "patch" => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        "list" | "deletecollection" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        _ => &[],
    }
}
