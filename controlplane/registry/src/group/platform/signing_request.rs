//! CertificateSigningRequests. Whether the request itself parses is for the API server, which has the means.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::time;

use crate::base64;
use crate::error::Errors;
use crate::field::{copy, int, items, set, text};
use crate::metadata::{NameRule, format};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub(crate) static STRATEGY: Strategy = Strategy {
    name: NameRule::PathSegment,
    status: true,
    selectable: &["spec.signerName"],
    prepare_create: |request| request["status"] = json!({}),
    // The spec says who asked: nothing of it ever changes.
    prepare_update: |new, old| copy("spec", old, new),
    prepare_status: |new, old| {
        let conditions = old["status"].get("conditions").cloned();
        let decided = |c: &Value| matches!(text(c, &["type"]), "Approved" | "Denied");
        let mut all: Vec<Value> =
            conditions.iter().flat_map(|c| items(c, &[])).filter(|c| decided(c)).cloned().collect();
        all.extend(items(new, &["status", "conditions"]).iter().filter(|c| !decided(c)).cloned());
        if !all.is_empty() {
            new["status"]["conditions"] = all.into();
        }
    },
    validate,
    fields: |request, sink| sink("spec.signerName", text(request, &["spec", "signerName"]).to_owned()),
    row: cells,
    ..Strategy::BASE
};

fn validate(request: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &request["spec"];
    let bytes = base64::decode(text(spec, &["request"]));
    let pem = String::from_utf8_lossy(&bytes);
    let pem = pem.trim();
    if !pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        || !pem.ends_with("-----END CERTIFICATE REQUEST-----")
    {
        errors.invalid(
            &path.field("request"),
            text(spec, &["request"]),
            "must be a PEM block of type CERTIFICATE REQUEST",
        );
    }
    let list = path.field("usages");
    let usages = items(spec, &["usages"]);
    if usages.is_empty() {
        errors.required(&list, "usages must be provided");
    }
    for (i, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
        if !USAGES.contains(&usage) {
            errors.not_supported(&list.index(i), usage, USAGES);
        } else if usages[..i].iter().any(|u| u == usage) {
            errors.duplicate(&list.index(i), usage);
        }
    }
    let signer = text(spec, &["signerName"]);
    let place = path.field("signerName");
    match signer.split_once('/') {
        _ if signer.is_empty() => errors.required(&place, ""),
        Some((domain, name))
            if format::is_dns_subdomain(domain) && domain.contains('.') && !name.is_empty() => {}
        _ => errors.invalid(
            &place,
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
    if let Some(seconds) = int(spec, &["expirationSeconds"]).filter(|s| *s < 600) {
        errors.invalid(
            &path.field("expirationSeconds"),
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}

fn cells(request: &Value, now: Timestamp) -> Vec<Value> {
    let duration =
        int(request, &["spec", "expirationSeconds"]).map_or_else(|| "<none>".to_owned(), time::duration);
    vec![
        row::name(request),
        row::age(request, now),
        row::or_none(text(request, &["spec", "signerName"])),
        text(request, &["spec", "username"]).into(),
        duration.into(),
        condition(request).into(),
    ]
}

fn condition(request: &Value) -> String {
    let has =
        |kind: &str| items(request, &["status", "conditions"]).iter().any(|c| text(c, &["type"]) == kind);
    let mut words = Vec::new();
    if has("Denied") {
        words.push("Denied");
    } else if has("Approved") {
        words.push("Approved");
    } else {
        words.push("Pending");
    }
    if has("Failed") {
        words.push("Failed");
    }
    if set(request, &["status", "certificate"]) {
        words.push("Issued");
    }
    words.join(",")
}
