//! What the composition root decides for the API server. Defaults are a lab cluster's; keys and certificates come as
//! PEM, so that where they live is nobody's business here.

use std::{net::IpAddr, ops::RangeInclusive};

/// Everything an [`ApiServer`](crate::ApiServer) is made from.
#[derive(Clone)]
pub struct ApiServerConfig {
    /// Address under which nodes and the `kubernetes` Service reach this server.
    pub advertise_address: IpAddr,
    /// Port under which they do.
    pub advertise_port: u16,
    /// Service range, for example `10.96.0.0/16`, or one a family, the primary one first:
    /// `10.96.0.0/16,fd00:96::/112`. The first address is the `kubernetes` Service.
    pub service_cidr: String,
    /// Ports for NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Issuer and default audience of service-account tokens.
    pub issuer: String,
    /// Private key (PKCS#8 PEM, ECDSA P-256 or RSA) that signs service-account tokens.
    pub service_account_key_pem: String,
    /// TLS of the listeners; `None` only where nothing but the in-process client is used.
    pub tls: Option<TlsConfig>,
    /// Identity shown to kubelets and the CA that signed theirs; without it logs, exec and proxies answer 503.
    pub kubelet: Option<KubeletClientConfig>,
    /// Largest request body in bytes.
    pub max_body: usize,
}

/// Server certificate and the CA of client certificates.
#[derive(Clone)]
pub struct TlsConfig {
    /// Certificate chain, leaf first.
    pub cert_pem: String,
    /// Private key.
    pub key_pem: String,
    /// CA bundle that client certificates are verified with.
    pub client_ca_pem: String,
}

/// How the API server reaches kubelets.
#[derive(Clone)]
pub struct KubeletClientConfig {
    /// Client certificate (CN `kube-apiserver-kubelet-client`).
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// CA bundle that kubelet serving certificates are verified with.
    pub ca_pem: String,
}

impl ApiServerConfig {
    /// A lab cluster's settings and a signing key; TLS and kubelet identity are added by the caller.
    pub fn new(advertise_address: IpAddr, service_account_key_pem: impl Into<String>) -> Self {
        Self {
            advertise_address,
            advertise_port: 6443,
            service_cidr: "10.96.0.0/16".to_owned(),
            node_ports: 30000..=32767,
            issuer: "https://kubernetes.default.svc".to_owned(),
            service_account_key_pem: service_account_key_pem.into(),
            tls: None,
            kubelet: None,
            max_body: 3 * 1024 * 1024,
        }
    }
}
