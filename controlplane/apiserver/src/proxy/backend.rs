//! Connections to backends: TCP, and TLS with the API server's own identity for kubelets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::KubeletClientConfig;
use crate::listen::{self, ListenError};
use crate::proxy::place::{Place, Scheme};

const CONNECT: Duration = Duration::from_secs(10);

/// Why a backend cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The address does not answer.
    #[error("{address} does not answer: {source}")]
    Connect {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It did not answer in time.
    #[error("{0} did not answer in time")]
    Timeout(SocketAddr),
    /// No identity for kubelets is configured.
    #[error("no client certificate for kubelets is configured")]
    NoIdentity,
    /// It does not speak HTTP.
    #[error("the backend broke the protocol: {0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be made.
    #[error("the request cannot be passed on: {0}")]
    Request(#[from] http::Error),
}

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// TLS towards kubelets.
pub struct KubeletClient {
    verified: TlsConnector,
}

impl KubeletClient {
    /// Reads identity and CA.
    pub fn new(config: &KubeletClientConfig) -> Result<Self, ListenError> {
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(listen::roots(&config.ca_pem, "the kubelet CA")?)
            .with_client_auth_cert(
                listen::certificates(&config.cert_pem, "the kubelet client certificate")?,
                listen::private_key(&config.key_pem, "the kubelet client key")?,
            )?;
        Ok(Self { verified: TlsConnector::from(Arc::new(client)) })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Connects to a backend.
pub async fn connect(
    kubelets: Option<&KubeletClient>,
    place: &Place,
) -> Result<Box<dyn Stream>, BackendError> {
    let address = place.address;
    match tokio::time::timeout(CONNECT, open(kubelets, place)).await {
        Ok(opened) => opened,
        Err(_) => Err(BackendError::Timeout(address)),
    }
}

async fn open(kubelets: Option<&KubeletClient>, place: &Place) -> Result<Box<dyn Stream>, BackendError> {
    let address = place.address;
    let failed = |source| BackendError::Connect { address, source };
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    // Interactive streams are small writes.
    let _ = stream.set_nodelay(true);
    let name = ServerName::IpAddress(address.ip().into());
    let connector = match place.scheme {
        Scheme::Http => return Ok(Box::new(stream)),
        Scheme::Kubelet => kubelets.ok_or(BackendError::NoIdentity)?.verified.clone(),
        Scheme::HttpsUnverified => unverified().map_err(|error| failed(std::io::Error::other(error)))?,
    };
    let tls = connector.connect(name, stream).await.map_err(failed)?;
    Ok(Box::new(tls))
}

fn unverified() -> Result<TlsConnector, rustls::Error> {
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(client)))
}

/// A pod's own certificate cannot be verified: nobody said who signs it. No identity of ours is shown to it either.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
