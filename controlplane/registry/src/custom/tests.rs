//! A custom resource through the three steps of a write.

use serde_json::json;

use crate::{DecodeError, FieldValidation, Registry, Resource};
use std::sync::Arc;

fn definition() -> serde_json::Value {
    json!({"spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo", "shortNames": ["fo"]},
        "versions": [
            {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
             "additionalPrinterColumns": [{"name": "A", "type": "integer", "jsonPath": ".spec.a"}],
             "selectableFields": [{"jsonPath": ".spec.color"}],
             "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    "a": {"type": "integer", "default": 5, "minimum": 1},
                    "color": {"type": "string", "enum": ["red", "blue"]},
                    "keep": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "m": {"type": "object", "additionalProperties": {"type": "string"}},
                    "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                          "items": {"type": "object", "properties": {"k": {"type": "string", "pattern": "^[a-z]+$"}}}},
                    "o": {"type": "object", "required": ["r"], "properties": {"r": {"type": "string"}}},
                }},
                "status": {"type": "object", "properties": {"x": {"type": "string"}}},
             }}}},
            {"name": "v1beta1", "served": true, "storage": false,
             "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            {"name": "v1alpha1", "served": false, "storage": false},
        ],
    }})
}

fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.install_crd(&definition()).unwrap();
    registry
}

fn foo() -> Arc<Resource> {
    registry().lookup("example.com", "v1", "foos").unwrap()
}

fn written(spec: serde_json::Value) -> Result<(serde_json::Value, Vec<String>), Vec<String>> {
    let body = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a", "namespace": "n"}, "spec": spec});
    let foo = foo();
    let (mut object, warnings) = foo.decode(body.to_string().as_bytes(), FieldValidation::Warn).unwrap();
    foo.default(&mut object);
    let errors: Vec<_> =
        foo.validate_create(&object).iter().map(|e| format!("{} {}", e.reason.cause(), e.field)).collect();
    if errors.is_empty() { Ok((object["spec"].clone(), warnings)) } else { Err(errors) }
}

#[test]
fn served_versions_become_resources_and_the_others_do_not() {
    let registry = registry();
    let v1 = registry.lookup("example.com", "v1", "foos").unwrap();
    assert_eq!((&*v1.singular, &*v1.list_kind, v1.converts()), ("foo", "FooList", false));
    let beta = registry.lookup("example.com", "v1beta1", "foos").unwrap();
    assert!(beta.converts() && beta.storage_id == v1.storage_id);
    assert!(registry.lookup("example.com", "v1alpha1", "foos").is_none());
    assert!(v1.subresource("status").is_some() && v1.subresource("scale").is_none());
}

#[test]
fn unknown_fields_are_dropped_with_a_warning_and_absent_ones_filled_in() {
    let (spec, warnings) =
        written(json!({"bogus": 1, "keep": {"any": {"x": 1}}, "m": {"q": "r"}, "l": [{"k": "b", "e": 3}]}))
            .unwrap();
    assert_eq!(spec, json!({"keep": {"any": {"x": 1}}, "m": {"q": "r"}, "l": [{"k": "b"}], "a": 5}));
    assert_eq!(warnings, [r#"unknown field "spec.bogus""#, r#"unknown field "spec.l[0].e""#]);
    assert_eq!(written(json!({"a": null})).unwrap().0, json!({"a": 5}));
}

#[test]
fn strict_validation_refuses_unknown_fields() {
    let body = br#"{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"a"},"spec":{"bogus":1}}"#;
    assert!(matches!(foo().decode(body, FieldValidation::Strict), Err(DecodeError::Strict(_))));
}

#[test]
fn wrong_values_are_refused_by_field() {
    assert_eq!(
        written(json!({"a": "x", "m": {"q": 5}, "l": {}})).unwrap_err(),
        ["FieldValueTypeInvalid spec.a", "FieldValueTypeInvalid spec.m.q", "FieldValueTypeInvalid spec.l"]
    );
    assert_eq!(written(json!({"a": 0})).unwrap_err(), ["FieldValueInvalid spec.a"]);
    assert_eq!(written(json!({"color": "green"})).unwrap_err(), ["FieldValueNotSupported spec.color"]);
    assert_eq!(written(json!({"o": {}})).unwrap_err(), ["FieldValueRequired spec.o.r"]);
    assert_eq!(written(json!({"l": [{"k": "B"}]})).unwrap_err(), ["FieldValueInvalid spec.l[0].k"]);
    assert_eq!(
        written(json!({"l": [{"k": "b"}, {"k": "b"}]})).unwrap_err(),
        ["FieldValueDuplicate spec.l[1]"]
    );
    assert_eq!(written(json!({"l": [{}]})).unwrap_err(), ["FieldValueRequired spec.l[0].k"]);
}

#[test]
fn columns_and_selectable_fields_read_the_object() {
    let object = json!({"metadata": {"name": "a"}, "spec": {"a": 3, "color": "red"}});
    let foo = foo();
    let names: Vec<_> = foo.columns().iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["Name", "A"]);
    assert_eq!(foo.row(&object, jiff::Timestamp::UNIX_EPOCH), [json!("a"), json!(3)]);
    assert_eq!(foo.attributes(&object).1["spec.color"], "red");
    assert!(foo.is_selectable("spec.color") && !foo.is_selectable("spec.a"));
}
