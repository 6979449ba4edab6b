//! What happens once after the API server has started: waiting for it, and the bootstrap token, which is what a node
//! without an identity asks for one with.
//!
//! The token is made on first start: the Secret in kube-system first, then the token file, then the kubeconfig for nodes. Once
//! the token file exists the Secret is never made again, so removing the Secret revokes the token for good.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rand::Rng;
use skep_pki::{Credential, Kubeconfig, write_private};
use skep_runtime::Backoff;

use crate::args::Args;

const NAMESPACE: &str = "kube-system";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
/// Tokens are made of these alone.
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Waits until the API server has written the objects that every cluster has.
pub(crate) async fn api_is_ready(client: &Client) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut waits = 0;
    loop {
        tokio::time::sleep(backoff.next_delay()).await;
        let request = http::Request::get("/readyz").body(Vec::new());
        let answer = match request {
            Ok(request) => client.request_text(request).await,
            // The request is constant.
            Err(error) => return tracing::error!(%error, "cannot ask whether the API server is ready"),
        };
        let Err(error) = answer else { return };
        waits += 1;
        if waits % 10 == 0 {
            tracing::warn!(%error, "waiting for the API server to be ready");
        }
    }
}

/// Makes the token and its kubeconfig.
pub(crate) struct Token {
    client: Client,
    data_dir: PathBuf,
    server: String,
    ca_pem: String,
}

impl Token {
    pub(crate) fn new(client: Client, args: &Args, ca_pem: String) -> Self {
        let port = args.bind.port();
        let server = match args.advertise_address {
            IpAddr::V4(address) => format!("https://{address}:{port}"),
            IpAddr::V6(address) => format!("https://[{address}]:{port}"),
        };
        Self { client, data_dir: args.data_dir.clone(), server, ca_pem }
    }

    /// Tries until it has succeeded: the API server makes the namespace a moment after it starts.
    pub(crate) async fn run(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut failures = 0;
        while let Err(error) = self.ensure().await {
            failures += 1;
            if failures > 5 {
                tracing::warn!("the bootstrap token cannot be made yet, nodes cannot join: {error:#}");
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        tracing::info!("nodes can join with {}", self.kubeconfig_path().display());
    }

    async fn ensure(&self) -> Result<()> {
        let file = self.data_dir.join("pki").join("bootstrap.token");
        let token = match read_token(&file)? {
            Some(token) => token,
            None => {
                let token = Words::random();
                self.create_secret(&token).await?;
                write_private(&file, &token.to_string())?;
                token
            }
        };
        let kubeconfig = Kubeconfig {
            cluster: "skep".to_owned(),
            server: self.server.clone(),
            ca_pem: self.ca_pem.clone(),
            user: "kubelet-bootstrap".to_owned(),
            credential: Credential::Token(token.to_string()),
        };
        Ok(kubeconfig.write(&self.kubeconfig_path())?)
    }

    fn kubeconfig_path(&self) -> PathBuf {
        self.data_dir.join("bootstrap.kubeconfig")
    }

    async fn create_secret(&self, token: &Words) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let created = secrets.create(&PostParams::default(), &token.secret()).await;
        created.map(drop).context("cannot create the token's Secret")
    }
}

/// A token: a public id and a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Words {
    id: String,
    secret: String,
}

impl Words {
    fn random() -> Self {
        let mut random = rand::rng();
        let mut word = |length: usize| {
            let letter = |_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]);
            (0..length).map(letter).collect()
        };
        Self { id: word(ID_LENGTH), secret: word(SECRET_LENGTH) }
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.trim().split_once('.')?;
        let fits = |word: &str, length| word.len() == length && word.bytes().all(|b| ALPHABET.contains(&b));
        let valid = fits(id, ID_LENGTH) && fits(secret, SECRET_LENGTH);
        valid.then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    fn secret(&self) -> Secret {
        let data = [
            ("token-id", self.id.as_str()),
            ("token-secret", self.secret.as_str()),
            ("usage-bootstrap-authentication", "true"),
            ("usage-bootstrap-signing", "true"),
            ("description", "Made by skep-controlplane for nodes to join; delete it to revoke it."),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(format!("bootstrap-token-{}", self.id)),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some("bootstrap.kubernetes.io/token".to_owned()),
            string_data: Some(BTreeMap::from(data.map(|(k, v)| (k.to_owned(), v.to_owned())))),
            ..Secret::default()
        }
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

fn read_token(path: &Path) -> Result<Option<Words>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let token = Words::parse(&text);
    let token =
        token.with_context(|| format!("{} holds no token: remove it to have one made", path.display()))?;
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_differ() {
        let token = Words::random();
        assert_eq!(Words::parse(&token.to_string()), Some(token.clone()));
        assert_ne!(token, Words::random());
        assert_eq!(Words::parse("short.token"), None);
        assert_eq!(Words::parse("ABCDEF.0123456789abcdef"), None);
    }

    #[test]
    fn the_secret_is_a_bootstrap_token_by_name_type_and_usage() {
        let token = Words::parse("abcdef.0123456789abcdef").unwrap();
        let secret = token.secret();
        assert_eq!(secret.metadata.name.as_deref(), Some("bootstrap-token-abcdef"));
        assert_eq!(secret.type_.as_deref(), Some("bootstrap.kubernetes.io/token"));
        assert_eq!(secret.string_data.unwrap()["usage-bootstrap-authentication"], "true");
    }
}
