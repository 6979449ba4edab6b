//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: a request carries who made it, and
//! approving or signing needs the right to that signer.

use serde_json::Value;

use crate::admission::{Operation, Request};
use crate::authz::{self, Ask};
use crate::state::State;
use crate::status::{ApiError, ApiResult};
use crate::user::MASTERS;

const GROUP: &str = "certificates.k8s.io";

/// Writes the requester into a new request; updates keep it.
pub fn fill_requester(request: &Request<'_>, object: &mut Value, old: Option<&Value>) {
    if !request.target.is(GROUP, "certificatesigningrequests") || request.target.subresource.is_some() {
        return;
    }
    if let (Operation::Create, None) = (request.operation, old) {
        let user = request.user.to_value();
        for field in ["username", "uid", "groups", "extra"] {
            match user.get(field) {
                Some(value) => object["spec"][field] = value.clone(),
                None => {
                    if let Some(spec) = object["spec"].as_object_mut() {
                        spec.shift_remove(field);
                    }
                }
            }
        }
    }
}

/// Checks the right to the signer.
pub fn validate(state: &State, request: &Request<'_>, object: &Value, old: Option<&Value>) -> ApiResult<()> {
    if !request.target.is(GROUP, "certificatesigningrequests") {
        return Ok(());
    }
    let signer = object["spec"]["signerName"].as_str().unwrap_or_default();
    match (request.operation, request.target.subresource.as_deref()) {
        (Operation::Create, None) => check_subject(request, object, signer),
        (Operation::Update, Some("approval")) => check_signer(state, request, signer, "approve"),
        (Operation::Update, Some("status")) => {
            let certificate = |o: &Value| o["status"]["certificate"].clone();
            let signs = old.is_none_or(|old| certificate(old) != certificate(object));
            if signs { check_signer(state, request, signer, "sign") } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

fn check_signer(state: &State, request: &Request<'_>, signer: &str, verb: &str) -> ApiResult<()> {
    let domain = signer.split('/').next().unwrap_or_default();
    let wildcard = format!("{domain}/*");
    let allowed = [signer, wildcard.as_str()].into_iter().any(|name| {
        let ask = Ask {
            verb,
            group: GROUP,
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            path: None,
            field_selector: None,
        };
        authz::authorize(state, request.user, &ask).is_ok()
    });
    if allowed {
        return Ok(());
    }
    Err(request
        .target
        .forbidden(&format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// No client certificate may make its holder a system:masters.
fn check_subject(request: &Request<'_>, object: &Value, signer: &str) -> ApiResult<()> {
    if signer != "kubernetes.io/kube-apiserver-client" {
        return Ok(());
    }
    let pem = object["spec"]["request"].as_str().unwrap_or_default();
    if organisations(pem).iter().any(|o| o == MASTERS) {
        let why =
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
        let name = crate::meta::text(object, "name");
        return Err(ApiError::forbidden(GROUP, &request.target.resource.plural, name, why));
    }
    Ok(())
}

fn organisations(request: &str) -> Vec<String> {
    use base64::Engine;
    use x509_parser::prelude::FromDer;
    let decoded = base64::engine::general_purpose::STANDARD.decode(request).unwrap_or_default();
    let Ok(block) = pem::parse(decoded) else { return Vec::new() };
    let Ok((_, parsed)) =
        x509_parser::certification_request::X509CertificationRequest::from_der(block.contents())
    else {
        return Vec::new();
    };
    let subject = &parsed.certification_request_info.subject;
    subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect()
}
