//! An API server alone on loopback over a store in memory: for kubectl, and for replaying recorded behaviour.
//! `cargo run -p skep-apiserver --example apiserver -- PORT DIRECTORY` writes ca.crt, admin.crt, admin.key and
//! admin.kubeconfig into the directory and serves until it is interrupted.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use skep_apiserver::{ApiServer, ApiServerConfig, TlsConfig};
use skep_pki::{Authority, Credential, Kubeconfig, Profile, ServiceAccountKey};
use skep_runtime::Drain;
use skep_storage::MemoryStorage;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().context("first argument: the port")?.parse()?;
    let directory = PathBuf::from(arguments.next().context("second argument: a directory")?);
    std::fs::create_dir_all(&directory)?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("info").init();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let authority = Authority::create("example")?;
    let serving = authority.issue(&Profile::server("kube-apiserver", &["localhost"], &[loopback], DAY))?;
    let admin = authority.issue(&Profile::client("admin", &["system:masters"], DAY))?;
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text);
    write("ca.crt", authority.certificate_pem())?;
    write("admin.crt", &admin.certificate_pem)?;
    write("admin.key", &admin.key_pem)?;
    let kubeconfig = Kubeconfig {
        cluster: "example".to_owned(),
        server: format!("https://127.0.0.1:{port}"),
        ca_pem: authority.certificate_pem().to_owned(),
        user: "admin".to_owned(),
        credential: Credential::Certificate(admin),
    };
    kubeconfig.write(&directory.join("admin.kubeconfig"))?;
    let mut config = ApiServerConfig::new(loopback, ServiceAccountKey::create()?.private_pem());
    config.advertise_port = port;
    config.tls = Some(TlsConfig {
        cert_pem: serving.certificate_pem,
        key_pem: serving.key_pem,
        client_ca_pem: authority.certificate_pem().to_owned(),
    });
    let server = ApiServer::open(Arc::new(MemoryStorage::new()), config).await?;
    let (trigger, drain) = Drain::new();
    let listener = TcpListener::bind((loopback, port))?;
    tokio::select! {
        served = server.serve(vec![listener], drain) => served?,
        _ = tokio::signal::ctrl_c() => {}
    }
    trigger.drain(Duration::from_secs(5)).await;
    Ok(())
}
