//! The node's connection to the API: a client that is replaced when the certificate is, and bounded calls.

use std::{future::Future, sync::Arc, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::sync::watch;

/// Calls that take longer are given up: a lost connection must not hold a pod up.
const CALL: Duration = Duration::from_secs(20);
/// A watch that is silent for longer is opened again.
const SILENCE: Duration = Duration::from_secs(80);

/// How a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The configuration makes no sense.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The client cannot be set up.
    #[error("API client: {0}")]
    Client(#[from] kube::Error),
    /// The configuration is not well formed.
    #[error("kubeconfig is not well formed: {0}")]
    Format(#[from] serde_json::Error),
}

/// A call to the API that failed or took too long.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The answer was an error.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// There was no answer.
    #[error("the API server did not answer in {} s", CALL.as_secs())]
    Timeout,
}

impl CallError {
    /// The HTTP status of the answer, if there was one.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// The URL.
    pub(crate) url: String,
    /// The cluster CA, PEM.
    pub(crate) ca: String,
}

/// Who speaks to it.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A bearer token.
    Token(String),
    /// A client certificate and its key, PEM.
    Certificate {
        /// The chain.
        cert: String,
        /// The key.
        key: String,
    },
}

/// A client for `server` as `credential`.
pub(crate) async fn client(server: &Server, credential: &Credential) -> Result<Client, SessionError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let user = match credential {
        Credential::Token(token) => json!({"token": token}),
        Credential::Certificate { cert, key } => json!({
            "client-certificate-data": STANDARD.encode(cert),
            "client-key-data": STANDARD.encode(key),
        }),
    };
    let kubeconfig: Kubeconfig = serde_json::from_value(json!({
        "clusters": [{"name": "c", "cluster":
            {"server": server.url, "certificate-authority-data": STANDARD.encode(&server.ca)}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(SILENCE);
    Ok(Client::try_from(config)?)
}

/// The current client.
pub(crate) struct Session {
    client: watch::Sender<Client>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// A session that starts with `client`.
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client: watch::Sender::new(client) })
    }

    /// The client to use for the next call.
    pub(crate) fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    /// Uses another client from now on.
    pub(crate) fn replace(&self, client: Client) {
        self.client.send_replace(client);
    }

    /// Tells when the client was replaced.
    pub(crate) fn changes(&self) -> watch::Receiver<Client> {
        self.client.subscribe()
    }
}

/// Waits for a call, but not for ever.
pub(crate) async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(CallError::Timeout),
    }
}
