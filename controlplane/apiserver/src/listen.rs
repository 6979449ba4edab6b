//! Listeners: TLS with optional client certificates, HTTP/1.1 and HTTP/2, upgrades, and an orderly end. Owns
//! connections; what is on them is the pipeline's.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use skep_runtime::Drain;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::authn::x509::PeerCertificate;
use crate::config::TlsConfig;
use crate::pipeline;
use crate::state::State;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests.
const IDLE: Duration = Duration::from_secs(180);
/// How long requests in flight may go on after the drain began.
const LINGER: Duration = Duration::from_secs(5);

/// Why listeners cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Certificates or keys do not parse.
    #[error("{what} is not usable PEM")]
    Pem {
        /// Which setting.
        what: &'static str,
        /// The parser's words.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not fit.
    #[error("the TLS settings are refused")]
    Tls(#[from] rustls::Error),
    /// The client CA holds no certificate that can be trusted.
    #[error("client certificates cannot be verified")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    /// No TLS settings were given.
    #[error("listeners need TLS settings")]
    NoTls,
    /// The socket refused.
    #[error("a listener cannot be used")]
    Socket(#[from] std::io::Error),
}

/// Certificates of a PEM bundle.
pub fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ListenError::Pem { what, source })
}

/// The private key of a PEM text.
pub fn private_key(pem: &str, what: &'static str) -> Result<PrivateKeyDer<'static>, ListenError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| ListenError::Pem { what, source })
}

/// A store of the certificates of a bundle.
pub fn roots(pem: &str, what: &'static str) -> Result<RootCertStore, ListenError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, what)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn acceptor(tls: &TlsConfig) -> Result<TlsAcceptor, ListenError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(roots(&tls.client_ca_pem, "the client CA")?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(&tls.cert_pem, "the serving certificate")?,
            private_key(&tls.key_pem, "the serving key")?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The HTTP service as a router, for in-process use.
pub fn router(state: &Arc<State>) -> axum::Router {
    let state = Arc::clone(state);
    axum::Router::new()
        .fallback(move |request: http::Request<Body>| pipeline::serve(Arc::clone(&state), request))
}

/// Begins to accept at once; the future resolves when every listener has stopped.
pub fn serve(
    state: &Arc<State>,
    listeners: Vec<TcpListener>,
    drain: &Drain,
) -> Result<impl Future<Output = ()>, ListenError> {
    let acceptor = acceptor(state.config.tls.as_ref().ok_or(ListenError::NoTls)?)?;
    let mut accepting = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (state, acceptor, held) = (Arc::clone(state), acceptor.clone(), drain.clone());
        accepting.push(drain.spawn(accept(listener, state, acceptor, held)));
    }
    Ok(async move {
        futures::future::join_all(accepting).await;
    })
}

async fn accept(listener: tokio::net::TcpListener, state: Arc<State>, acceptor: TlsAcceptor, drain: Drain) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: others must close theirs first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = drain.cancelled() => return,
        };
        drain.spawn(connection(stream, Arc::clone(&state), acceptor.clone(), drain.clone()));
    }
}

async fn connection(stream: TcpStream, state: Arc<State>, acceptor: TlsAcceptor, drain: Drain) {
    // Small frames of watches must not wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let Ok(Ok(tls)) = handshake else { return };
    let peer = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = peer.map(|leaf| PeerCertificate(Arc::from(leaf.as_ref())));
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (state, peer) = (Arc::clone(&state), peer.clone());
        async move {
            let mut request = request.map(Body::new);
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            Ok::<_, std::convert::Infallible>(pipeline::serve(state, request).await)
        }
    });
    // The handshake has settled the version; sniffing for it would wait for a silent client without end.
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if h2 { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(LINGER, serving).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended early");
    }
}
