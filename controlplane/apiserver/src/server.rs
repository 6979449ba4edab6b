//! The API server as a value: opened over a store, served on listeners, or called in process.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::map_request;
use parking_lot::RwLock;
use skep_runtime::Drain;
use skep_storage::{Cache, CacheConfig, Storage, StorageError};
use tokio_util::sync::CancellationToken;

use crate::authn::InProcessUser;
use crate::authn::jwt::{TokenError, TokenSigner};
use crate::config::ApiServerConfig;
use crate::document::rendered::Documents;
use crate::listen::{self, ListenError};
use crate::metrics::Metrics;
use crate::proxy::KubeletClient;
use crate::registry_view::RegistryView;
use crate::service::{PoolError, Services};
use crate::state::State;
use crate::store::Store;
use crate::user::UserInfo;
use crate::{bootstrap, custom_resources, follow, pipeline};

/// Why the API server cannot start or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// The store could not be read.
    #[error("the store cannot be opened")]
    Storage(#[from] StorageError),
    /// The signing key is unusable.
    #[error("service-account tokens cannot be signed")]
    Tokens(#[from] TokenError),
    /// The service range is unusable.
    #[error("the service range cannot be used")]
    ServiceRange(#[from] PoolError),
    /// A certificate or key is unusable, or a listener failed.
    #[error("the listeners cannot be served")]
    Listen(#[from] ListenError),
    /// A metric is defined twice.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// The objects every cluster has could not be written.
    #[error("the bootstrap objects could not be written: {0}")]
    Bootstrap(crate::ApiError),
}

/// The API server.
pub struct ApiServer {
    state: Arc<State>,
}

impl ApiServer {
    /// Opens the watch cache over a store and prepares to serve it. Must run inside a tokio runtime.
    pub async fn open(
        storage: Arc<dyn Storage>,
        config: ApiServerConfig,
    ) -> Result<Arc<Self>, ApiServerError> {
        let registry = RegistryView::builtin();
        let cache = Cache::open(storage, registry.attributes(), CacheConfig::default()).await?;
        let kubelets = config.kubelet.as_ref().map(KubeletClient::new).transpose()?;
        let state = Arc::new(State {
            store: Store::new(cache),
            registry,
            policy: RwLock::default(),
            documents: Documents::default(),
            tokens: TokenSigner::new(&config.service_account_key_pem, &config.issuer)?,
            services: Services::new(&config.service_cidr, config.node_ports.clone())?,
            kubelets,
            metrics: Metrics::new()?,
            drain: CancellationToken::new(),
            bootstrapped: AtomicBool::new(false),
            config,
        });
        follow::load_seeds(&state);
        follow::load(&state);
        custom_resources::load(&state);
        Ok(Arc::new(Self { state }))
    }

    /// The HTTP service without TLS: identity by token or anonymous. For tests and embedding.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        listen::router(&self.state)
    }

    /// Writes the objects every cluster has. [`ApiServer::serve`] does this first; tests may call it alone.
    pub async fn bootstrap(&self) -> Result<(), ApiServerError> {
        bootstrap::run(&self.state).await.map_err(ApiServerError::Bootstrap)
    }

    /// Starts the background work until the drain: RBAC policy, role aggregation, custom resources, the endpoints of
    /// the `kubernetes` Service. [`ApiServer::serve`] does this; tests may call it alone.
    pub fn run_background(self: &Arc<Self>, drain: &Drain) {
        drain.spawn_until_drained(follow::run(Arc::clone(&self.state)));
        drain.spawn_until_drained(custom_resources::run(Arc::clone(&self.state)));
        drain.spawn_until_drained(bootstrap::keep(Arc::clone(&self.state)));
        let (state, token) = (Arc::clone(&self.state), drain.token().clone());
        drain.spawn(async move {
            token.cancelled().await;
            state.drain.cancel();
        });
    }

    /// Writes the bootstrap objects, then serves the listeners (TLS) and runs the background work until the drain.
    pub async fn serve(
        self: &Arc<Self>,
        listeners: Vec<TcpListener>,
        drain: Drain,
    ) -> Result<(), ApiServerError> {
        self.run_background(&drain);
        let listening = listen::serve(&self.state, listeners, &drain)?;
        self.bootstrap().await?;
        listening.await;
        Ok(())
    }

    /// A client that calls this server without a socket, as that user (`system:authenticated` is added).
    pub fn in_process_client(self: &Arc<Self>, user: &str, groups: &[&str]) -> kube::Client {
        let identity = InProcessUser(UserInfo::new(user, groups.iter().map(|g| (*g).to_owned())));
        let identify = move |mut request: Request<Body>| {
            request.extensions_mut().insert(identity.clone());
            std::future::ready(request)
        };
        kube::Client::new(self.router().layer(map_request(identify)), "default")
    }

    /// Calls the server directly as a user, for tests.
    pub async fn call_as(
        self: &Arc<Self>,
        user: UserInfo,
        mut request: http::Request<Body>,
    ) -> http::Response<Body> {
        request.extensions_mut().insert(InProcessUser(user));
        pipeline::serve(Arc::clone(&self.state), request).await
    }
}
