//! One apply after another, against the schemas of built-in kinds.

use std::sync::Arc;

use serde_json::json;
use skep_registry::{Registry, Resource};

use super::*;

fn resource(group: &str, plural: &str) -> Arc<Resource> {
    Registry::builtin().lookup(group, "v1", plural).unwrap()
}

fn identity(manager: &str) -> Identity {
    Identity {
        manager: manager.into(),
        operation: "Apply".into(),
        api_version: "v1".into(),
        subresource: None,
    }
}

fn apply(
    resource: &Resource,
    live: &Value,
    config: Value,
    manager: &str,
    force: bool,
) -> Result<Value, Vec<Conflict>> {
    let schema = resource.schema().root();
    Apply { config: &config, schema, identity: identity(manager), force, now: "2026-01-01T00:00:00Z" }
        .onto(live)
}

fn first(resource: &Resource, config: Value, manager: &str) -> Value {
    let schema = resource.schema().root();
    let managed = Apply {
        config: &config,
        schema,
        identity: identity(manager),
        force: false,
        now: "2026-01-01T00:00:00Z",
    }
    .first();
    let mut object = config;
    meta::set(&mut object, "managedFields", managed);
    object
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let list = object["metadata"]["managedFields"].as_array().unwrap();
    &list.iter().find(|e| e["manager"] == manager).unwrap()["fieldsV1"]
}

#[test]
fn what_a_manager_no_longer_applies_goes_unless_others_own_it() {
    let maps = resource("", "configmaps");
    let live = first(&maps, json!({"metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}), "m1");
    let live =
        apply(&maps, &live, json!({"metadata": {"name": "c"}, "data": {"a": "1"}}), "m2", false).unwrap();
    let live = apply(&maps, &live, json!({"metadata": {"name": "c"}}), "m1", false).unwrap();
    assert_eq!(live["data"], json!({"a": "1"}));
    assert_eq!(fields(&live, "m2"), &json!({"f:data": {"f:a": {}}}));
}

#[test]
fn another_value_is_a_conflict_until_forced() {
    let maps = resource("", "configmaps");
    let live = first(&maps, json!({"metadata": {"name": "c"}, "data": {"a": "1"}}), "m1");
    let other = json!({"metadata": {"name": "c"}, "data": {"a": "2"}});
    let conflicts = apply(&maps, &live, other.clone(), "m2", false).unwrap_err();
    assert_eq!(conflicts, [Conflict { manager: "m1".into(), field: ".data.a".into() }]);
    let live = apply(&maps, &live, other, "m2", true).unwrap();
    assert_eq!(live["data"]["a"], "2");
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[test]
fn ports_that_differ_by_protocol_are_different_items() {
    let services = resource("", "services");
    let live = first(
        &services,
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 53, "protocol": "TCP"}]}}),
        "m1",
    );
    let config = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
    let live = apply(&services, &live, config, "m2", false).unwrap();
    assert_eq!(live["spec"]["ports"].as_array().unwrap().len(), 2);
}

#[test]
fn sets_hold_each_managers_items() {
    let maps = resource("", "configmaps");
    let live = first(&maps, json!({"metadata": {"name": "c", "finalizers": ["x.io/a"]}}), "m1");
    let live = apply(&maps, &live, json!({"metadata": {"name": "c", "finalizers": ["x.io/b"]}}), "m2", false)
        .unwrap();
    assert_eq!(live["metadata"]["finalizers"], json!(["x.io/a", "x.io/b"]));
    let live = apply(&maps, &live, json!({"metadata": {"name": "c"}}), "m1", false).unwrap();
    assert_eq!(live["metadata"]["finalizers"], json!(["x.io/b"]));
}

#[test]
fn lists_follow_the_order_of_the_configuration() {
    let maps = resource("", "configmaps");
    let live = first(&maps, json!({"metadata": {"name": "c", "finalizers": ["x.io/a", "x.io/b"]}}), "m1");
    let config = json!({"metadata": {"name": "c", "finalizers": ["x.io/c", "x.io/b"]}});
    let live = apply(&maps, &live, config, "m2", false).unwrap();
    assert_eq!(live["metadata"]["finalizers"], json!(["x.io/a", "x.io/c", "x.io/b"]));
}

#[test]
fn an_object_that_was_never_applied_is_not_taken_over_unasked() {
    let maps = resource("", "configmaps");
    let live = json!({"metadata": {"name": "c"}, "data": {"a": "1"}});
    let conflicts =
        apply(&maps, &live, json!({"metadata": {"name": "c"}, "data": {"a": "2"}}), "m", false).unwrap_err();
    assert_eq!(conflicts[0].manager, "before-first-apply");
    assert!(apply(&maps, &live, json!({"metadata": {"name": "c"}, "data": {"a": "1"}}), "m", false).is_ok());
}

#[test]
fn updates_take_what_they_change() {
    let maps = resource("", "configmaps");
    let live = first(&maps, json!({"metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}), "m1");
    let mut new = live.clone();
    new["data"]["b"] = "9".into();
    let editor = Identity { operation: "Update".into(), ..identity("editor") };
    track(&live, &mut new, maps.schema().root(), &editor, "2026-01-02T00:00:00Z");
    assert_eq!(fields(&new, "editor"), &json!({"f:data": {"f:b": {}}}));
    assert_eq!(fields(&new, "m1"), &json!({"f:data": {"f:a": {}}}));
}
