//! Secrets.

use serde_json::Value;

use super::config_map::{key_of, validate_immutable};
use crate::base64;
use crate::error::Errors;
use crate::field::{at, fill_empty, members, object, remove, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    selectable: &["type"],
    default,
    validate,
    validate_change,
    warnings,
    fields: |secret, sink| sink("type", text(secret, &["type"]).to_owned()),
    row: |secret, now| {
        let count = members(secret, &["data"]).count();
        vec![row::name(secret), text(secret, &["type"]).into(), count.into(), row::age(secret, now)]
    },
    ..Strategy::BASE
};

fn default(secret: &mut Value) {
    if let Some(Value::Object(plain)) = remove(secret, "stringData") {
        for (key, value) in plain {
            let encoded = base64::encode(value.as_str().unwrap_or_default().as_bytes());
            object(secret, "data")[&key] = encoded.into();
        }
    }
    fill_empty(secret, "type", "Opaque");
}

fn validate(secret: &Value, errors: &mut Errors) {
    let data = Path::new("data");
    for (key, _) in members(secret, &["data"]) {
        key_of(key, &data, errors);
    }
    let value = |key: &str| at(secret, &["data", key]).and_then(Value::as_str);
    match text(secret, &["type"]) {
        "kubernetes.io/service-account-token" => {
            let annotations = Path::new("metadata");
            let annotations = annotations.field("annotations");
            let name = "kubernetes.io/service-account.name";
            if text(secret, &["metadata", "annotations", name]).is_empty() {
                errors.required(&annotations.key(name), "");
            }
        }
        "kubernetes.io/dockercfg" => docker(value(".dockercfg"), ".dockercfg", &data, errors),
        "kubernetes.io/dockerconfigjson" => {
            docker(value(".dockerconfigjson"), ".dockerconfigjson", &data, errors)
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            errors.required(&data.key("username"), "");
            errors.required(&data.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(str::is_empty) => {
            errors.required(&data.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if value(key).is_none() {
                    errors.required(&data.key(key), "");
                }
            }
        }
        _ => {}
    }
}

fn docker(value: Option<&str>, key: &str, data: &Path<'_>, errors: &mut Errors) {
    let Some(value) = value else { return errors.required(&data.key(key), "") };
    let decoded = base64::decode(value);
    if serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded).is_err() {
        errors.invalid(
            &data.key(key),
            "<secret contents redacted>",
            "must be a JSON object of registry credentials",
        );
    }
}

fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    crate::check::immutable(new, old, &["type"], &Path::ROOT, errors);
    validate_immutable(new, old, &["data"], errors);
}

fn warnings(secret: &Value, out: &mut Vec<String>) {
    let certificate = text(secret, &["data", "tls.crt"]);
    if text(secret, &["type"]) == "kubernetes.io/tls"
        && at(secret, &["data", "tls.crt"]).is_some()
        && !String::from_utf8_lossy(&base64::decode(certificate)).contains("-----BEGIN")
    {
        out.push("tls: failed to find any PEM data in certificate input".to_owned());
    }
}
