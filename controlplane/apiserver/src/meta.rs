//! Reading and writing `metadata` of objects in flight. Owns the rules every object shares: system fields, generated
//! names, what an update may not change. What is valid is the registry's.

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Map, Value};

use crate::status::ApiError;

/// Longest name that a suffix is added to.
const GENERATE_MAX: usize = 58;
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A text member of metadata, empty when absent.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The metadata map, created when absent or of another type.
pub fn of(object: &mut Value) -> &mut Map<String, Value> {
    member(object, "metadata")
}

/// A member that must be an object, created when absent or of another type.
pub fn member<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object[field];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        // Just made one.
        _ => unreachable!("the slot holds an object"),
    }
}

/// A list inside an object, without making one up where there is none.
pub fn list_mut<'a>(object: &'a mut Value, path: &[&str]) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    let found = path.iter().try_fold(object, |value, step| value.get_mut(*step));
    found.and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets a member of metadata.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    of(object).insert(field.to_owned(), value.into());
}

/// Removes a member of metadata, keeping the order of the others.
pub fn clear(object: &mut Value, field: &str) {
    of(object).shift_remove(field);
}

/// Finalizers of an object.
pub fn finalizers(object: &Value) -> Vec<String> {
    strings(&object["metadata"]["finalizers"])
}

/// Replaces the finalizers.
pub fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    if finalizers.is_empty() {
        clear(object, "finalizers");
    } else {
        set(object, "finalizers", finalizers.to_vec());
    }
}

/// A list of texts, other items left out.
pub fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Whether deletion has begun.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// The present, in whole seconds as objects carry it.
pub fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Five letters no word is made of.
pub fn suffix() -> String {
    let mut rng = rand::rng();
    (0..5).map(|_| SUFFIX_LETTERS[rng.random_range(0..SUFFIX_LETTERS.len())] as char).collect()
}

/// Whether a name is left to the server.
pub fn generates_name(object: &Value) -> bool {
    text(object, "name").is_empty() && !text(object, "generateName").is_empty()
}

/// Fills in a generated name, when one is asked for.
pub fn generate_name(object: &mut Value) {
    if generates_name(object) {
        let base: String = text(object, "generateName").chars().take(GENERATE_MAX).collect();
        set(object, "name", format!("{base}{}", suffix()));
    }
}

/// Fields only the server writes, for a new object.
pub fn fill_system_fields(object: &mut Value) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        clear(object, field);
    }
    set(object, "uid", uuid::Uuid::new_v4().to_string());
    set(object, "creationTimestamp", now());
}

/// Takes over from the current object what a client may leave out of an update.
pub fn keep_system_fields(new: &mut Value, old: &Value) {
    for field in ["uid", "creationTimestamp"] {
        if text(new, field).is_empty() {
            carry(new, old, field);
        }
    }
    if is_deleting(old) {
        carry(new, old, "deletionTimestamp");
        carry(new, old, "deletionGracePeriodSeconds");
    }
    carry(new, old, "generation");
    clear(new, "selfLink");
}

/// Makes a metadata member equal to the old object's.
pub fn carry(new: &mut Value, old: &Value, field: &str) {
    match old["metadata"].get(field) {
        Some(value) => set(new, field, value.clone()),
        None => clear(new, field),
    }
}

/// The object's namespace must be the request's; an empty one is filled in.
pub fn settle_namespace(
    object: &mut Value,
    namespaced: bool,
    namespace: Option<&str>,
) -> Result<(), ApiError> {
    let given = text(object, "namespace").to_owned();
    let wanted = namespace.filter(|_| namespaced).unwrap_or_default();
    if !given.is_empty() && given != wanted {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if given.is_empty() && !wanted.is_empty() {
        set(object, "namespace", wanted);
    }
    Ok(())
}

/// Orders metadata members the way they are served.
pub fn order(object: &mut Value) {
    const ORDER: [&str; 14] = [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
    ];
    let metadata = of(object);
    let mut old = std::mem::take(metadata);
    for field in ORDER {
        if let Some(value) = old.shift_remove(field) {
            metadata.insert(field.to_owned(), value);
        }
    }
    metadata.extend(old);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn generated_names_keep_their_prefix_and_fit() {
        let mut object = json!({"metadata": {"generateName": "x".repeat(70)}});
        generate_name(&mut object);
        assert_eq!(text(&object, "name").len(), 63);
    }

    #[test]
    fn a_deletion_cannot_be_taken_back() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "deletionTimestamp": "t", "deletionGracePeriodSeconds": 0}});
        let mut new = json!({"metadata": {"name": "a"}});
        keep_system_fields(&mut new, &old);
        assert_eq!(new["metadata"]["deletionTimestamp"], "t");
        assert_eq!(new["metadata"]["uid"], "u");
    }

    #[test]
    fn the_namespace_must_be_the_one_of_the_path() {
        let mut object = json!({"metadata": {"namespace": "b"}});
        assert!(settle_namespace(&mut object, true, Some("a")).is_err());
        let mut object = json!({"metadata": {}});
        settle_namespace(&mut object, true, Some("a")).unwrap();
        assert_eq!(text(&object, "namespace"), "a");
    }
}
