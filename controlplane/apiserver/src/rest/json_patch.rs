//! JSON patch with the leniencies Kubernetes clients rely on, beyond RFC 6902: `replace` adds what is absent, list
//! indexes may be negative, `test` against `null` accepts absence, and text before the first slash of a path is
//! ignored. Pure.

use serde_json::Value;

/// Most operations in one patch.
const MAX_OPERATIONS: usize = 10_000;

/// Why a patch does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPatchError {
    /// An operation that does not exist or lacks a member.
    #[error("operation {index} is not valid: {why}")]
    Operation {
        /// Its place in the patch.
        index: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// The path leads nowhere.
    #[error("operation {index} cannot be done: the document has nothing at {path}")]
    Missing {
        /// Its place in the patch.
        index: usize,
        /// The path.
        path: String,
    },
    /// A test did not hold.
    #[error("operation {index}: testing value {path} failed")]
    Test {
        /// Its place in the patch.
        index: usize,
        /// The path.
        path: String,
    },
    /// Too much of it.
    #[error("a patch holds at most {MAX_OPERATIONS} operations, this one has {0}")]
    TooMany(usize),
}

/// Applies a list of operations in order.
pub fn apply(mut document: Value, operations: &[Value]) -> Result<Value, JsonPatchError> {
    if operations.len() > MAX_OPERATIONS {
        return Err(JsonPatchError::TooMany(operations.len()));
    }
    for (index, operation) in operations.iter().enumerate() {
        step(&mut document, operation, index)?;
    }
    Ok(document)
}

fn step(document: &mut Value, operation: &Value, index: usize) -> Result<(), JsonPatchError> {
    let broken = |why| JsonPatchError::Operation { index, why };
    let path = operation["path"].as_str().ok_or(broken("it has no path"))?;
    let missing = |path: &str| JsonPatchError::Missing { index, path: path.to_owned() };
    let value = || operation.get("value").cloned().ok_or(broken("it has no value"));
    let from = || operation["from"].as_str().ok_or(broken("it has no from"));
    match operation["op"].as_str().unwrap_or_default() {
        "add" => add(document, path, value()?).ok_or(missing(path)),
        "replace" => replace(document, path, value()?).ok_or(missing(path)),
        "remove" => remove(document, path).map(|_| ()).ok_or(missing(path)),
        "move" => {
            let moved = remove(document, from()?).ok_or_else(|| missing(path))?;
            add(document, path, moved).ok_or(missing(path))
        }
        "copy" => {
            let from = from()?;
            let copied = get(document, from).cloned().ok_or_else(|| missing(from))?;
            add(document, path, copied).ok_or(missing(path))
        }
        "test" => {
            let wanted = operation.get("value").unwrap_or(&Value::Null);
            let holds = match get(document, path) {
                Some(present) => equal(present, wanted),
                None => wanted.is_null(),
            };
            if holds { Ok(()) } else { Err(JsonPatchError::Test { index, path: path.to_owned() }) }
        }
        _ => Err(broken("its op is none of add, remove, replace, move, copy, test")),
    }
}

/// Steps of a path; `None` is the whole document.
fn steps(path: &str) -> Option<Vec<String>> {
    if path.is_empty() {
        return None;
    }
    let after = path.split_once('/').map_or("", |(_, rest)| rest);
    Some(after.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect())
}

/// Index into a list; a negative one counts from the end.
fn index(step: &str, length: usize) -> Option<usize> {
    let number: i64 = step.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let at = if number < 0 { number + length } else { number };
    usize::try_from(at).ok()
}

fn child<'a>(value: &'a mut Value, step: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(step),
        Value::Array(list) => index(step, list.len()).and_then(|i| list.get_mut(i)),
        _ => None,
    }
}

fn get<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let Some(steps) = steps(path) else { return Some(document) };
    steps.iter().try_fold(document, |value, step| match value {
        Value::Object(map) => map.get(step),
        Value::Array(list) => index(step, list.len()).and_then(|i| list.get(i)),
        _ => None,
    })
}

/// The container of a path and the last step.
fn holder<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut steps = steps(path)?;
    let last = steps.pop()?;
    let holder = steps.iter().try_fold(document, |value, step| child(value, step))?;
    Some((holder, last))
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *document = value;
        return Some(());
    }
    match holder(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let at = index(&key, list.len()).filter(|i| *i <= list.len())?;
            list.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn replace(document: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *document = value;
        return Some(());
    }
    match holder(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), key) => {
            let at = index(&key, list.len())?;
            *list.get_mut(at)? = value;
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    match holder(document, path)? {
        (Value::Object(map), key) => map.shift_remove(&key),
        (Value::Array(list), key) => {
            let at = index(&key, list.len()).filter(|i| *i < list.len())?;
            Some(list.remove(at))
        }
        _ => None,
    }
}

/// Equality of JSON values: members in any order, numbers by value.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(document: Value, operations: Value) -> Result<Value, JsonPatchError> {
        apply(document, operations.as_array().unwrap())
    }

    #[test]
    fn lists_take_indexes_from_both_ends() {
        let document = json!({"l": [1, 2, 3]});
        let result = patched(
            document,
            json!([
                {"op": "replace", "path": "/l/-1", "value": 9},
                {"op": "add", "path": "/l/0", "value": 0},
                {"op": "add", "path": "/l/-", "value": 10},
                {"op": "remove", "path": "/l/1"},
            ]),
        );
        assert_eq!(result, Ok(json!({"l": [0, 2, 9, 10]})));
    }

    #[test]
    fn replace_adds_what_is_absent_and_test_takes_null_for_absence() {
        let result = patched(
            json!({"d": {}}),
            json!([
                {"op": "test", "path": "/d/x", "value": null},
                {"op": "replace", "path": "/d/x", "value": "1"},
            ]),
        );
        assert_eq!(result, Ok(json!({"d": {"x": "1"}})));
    }

    #[test]
    fn refuses_what_leads_nowhere() {
        for operation in [
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "add", "path": "/none/x", "value": 1}]),
            json!([{"op": "add", "path": "/l/9", "value": 1}]),
            json!([{"op": "bogus", "path": "/l"}]),
            json!([{"op": "test", "path": "/l", "value": [2]}]),
        ] {
            assert!(patched(json!({"l": [1]}), operation.clone()).is_err(), "{operation}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        let result = patched(json!({"m": {}}), json!([{"op": "add", "path": "/m/a~1b~0c", "value": 1}]));
        assert_eq!(result, Ok(json!({"m": {"a/b~c": 1}})));
    }
}
