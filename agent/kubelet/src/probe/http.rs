//! One HTTP(S) GET for probes and hooks: no redirects followed, certificates of pods not checked.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) code: u16,
    /// The beginning of the body.
    pub(crate) body: String,
}

/// What to ask.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The address to dial.
    pub(crate) host: String,
    /// The port to dial.
    pub(crate) port: u16,
    /// The path with its query.
    pub(crate) path: String,
    /// Whether to use TLS.
    pub(crate) tls: bool,
    /// Headers; `Host` replaces the default.
    pub(crate) headers: Vec<(String, String)>,
}

const BODY_BYTES: usize = 10 * 1024;

/// Asks and reads the answer, or says why not.
pub(crate) async fn get(question: &Question, timeout: Duration) -> Result<Answer, String> {
    match tokio::time::timeout(timeout, exchange(question)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(format!("Get \"{}\": no answer in {} s", url(question), timeout.as_secs())),
    }
}

fn url(question: &Question) -> String {
    let scheme = if question.tls { "https" } else { "http" };
    format!("{scheme}://{}{}", authority(&question.host, question.port), question.path)
}

/// `host:port`, IPv6 in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn exchange(question: &Question) -> Result<Answer, String> {
    let failed = |error: &dyn std::fmt::Display| format!("Get \"{}\": {error}", url(question));
    let tcp = TcpStream::connect(authority(&question.host, question.port)).await.map_err(|e| failed(&e))?;
    if question.tls {
        let name = ServerName::try_from(question.host.clone()).map_err(|e| failed(&e))?;
        let config = unchecked().map_err(|e| failed(&e))?;
        let tls =
            tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.map_err(|e| failed(&e))?;
        return speak(TokioIo::new(tls), question).await.map_err(|e| failed(&e));
    }
    speak(TokioIo::new(tcp), question).await.map_err(|e| failed(&e))
}

async fn speak<I>(io: I, question: &Question) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let mut request = Request::builder().method("GET").uri(&question.path);
    let own_host = question.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let default_host = authority(&question.host, question.port);
    request = request.header("host", own_host.map_or(&default_host, |(_, value)| value));
    request = request.header("accept", "*/*").header("connection", "close");
    let has_agent = question.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
    if !has_agent {
        request = request.header("user-agent", "kube-probe/1.36");
    }
    for (name, value) in question.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES).collect().await;
        let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Answer { code, body })
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            ended = &mut connection, if open => {
                ended?;
                open = false;
            }
        }
    }
}

/// Pods' certificates are their own business: a probe asks whether they answer, not who they are.
fn unchecked() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Unchecked(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
