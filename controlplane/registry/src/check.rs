//! The checks that many resources share: numbers, names, ports, enums, selectors, quantities.

use serde_json::Value;
use skep_api::Quantity;

use crate::error::Errors;
use crate::field::{at, items, members, text};
use crate::metadata::format;
use crate::path::Path;

pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const PORT: &str = "must be between 1 and 65535, inclusive";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character";

/// The number must not be negative.
pub(crate) fn non_negative(object: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(number) = object.get(name).and_then(Value::as_i64).filter(|n| *n < 0) {
        errors.invalid(&path.field(name), number, NOT_NEGATIVE);
    }
}

/// Several numbers of one object must not be negative.
pub(crate) fn all_non_negative(object: &Value, names: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for name in names {
        non_negative(object, name, path, errors);
    }
}

/// The text must be there.
pub(crate) fn required(object: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) -> bool {
    let there = !text(object, &[name]).is_empty();
    if !there {
        errors.required(&path.field(name), "");
    }
    there
}

/// The text, when it is there, must be one of the supported ones.
pub(crate) fn one_of(object: &Value, name: &str, supported: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let value = text(object, &[name]);
    if !value.is_empty() && !supported.contains(&value) {
        errors.not_supported(&path.field(name), value, supported);
    }
}

/// The text must be there and one of the supported ones.
pub(crate) fn required_one_of(
    object: &Value,
    name: &str,
    supported: &[&str],
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if required(object, name, path, errors) {
        one_of(object, name, supported, path, errors);
    }
}

/// A DNS label.
pub(crate) fn dns_label(value: &str, path: &Path<'_>, errors: &mut Errors) {
    if !format::is_dns_label(value) {
        errors.invalid(path, value, LABEL);
    }
}

/// A DNS subdomain.
pub(crate) fn subdomain(value: &str, path: &Path<'_>, errors: &mut Errors) {
    if !format::is_dns_subdomain(value) {
        errors.invalid(path, value, SUBDOMAIN);
    }
}

/// A name that may have a DNS prefix.
pub(crate) fn qualified_name(value: &str, path: &Path<'_>, errors: &mut Errors) {
    for problem in format::qualified_name_problems(value) {
        errors.invalid(path, value, problem);
    }
}

/// A port's name.
pub(crate) fn port_name(value: &str, path: &Path<'_>, errors: &mut Errors) {
    for problem in format::port_name_problems(value) {
        errors.invalid(path, value, problem);
    }
}

/// A port number.
pub(crate) fn port_number(value: i64, path: &Path<'_>, errors: &mut Errors) {
    if !(1..=65535).contains(&value) {
        errors.invalid(path, value, PORT);
    }
}

/// A port number or name.
pub(crate) fn port_or_name(value: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Some(Value::String(name)) => port_name(name, path, errors),
        Some(Value::Number(number)) => port_number(number.as_i64().unwrap_or(0), path, errors),
        _ => port_number(0, path, errors),
    }
}

/// Whether the value changed, and if so that it must not.
pub(crate) fn immutable(new: &Value, old: &Value, names: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for name in names {
        let (now, before) = (at(new, &[name]), at(old, &[name]));
        if now != before {
            errors.invalid(&path.field(name), now.cloned().unwrap_or_default(), "field is immutable");
        }
    }
}

/// A LabelSelector object.
pub(crate) fn selector(selector: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    let Some(selector) = selector.filter(|s| !s.is_null()) else { return };
    crate::metadata::labels(selector.get("matchLabels"), &path.field("matchLabels"), errors);
    let list = path.field("matchExpressions");
    for (i, expression) in items(selector, &["matchExpressions"]).iter().enumerate() {
        let path = list.index(i);
        let values = items(expression, &["values"]);
        match text(expression, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                errors
                    .required(&path.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&path.field("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
        }
        qualified_name(text(expression, &["key"]), &path.field("key"), errors);
        let place = path.field("values");
        for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
            if let Some(problem) = format::label_value_problem(value) {
                errors.invalid(&place.index(i), value, problem);
            }
        }
    }
}

/// Whether a LabelSelector object names nothing.
pub(crate) fn selects_all(selector: &Value) -> bool {
    members(selector, &["matchLabels"]).next().is_none() && items(selector, &["matchExpressions"]).is_empty()
}

/// The quantity of a value (decoding has checked it).
pub(crate) fn quantity(value: &Value) -> Quantity {
    value.as_str().and_then(|s| s.parse().ok()).unwrap_or(Quantity::ZERO)
}

/// A quantity that must not be negative.
pub(crate) fn quantity_non_negative(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if quantity(value).signum() < 0 {
        errors.invalid(path, value.clone(), NOT_NEGATIVE);
    }
}

/// A path that stays below where it begins.
pub(crate) fn descending_path(value: &str, path: &Path<'_>, errors: &mut Errors) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    no_backsteps(value, path, errors);
}

/// A path without `..`.
pub(crate) fn no_backsteps(value: &str, path: &Path<'_>, errors: &mut Errors) {
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}

/// Counts that may be given as a share: a number from 0 on, or a percentage.
pub(crate) fn count_or_percent(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::String(s) if skep_api::int_or_string::percent(s).is_none() => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%'";
            errors.invalid(path, s.as_str(), detail);
        }
        Value::Number(n) if n.as_i64().is_some_and(|n| n < 0) => {
            errors.invalid(path, value.clone(), NOT_NEGATIVE)
        }
        _ => {}
    }
}

/// A share of more than everything.
pub(crate) fn at_most_all(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let share = value.as_str().and_then(skep_api::int_or_string::percent);
    if share.is_some_and(|p| p > 100) {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// The number, or the percentage, is zero.
pub(crate) fn is_zero(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Number(n)) => n.as_i64() == Some(0),
        Some(Value::String(s)) => skep_api::int_or_string::percent(s) == Some(0),
        _ => false,
    }
}
