//! The plan's view of a certificate request's body, and of the signature it may get.

use std::net::IpAddr;
use std::time::Duration;

use skep_pki::{CertificateRequest, SigningPolicy, Usage};

/// Subject and names of a certificate request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestedIdentity {
    /// Subject common name.
    pub(crate) common_name: String,
    /// Subject organizations, in order.
    pub(crate) organizations: Vec<String>,
    /// DNS subject alternative names.
    pub(crate) dns_names: Vec<String>,
    /// IP subject alternative names.
    pub(crate) ip_addresses: Vec<IpAddr>,
    /// Whether there are names of any other type (email, URI).
    pub(crate) other_names: bool,
}

impl From<&CertificateRequest> for RequestedIdentity {
    fn from(request: &CertificateRequest) -> Self {
        Self {
            common_name: request.subject.common_name.clone(),
            organizations: request.subject.organizations.clone(),
            dns_names: request.subject.dns_names.clone(),
            ip_addresses: request.subject.ip_addresses.clone(),
            other_names: !request.uris.is_empty() || !request.emails.is_empty(),
        }
    }
}

/// What a signature allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignGrant {
    /// Extended key usage.
    pub(crate) usage: Usage,
    /// How long the certificate is valid.
    pub(crate) validity: Duration,
}

impl From<SignGrant> for SigningPolicy {
    fn from(grant: SignGrant) -> Self {
        Self { usages: vec![grant.usage], lifetime: grant.validity }
    }
}
