//! A kubelet of a few lines on loopback, and the way to it through the API server's own TLS listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use skep_apiserver::{ApiServer, ApiServerConfig, KubeletClientConfig, TlsConfig};
use skep_pki::{Authority, Identity, Profile, ServiceAccountKey};
use skep_runtime::{Drain, DrainTrigger};
use skep_storage::MemoryStorage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

const DAY: Duration = Duration::from_secs(24 * 3600);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An API server with listeners, and a kubelet that answers every request with the same bytes, then echoes.
pub(crate) struct Site {
    address: SocketAddr,
    authority: Authority,
    admin: Identity,
    _stop: DrainTrigger,
}

fn keys(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    identity.der().unwrap()
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    roots
}

impl Site {
    pub(crate) async fn with_kubelet(answer: &'static str) -> Self {
        // Whoever was first has installed the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = Authority::create("test").unwrap();
        let issue = |profile: Profile| authority.issue(&profile).unwrap();
        let kubelet =
            serve_kubelet(&authority, &issue(Profile::server("kubelet", &[], &[LOOPBACK], DAY)), answer);
        let serving = issue(Profile::server("kube-apiserver", &[], &[LOOPBACK], DAY));
        let client = issue(Profile::client("kube-apiserver-kubelet-client", &[], DAY));
        let admin = issue(Profile::client("admin", &["system:masters"], DAY));
        let mut config = ApiServerConfig::new(LOOPBACK, ServiceAccountKey::create().unwrap().private_pem());
        let ca = authority.certificate_pem().to_owned();
        config.tls = Some(TlsConfig {
            cert_pem: serving.certificate_pem,
            key_pem: serving.key_pem,
            client_ca_pem: ca.clone(),
        });
        config.kubelet = Some(KubeletClientConfig {
            cert_pem: client.certificate_pem,
            key_pem: client.key_pem,
            ca_pem: ca,
        });
        let server = ApiServer::open(Arc::new(MemoryStorage::new()), config).await.unwrap();
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, drain) = Drain::new();
        server.bootstrap().await.unwrap();
        let serve = Arc::clone(&server);
        tokio::spawn(async move { serve.serve(vec![listener], drain).await });
        let site = Self { address, authority, admin, _stop: stop };
        site.populate(&server, kubelet.port()).await;
        site
    }

    async fn populate(&self, server: &Arc<ApiServer>, port: u16) {
        let client = server.in_process_client("admin", &["system:masters"]);
        let make = async |path: &str, method: &str, body: serde_json::Value| {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
            let request = request.body(body.to_string().into_bytes()).unwrap();
            client.request::<serde_json::Value>(request).await.unwrap()
        };
        make("/api/v1/namespaces/default/serviceaccounts", "POST", json!({"metadata": {"name": "default"}}))
            .await;
        make("/api/v1/nodes", "POST", json!({"metadata": {"name": "n"}})).await;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        make("/api/v1/nodes/n/status", "PATCH", status).await;
        let mut pod = crate::bench::pod("p");
        pod["spec"]["nodeName"] = "n".into();
        make("/api/v1/namespaces/default/pods", "POST", pod).await;
    }

    /// A TLS connection as the administrator.
    pub(crate) async fn connect(&self) -> TlsStream<tokio::net::TcpStream> {
        let (chain, key) = keys(&self.admin);
        let config = ClientConfig::builder()
            .with_root_certificates(roots(&self.authority))
            .with_client_auth_cert(chain, key)
            .unwrap();
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(LOOPBACK.into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

/// Accepts only the API server's identity, as a kubelet does.
fn serve_kubelet(authority: &Authority, identity: &Identity, answer: &'static str) -> SocketAddr {
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(authority))).build().unwrap();
    let (chain, key) = keys(identity);
    let config =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let head = read_head(&mut stream).await;
                let line = head.lines().next().unwrap_or_default().to_owned();
                stream.write_all(answer.replace("{line}", &line).as_bytes()).await.unwrap();
                let mut buffer = [0; 1024];
                while let Ok(read) = stream.read(&mut buffer).await {
                    if read == 0 || stream.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// Reads up to the empty line that ends a head.
pub(crate) async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}
