//! TLS of the kubelet API: a serving certificate that can be replaced, client certificates of the cluster CA,
//! and who among their holders is served.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use crate::identity::keypair::Keypair;

/// TLS that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A PEM file holds something else.
    #[error("PEM: {0}")]
    Pem(String),
    /// The certificate or key is unusable.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The cluster CA is unusable.
    #[error("cluster CA: {0}")]
    Ca(#[from] rustls::server::VerifierBuilderError),
    /// No temporary certificate could be made.
    #[error("temporary certificate: {0}")]
    Temporary(#[from] rcgen::Error),
}

/// The certificate in use.
#[derive(Debug)]
pub(crate) struct ServingCertificate {
    key: RwLock<Arc<CertifiedKey>>,
}

impl ServingCertificate {
    /// Starts with a self-signed one: the first signed one comes by request.
    pub(crate) fn temporary(node: &str) -> Result<Arc<Self>, TlsError> {
        let key = rcgen::KeyPair::generate()?;
        let cert = rcgen::CertificateParams::new(vec![node.to_owned()])?.self_signed(&key)?;
        let certified = certified(&cert.pem(), &key.serialize_pem())?;
        Ok(Arc::new(Self { key: RwLock::new(certified) }))
    }

    /// Serves with `pair` from the next connection on.
    pub(crate) fn install(&self, pair: &Keypair) -> Result<(), TlsError> {
        *self.key.write() = certified(&pair.cert, &pair.key)?;
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.read().clone())
    }
}

fn certified(cert: &str, key: &str) -> Result<Arc<CertifiedKey>, TlsError> {
    let pem = |error: &dyn std::fmt::Display| TlsError::Pem(error.to_string());
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| pem(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| pem(&e))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
}

/// The server's configuration. HTTP/1.1 only: upgrades need it.
pub(crate) fn config(serving: Arc<ServingCertificate>, ca: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(cert.map_err(|error| TlsError::Pem(error.to_string()))?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The API server's identity towards kubelets.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
/// The group that may do anything.
const MASTERS: &str = "system:masters";

/// Whether the holder of a verified client certificate is served.
pub(crate) fn is_served(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let subject = parsed.subject();
    let names = subject.iter_common_name().filter_map(|n| n.as_str().ok()).any(|n| n == API_SERVER);
    names || subject.iter_organization().filter_map(|o| o.as_str().ok()).any(|o| o == MASTERS)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(kind: DnType, value: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(kind, value);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn only_the_api_server_and_masters_are_served() {
        assert!(is_served(&certificate(DnType::CommonName, API_SERVER)));
        assert!(is_served(&certificate(DnType::OrganizationName, MASTERS)));
        assert!(!is_served(&certificate(DnType::CommonName, "system:node:n")));
        assert!(!is_served(&certificate(DnType::OrganizationName, "system:nodes")));
    }

    #[test]
    fn serves_before_its_certificate_is_signed() {
        assert!(ServingCertificate::temporary("n").is_ok());
    }
}
