//! Table columns, and the pieces that cells are made of.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::time;

use crate::field::text;

/// One column of a Table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// OpenAPI type of the cells.
    pub kind: String,
    /// OpenAPI format; `name` marks the object's name.
    pub format: String,
    /// 0 is always shown, higher ones in wide output.
    pub priority: i32,
    /// What the column says.
    pub description: String,
}

impl Column {
    pub(crate) fn new(name: &str, kind: &str, format: &str) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            format: format.into(),
            priority: 0,
            description: String::new(),
        }
    }
}

/// The object's name.
pub(crate) fn name(object: &Value) -> Value {
    text(object, &["metadata", "name"]).into()
}

/// The object's age.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, &["metadata", "creationTimestamp"]), now)
}

/// How long ago a time was, as people read it.
pub(crate) fn since(at: &str, now: Timestamp) -> Value {
    time::parse(at).map_or_else(|| "<unknown>".to_owned(), |at| time::age(at, now)).into()
}

/// `<none>` for an empty text.
pub(crate) fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// `a=b,c=d` in key order, `<none>` when empty.
pub(crate) fn labels(map: Option<&Value>) -> Value {
    let Some(map) = map.and_then(Value::as_object).filter(|m| !m.is_empty()) else { return "<none>".into() };
    let mut pairs: Vec<String> =
        map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.sort();
    pairs.join(",").into()
}

/// A LabelSelector object as text, `<none>` when it is empty or absent.
pub(crate) fn selector(object: Option<&Value>) -> Value {
    let parsed = object
        .and_then(|o| serde_json::from_value(o.clone()).ok())
        .and_then(|o| skep_api::LabelSelector::from_object(&o).ok());
    or_none(&parsed.map(|s| s.to_string()).unwrap_or_default())
}
