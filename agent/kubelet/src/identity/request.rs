//! One certificate signing request: made, sent, waited for.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
};
use kube::{
    Client,
    api::{Api, ObjectMeta, PostParams},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::keypair::{Keypair, KeypairError};
use crate::session::{CallError, bounded};

/// A request that led nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The key or request cannot be made.
    #[error("cannot make a certificate request: {0}")]
    Make(#[from] rcgen::Error),
    /// The API refused or did not answer.
    #[error("certificate request: {0}")]
    Call(#[from] CallError),
    /// An approver said no.
    #[error("the certificate request was denied: {0}")]
    Denied(String),
    /// Nobody approved or signed it.
    #[error("nobody signed the certificate request in {} s; approve it, or look at the controllers", PATIENCE.as_secs())]
    Unsigned,
    /// The signed certificate is unusable.
    #[error(transparent)]
    Keypair(#[from] KeypairError),
}

const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(300);

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To speak to the API.
    Client,
    /// To serve the kubelet API.
    Serving,
}

impl Purpose {
    fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    fn usages(self) -> [&'static str; 2] {
        match self {
            Self::Client => ["digital signature", "client auth"],
            Self::Serving => ["digital signature", "server auth"],
        }
    }
}

/// The node a certificate names.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The node's name.
    pub(crate) node: String,
    /// Its addresses.
    pub(crate) ips: Vec<IpAddr>,
}

fn params(subject: &Subject, purpose: Purpose) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "system:nodes");
    name.push(DnType::CommonName, format!("system:node:{}", subject.node));
    params.distinguished_name = name;
    if purpose == Purpose::Serving {
        params.subject_alt_names = vec![SanType::DnsName(subject.node.as_str().try_into()?)];
        params.subject_alt_names.extend(subject.ips.iter().copied().map(SanType::IpAddress));
    }
    Ok(params)
}

/// Asks for a certificate and waits until it is signed.
pub(crate) async fn obtain(
    client: Client,
    subject: &Subject,
    purpose: Purpose,
) -> Result<Keypair, RequestError> {
    let key = KeyPair::generate()?;
    let request = params(subject, purpose)?.serialize_request(&key)?.pem()?;
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let wanted = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("node-csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: purpose.signer().to_owned(),
            usages: Some(purpose.usages().map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let made = bounded(api.create(&PostParams::default(), &wanted)).await?;
    let name = made.metadata.name.unwrap_or_default();
    tracing::info!(csr = name, signer = purpose.signer(), "certificate requested");
    let cert = signed(&api, &name).await?;
    Ok(Keypair::new(cert, key.serialize_pem())?)
}

async fn signed(api: &Api<CertificateSigningRequest>, name: &str) -> Result<String, RequestError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let status = bounded(api.get(name)).await?.status.unwrap_or_default();
        if let Some(cert) = status.certificate.filter(|c| !c.0.is_empty()) {
            return Ok(String::from_utf8_lossy(&cert.0).into_owned());
        }
        let refused = status.conditions.iter().flatten().find(|c| c.type_ == "Denied" || c.type_ == "Failed");
        if let Some(condition) = refused {
            return Err(RequestError::Denied(condition.message.clone().unwrap_or_default()));
        }
        tokio::time::sleep(POLL).await;
    }
    Err(RequestError::Unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_node_and_its_addresses() {
        let subject = Subject { node: "node-1".into(), ips: vec![IpAddr::from([10, 0, 0, 1])] };
        let key = KeyPair::generate().unwrap();
        let request = params(&subject, Purpose::Serving).unwrap().serialize_request(&key).unwrap();
        let parsed = rcgen::CertificateSigningRequestParams::from_der(request.der()).unwrap();
        assert_eq!(parsed.params.subject_alt_names.len(), 2);
        let cn = parsed.params.distinguished_name.get(&DnType::CommonName).cloned();
        assert_eq!(cn, Some(rcgen::DnValue::Utf8String("system:node:node-1".into())));
    }
}
