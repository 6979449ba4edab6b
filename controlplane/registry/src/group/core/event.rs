//! Events, of the core group and of events.k8s.io: one storage, two names for most fields.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::time;

use crate::check;
use crate::error::Errors;
use crate::field::{at, int, object, text};
use crate::metadata::NameRule;
use crate::path::Path;
use crate::row;
use crate::strategy::{FieldSink, Strategy};

const SELECTABLE: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const NEW_SELECTABLE: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

pub(crate) static STRATEGY: Strategy = Strategy {
    name: NameRule::Any,
    selectable: SELECTABLE,
    default,
    validate: |event, errors| {
        if at(event, &["eventTime"]).is_some() {
            validate_new(&|name| event.get(name), "reportingComponent", errors);
        } else {
            namespace(event, &event["involvedObject"], errors);
        }
    },
    fields,
    row: cells,
    ..Strategy::BASE
};

/// Events of events.k8s.io.
pub(crate) static NEW_GROUP: Strategy = Strategy {
    selectable: NEW_SELECTABLE,
    default: default_new,
    validate: |event, errors| {
        validate_new(&|name| event.get(new_name(name)), "reportingController", errors);
        kind_of_type(event, errors);
        if int(event, &["deprecatedCount"]).is_some_and(|c| c != 0) {
            errors.invalid(&Path::new("count"), event["deprecatedCount"].clone(), "needs to be unset");
        }
    },
    validate_change: |new, old, errors| {
        for name in ["note", "reason", "regarding", "action", "reportingController", "eventTime", "type"] {
            if new.get(name) != old.get(name) {
                let shown = new.get(name).cloned().unwrap_or_default();
                errors.invalid(&Path::new(core_name(name)), shown, "field is immutable");
            }
        }
    },
    fields: |event, sink| {
        let regarding = |name: &str| text(event, &["regarding", name]).to_owned();
        for name in NEW_SELECTABLE {
            let value = match name.strip_prefix("regarding.") {
                Some(inner) => regarding(inner),
                None => text(event, &[name]).to_owned(),
            };
            sink(name, value);
        }
    },
    row: |event, now| {
        let mut core = event.clone();
        core["apiVersion"] = "events.k8s.io/v1".into();
        let core = crate::conversion::Conversion::Event.to_storage(&core, "v1").unwrap_or(core);
        cells(&core, now)
    },
    ..STRATEGY
};

fn core_name(name: &str) -> &str {
    match name {
        "note" => "message",
        "regarding" => "involvedObject",
        "reportingController" => "reportingComponent",
        other => other,
    }
}

fn new_name(name: &str) -> &str {
    match name {
        "message" => "note",
        "involvedObject" => "regarding",
        "reportingComponent" => "reportingController",
        other => other,
    }
}

fn default(event: &mut Value) {
    object(event, "involvedObject");
    object(event, "source");
    for name in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        if event.get(name).is_none() {
            event[name] = Value::Null;
        }
    }
}

fn default_new(event: &mut Value) {
    object(event, "regarding");
    object(event, "deprecatedSource");
    for name in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"] {
        if event.get(name).is_none() {
            event[name] = Value::Null;
        }
    }
}

fn namespace(event: &Value, involved: &Value, errors: &mut Errors) {
    let path = Path::new("involvedObject");
    let (ours, theirs) = (text(event, &["metadata", "namespace"]), text(involved, &["namespace"]));
    let fits = if theirs.is_empty() { ours == "default" } else { ours == theirs };
    if !fits {
        errors.invalid(&path.field("namespace"), theirs, "does not match event.namespace");
    }
}

/// The rules of newer events, under the core field names.
fn validate_new<'a>(field: &dyn Fn(&str) -> Option<&'a Value>, component_field: &str, errors: &mut Errors) {
    let word = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default();
    if field("eventTime").is_none_or(Value::is_null) {
        errors.required(&Path::new("eventTime"), "");
    }
    let component = word("reportingComponent");
    if component.is_empty() {
        errors.required(&Path::new(component_field), "");
    }
    check::qualified_name(component, &Path::new(component_field), errors);
    for (name, limit) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        if word(name).is_empty() {
            errors.required(&Path::new(name), "");
        } else if word(name).len() > limit {
            errors.invalid(&Path::new(name), "", format!("can have at most {limit} characters"));
        }
    }
    if word("message").len() > 1024 {
        errors.invalid(&Path::new("message"), "", "can have at most 1024 characters");
    }
    if let Some(count) = field("series").and_then(|s| int(s, &["count"])).filter(|c| *c < 2) {
        errors.invalid(&Path::new("series").field("count"), count, "should be at least 2");
    }
}

fn kind_of_type(event: &Value, errors: &mut Errors) {
    let kind = text(event, &["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&Path::new("type"), kind, "has invalid value: must be Normal or Warning");
    }
}

fn fields(event: &Value, sink: FieldSink<'_>) {
    for name in SELECTABLE {
        let value = match name.strip_prefix("involvedObject.") {
            Some(inner) => text(event, &["involvedObject", inner]),
            None if *name == "source" => source_component(event),
            None => text(event, &[name]),
        };
        sink(name, value.to_owned());
    }
}

fn source_component(event: &Value) -> &str {
    let component = text(event, &["source", "component"]);
    if component.is_empty() { text(event, &["reportingComponent"]) } else { component }
}

fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let ago = |path: &[&str]| time::parse(text(event, path)).map(|at| time::age(at, now));
    let unknown = || "<unknown>".to_owned();
    let first = ago(&["firstTimestamp"]).or_else(|| ago(&["eventTime"])).unwrap_or_else(unknown);
    let mut last = ago(&["lastTimestamp"]).unwrap_or_else(|| first.clone());
    let mut count = int(event, &["count"]).unwrap_or(0);
    if let Some(series) = at(event, &["series"]) {
        last = ago(&["series", "lastObservedTime"]).unwrap_or_else(unknown);
        count = int(series, &["count"]).unwrap_or(0);
    } else if count == 0 {
        count = 1;
    }
    let involved = &event["involvedObject"];
    let target = format!("{}/{}", text(involved, &["kind"]).to_lowercase(), text(involved, &["name"]));
    vec![
        last.into(),
        text(event, &["type"]).into(),
        text(event, &["reason"]).into(),
        target.into(),
        text(involved, &["fieldPath"]).into(),
        source(event).into(),
        text(event, &["message"]).trim().into(),
        first.into(),
        json!(count),
        row::name(event),
    ]
}

fn source(event: &Value) -> String {
    let host = text(event, &["source", "host"]);
    let instance = if host.is_empty() { text(event, &["reportingInstance"]) } else { host };
    let parts: Vec<&str> =
        [source_component(event), instance].into_iter().filter(|s| !s.is_empty()).collect();
    parts.join(", ")
}
