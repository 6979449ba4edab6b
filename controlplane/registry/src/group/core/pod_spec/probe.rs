//! Probes and the handlers they share with lifecycle hooks.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, int, items, text};
use crate::path::Path;

const TIMES: &[&str] =
    &["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
const HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];

/// The three probes of a container.
pub(super) fn all(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = at(container, &[name]) else { continue };
        let path = path.field(name);
        handler(probe, HANDLERS, &path, errors);
        check::all_non_negative(probe, TIMES, &path, errors);
        let success = int(probe, &["successThreshold"]).unwrap_or(1);
        let grace = int(probe, &["terminationGracePeriodSeconds"]);
        if name == "readinessProbe" {
            if let Some(grace) = grace {
                errors.invalid(
                    &path.field("terminationGracePeriodSeconds"),
                    grace,
                    "must not be set for readinessProbes",
                );
            }
            continue;
        }
        if let Some(grace) = grace.filter(|g| *g <= 0) {
            errors.invalid(&path.field("terminationGracePeriodSeconds"), grace, "must be greater than 0");
        }
        if success != 1 {
            errors.invalid(&path.field("successThreshold"), success, "must be 1");
        }
    }
}

/// Exactly one of the allowed handlers, well formed.
pub(super) fn handler(handler: &Value, allowed: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = 0;
    for name in allowed {
        let Some(action) = at(handler, &[name]) else { continue };
        let path = path.field(name);
        seen += 1;
        if seen > 1 {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match *name {
            "exec" if items(action, &["command"]).is_empty() => errors.required(&path.field("command"), ""),
            "httpGet" => http_get(action, &path, errors),
            "tcpSocket" | "grpc" => check::port_or_name(action.get("port"), &path.field("port"), errors),
            "sleep" if int(action, &["seconds"]).is_none_or(|s| s < 0) => {
                let seconds = int(action, &["seconds"]).unwrap_or(0);
                errors.invalid(
                    &path,
                    seconds,
                    "must be greater than 0 and less than terminationGracePeriodSeconds",
                );
            }
            _ => {}
        }
    }
    if seen == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(action: &Value, path: &Path<'_>, errors: &mut Errors) {
    check::required(action, "path", path, errors);
    check::port_or_name(action.get("port"), &path.field("port"), errors);
    check::one_of(action, "scheme", &["HTTP", "HTTPS"], path, errors);
    for header in items(action, &["httpHeaders"]) {
        let name = text(header, &["name"]);
        let well_formed = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !well_formed {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-'";
            errors.invalid(&path.field("httpHeaders"), name, detail);
        }
    }
}
