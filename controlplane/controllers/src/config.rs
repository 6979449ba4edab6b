//! What the controllers need from their process.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use skep_model::IpCidr;

/// Settings and handles for [`run`](crate::run).
#[derive(Clone)]
pub struct ControllersConfig {
    /// Client acting as `system:kube-controller-manager`.
    pub client: Client,
    /// Where the nodes' pod ranges are cut from.
    pub cluster_cidr: IpCidr,
    /// Prefix length of one node's pod range.
    pub node_mask: u8,
    /// Certificate of the cluster CA, PEM; published in every namespace as `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// Signs approved certificate requests.
    pub signer: Arc<dyn CertificateSigner>,
    /// A node whose lease is older than this is unreachable. 40 s is what users expect.
    pub node_grace: Duration,
}

/// The cluster CA as the certificate controllers see it.
pub trait CertificateSigner: Send + Sync + 'static {
    /// Reads what a PKCS#10 request (PEM) asks for, after checking its own signature.
    fn inspect(&self, request_pem: &str) -> Result<RequestedIdentity, SignerError>;

    /// Signs a request (PEM) and returns the certificate chain (PEM).
    fn sign(&self, request_pem: &str, grant: &SignGrant) -> Result<String, SignerError>;
}

/// Subject and names of a certificate request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestedIdentity {
    /// Subject common name.
    pub common_name: String,
    /// Subject organizations, in order.
    pub organizations: Vec<String>,
    /// DNS subject alternative names.
    pub dns_names: Vec<String>,
    /// IP subject alternative names.
    pub ip_addresses: Vec<IpAddr>,
    /// Whether there are names of any other type (email, URI).
    pub other_names: bool,
}

/// What a signature allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignGrant {
    /// Extended key usage `clientAuth`.
    pub client: bool,
    /// Extended key usage `serverAuth`.
    pub server: bool,
    /// How long the certificate is valid.
    pub validity: Duration,
}

/// Why a request was not read or signed.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The request is not a valid PKCS#10 request.
    #[error("certificate request is malformed: {0}")]
    Malformed(String),
    /// The CA could not sign.
    #[error("cluster CA cannot sign: {0}")]
    Signing(String),
}
