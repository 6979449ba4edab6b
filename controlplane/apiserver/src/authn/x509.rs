//! The identity in a verified client certificate: common name is the user, organisations are the groups.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::user::UserInfo;

/// Leaf certificate (DER) of a connection whose chain TLS has verified against the client CA.
#[derive(Debug, Clone)]
pub struct PeerCertificate(pub std::sync::Arc<[u8]>);

/// Reads user and groups; `None` when the certificate names nobody.
pub fn identify(certificate: &PeerCertificate) -> Option<UserInfo> {
    let (_, parsed) = X509Certificate::from_der(&certificate.0).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned));
    Some(UserInfo::new(name, groups))
}
