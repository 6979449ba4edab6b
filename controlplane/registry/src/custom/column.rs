//! Printer columns of custom resources: the JSONPath subset that definitions use.

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    field::text,
    row::{self, Column},
};

/// A column and where its cells come from.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) column: Column,
    path: Vec<Step>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// `.name` or `['name']`
    Member(String),
    /// `[2]`, `[-1]`
    Index(i64),
    /// `[*]` or `.*`
    Every,
    /// `[?(@.type=="Ready")]`
    Where(Vec<Step>, String),
}

impl Cell {
    pub(super) fn new(definition: &Value) -> Self {
        let mut column = Column::new(
            text(definition, &["name"]),
            text(definition, &["type"]),
            text(definition, &["format"]),
        );
        column.priority = definition["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0);
        column.description = text(definition, &["description"]).to_owned();
        Self { column, path: parse(text(definition, &["jsonPath"])) }
    }

    pub(super) fn read(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = follow(&self.path, object).into_iter().find(|value| !value.is_null()) else {
            return Value::Null;
        };
        match (self.column.kind.as_str(), value) {
            ("date", Value::String(time)) => row::since(time, now),
            ("string", Value::String(_)) => value.clone(),
            ("string" | "date", other) => other.to_string().into(),
            ("integer", Value::Number(number)) => number.as_i64().map_or(Value::Null, Value::from),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            _ => Value::Null,
        }
    }
}

/// A path that does not parse yields what did; the definition's validation has refused it already.
fn parse(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        let (step, after) = if let Some(inner) = rest.strip_prefix('[') {
            let Some(end) = closing(inner) else { break };
            (bracket(&inner[..end]), &inner[end + 1..])
        } else {
            let inner = rest.strip_prefix('.').unwrap_or(rest);
            let (name, after) = member(inner);
            (if name == "*" { Some(Step::Every) } else { Some(Step::Member(name)) }, after)
        };
        let Some(step) = step else { break };
        if step != Step::Member(String::new()) {
            steps.push(step);
        }
        rest = after;
    }
    steps
}

/// The member name at the start, with `\.` for a dot inside it.
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return (name, &text[at..]),
            _ => {
                name.push(c);
                escaped = false;
            }
        }
    }
    (name, "")
}

/// Where the bracket that was opened before `text` closes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"', None) => quote = Some(c),
            ('[', None) => depth += 1,
            (']', None) if depth == 0 => return Some(at),
            (']', None) => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if inner == "*" {
        return Some(Step::Every);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (left, right) = condition.split_once("==")?;
        return Some(Step::Where(parse(left.trim().strip_prefix('@')?), unquote(right.trim()).to_owned()));
    }
    if let Ok(index) = inner.parse() {
        return Some(Step::Index(index));
    }
    Some(Step::Member(unquote(inner).to_owned()))
}

fn unquote(text: &str) -> &str {
    text.trim_matches(|c| c == '\'' || c == '"')
}

fn follow<'a>(path: &[Step], value: &'a Value) -> Vec<&'a Value> {
    path.iter()
        .fold(vec![value], |values, step| values.into_iter().flat_map(|value| take(step, value)).collect())
}

fn take<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Member(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let list = value.as_array();
            let length = list.map_or(0, |list| i64::try_from(list.len()).unwrap_or(0));
            let at = usize::try_from(if *index < 0 { index + length } else { *index });
            at.ok().and_then(|at| list?.get(at)).into_iter().collect()
        }
        Step::Every => match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(members) => members.values().collect(),
            _ => vec![],
        },
        Step::Where(path, wanted) => {
            let matches = |item: &&Value| {
                follow(path, item).into_iter().any(|found| match found {
                    Value::String(text) => text == wanted,
                    other => other.to_string().as_str() == wanted.as_str(),
                })
            };
            value.as_array().into_iter().flatten().filter(matches).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(path: &str, object: &Value) -> Vec<Value> {
        follow(&parse(path), object).into_iter().cloned().collect()
    }

    #[test]
    fn follows_members_indexes_and_conditions() {
        let object = json!({
            "spec": {"l": [{"x": "p"}, {"x": "q"}], "a.b": 1},
            "status": {"conditions": [{"type": "Other", "status": "1"}, {"type": "Ready", "status": "True"}]},
        });
        assert_eq!(read(".spec.l[*].x", &object), [json!("p"), json!("q")]);
        assert_eq!(read(".spec.l[-1].x", &object), [json!("q")]);
        assert_eq!(read(r".spec.a\.b", &object), [json!(1)]);
        assert_eq!(read(".spec['a.b']", &object), [json!(1)]);
        assert_eq!(read(".status.conditions[?(@.type==\"Ready\")].status", &object), [json!("True")]);
        assert!(read(".spec.nothing.here", &object).is_empty());
    }
}
