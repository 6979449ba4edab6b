//! The first minute of a node: where the API is, and the first client certificate.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use kube::config::Kubeconfig;
use serde_json::json;
use skep_runtime::Backoff;

use super::{
    keypair::{Keypair, KeypairError},
    request::{self, Purpose, Subject},
};
use crate::{
    config::Config,
    session::{self, Credential, Server, SessionError},
};

/// A start that cannot succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootstrapError {
    /// There is no usable kubeconfig.
    #[error("{path}: {reason}; give a kubeconfig with server, CA and bootstrap token by --bootstrap-kubeconfig", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The stored certificate cannot be read or written.
    #[error(transparent)]
    Keypair(#[from] KeypairError),
    /// The client cannot be set up.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Where certificates are kept.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The client certificate.
    pub(crate) client: PathBuf,
    /// The serving certificate.
    pub(crate) serving: PathBuf,
    /// Where the API is, for starts without the bootstrap file.
    server: PathBuf,
}

impl Files {
    /// The files below a kubelet's root.
    pub(crate) fn new(root: &Path) -> Self {
        let pki = root.join("pki");
        Self {
            client: pki.join("kubelet-client.pem"),
            serving: pki.join("kubelet-serving.pem"),
            server: root.join("server.json"),
        }
    }
}

/// What a bootstrap file says.
#[derive(Debug, Clone)]
pub(crate) struct Bootstrap {
    /// Where the API is.
    pub(crate) server: Server,
    /// The credential for the first request, if there still is one.
    pub(crate) credential: Option<Credential>,
}

/// Reads the bootstrap file, or what an earlier start remembered of it.
pub(crate) fn read(config: &Config, files: &Files) -> Result<Bootstrap, BootstrapError> {
    match fs::read_to_string(&config.bootstrap_kubeconfig) {
        Ok(text) => {
            let bootstrap = parse(&text, &config.bootstrap_kubeconfig)?;
            remember(&bootstrap.server, &files.server);
            Ok(bootstrap)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            recall(&files.server).ok_or_else(|| BootstrapError::Kubeconfig {
                path: config.bootstrap_kubeconfig.clone(),
                reason: "no such file".to_owned(),
            })
        }
        Err(error) => Err(BootstrapError::Kubeconfig {
            path: config.bootstrap_kubeconfig.clone(),
            reason: error.to_string(),
        }),
    }
}

fn parse(text: &str, path: &Path) -> Result<Bootstrap, BootstrapError> {
    let bad = |reason: &str| BootstrapError::Kubeconfig { path: path.to_owned(), reason: reason.to_owned() };
    let kubeconfig = Kubeconfig::from_yaml(text).map_err(|error| bad(&error.to_string()))?;
    let cluster = kubeconfig
        .clusters
        .into_iter()
        .next()
        .and_then(|c| c.cluster)
        .ok_or_else(|| bad("it names no cluster"))?;
    let url = cluster.server.ok_or_else(|| bad("it names no server"))?;
    let ca = match (cluster.certificate_authority_data, cluster.certificate_authority) {
        (Some(data), _) => {
            use base64::{Engine, engine::general_purpose::STANDARD};
            let bytes = STANDARD.decode(data.trim()).map_err(|error| bad(&error.to_string()))?;
            String::from_utf8(bytes).map_err(|error| bad(&error.to_string()))?
        }
        (None, Some(file)) => {
            let file = path.parent().unwrap_or(Path::new("/")).join(file);
            fs::read_to_string(file).map_err(|error| bad(&error.to_string()))?
        }
        (None, None) => return Err(bad("it names no certificate authority")),
    };
    Ok(Bootstrap { server: Server { url, ca }, credential: credential(text) })
}

/// The token or certificate of the first user. kube hides secrets behind types of another crate, so the plain
/// text is read once more.
fn credential(text: &str) -> Option<Credential> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let value: serde_json::Value = serde_yaml_ng::from_str(text).ok()?;
    let user = value.get("users")?.get(0)?.get("user")?;
    let of = |key: &str| user.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    if let Some(token) = of("token") {
        return Some(Credential::Token(token));
    }
    let decode = |key: &str| String::from_utf8(STANDARD.decode(of(key)?.trim()).ok()?).ok();
    Some(Credential::Certificate {
        cert: decode("client-certificate-data")?,
        key: decode("client-key-data")?,
    })
}

fn remember(server: &Server, path: &Path) {
    let text = json!({"url": server.url, "ca": server.ca}).to_string();
    let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = parent.and_then(|()| fs::write(path, text)) {
        tracing::warn!(path = %path.display(), %error, "cannot remember where the API is");
    }
}

fn recall(path: &Path) -> Option<Bootstrap> {
    let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    let text = |key: &str| value.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    Some(Bootstrap { server: Server { url: text("url")?, ca: text("ca")? }, credential: None })
}

/// The stored client certificate if it is still good, else a new one, asked for until it is granted.
pub(crate) async fn client_certificate(
    bootstrap: &Bootstrap,
    files: &Files,
    subject: &Subject,
) -> Result<Keypair, BootstrapError> {
    if let Some(pair) = Keypair::load(&files.client)?.filter(|pair| pair.is_valid(Timestamp::now())) {
        return Ok(pair);
    }
    let Some(credential) = &bootstrap.credential else {
        return Err(BootstrapError::Kubeconfig {
            path: files.client.clone(),
            reason: "the client certificate is missing or expired, and there is no bootstrap token"
                .to_owned(),
        });
    };
    let client = session::client(&bootstrap.server, credential).await?;
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        match request::obtain(client.clone(), subject, Purpose::Client).await {
            Ok(pair) => {
                pair.store(&files.client)?;
                return Ok(pair);
            }
            Err(error) => {
                tracing::warn!(%error, server = bootstrap.server.url, "no client certificate yet");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_server_ca_and_token() {
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://10.0.0.1:6443\n    \
                    certificate-authority-data: Q0E=\nusers:\n- name: u\n  user:\n    token: abc.def\n";
        let bootstrap = parse(text, Path::new("/b")).unwrap();
        assert_eq!(bootstrap.server, Server { url: "https://10.0.0.1:6443".into(), ca: "CA".into() });
        assert!(matches!(bootstrap.credential, Some(Credential::Token(t)) if t == "abc.def"));
        assert!(parse("clusters: []\n", Path::new("/b")).is_err());
    }
}
