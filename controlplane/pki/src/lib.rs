//! Keys and certificates of a cluster: its authorities, what they sign, and the files they live in.
//!
//! * [`ClusterPki`]: the directory of a control plane: cluster CA, front-proxy CA, service-account key. Created
//!   on first start, loaded after that; keys are readable by their owner only.
//! * [`Authority`]: issues certificates of its own keys ([`Authority::issue`]) and signs requests
//!   ([`Authority::sign`]); what a certificate may be used for is the signer's decision, never the request's.
//! * [`CertificateRequest`]: a PKCS #10 request, its signature verified.
//! * [`ServiceAccountKey`]: the ES256 key of service-account tokens and its JWKS view.
//! * [`Kubeconfig`]: a kubeconfig file.

mod authority;
mod cluster;
mod error;
mod files;
mod kubeconfig;
mod profile;
mod request;
mod service_account;

pub use authority::{Authority, Identity};
pub use cluster::ClusterPki;
pub use error::PkiError;
pub use files::write_private;
pub use kubeconfig::{Credential, Kubeconfig};
pub use profile::{Profile, SigningPolicy, Subject, Usage};
pub use request::CertificateRequest;
pub use service_account::ServiceAccountKey;
