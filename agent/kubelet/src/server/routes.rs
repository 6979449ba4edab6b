//! The paths of the kubelet API.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::json;

use super::{container_logs, stats, streams};
use crate::{
    cri::{CriError, inspect},
    pod::{
        model::PodModel,
        view::{ContainerView, PodView},
    },
    pods::Pods,
    shared::Shared,
};

/// What handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// The node's parts.
    pub(crate) shared: Arc<Shared>,
    /// Its pods.
    pub(crate) pods: Arc<Pods>,
}

/// The routes.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/runningpods/", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", any(streams::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(streams::exec_by_uid))
        .route("/attach/{namespace}/{pod}/{container}", any(streams::attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(streams::attach_by_uid))
        .route("/portForward/{namespace}/{pod}", any(streams::port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(streams::port_forward_by_uid))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics/resource", get(stats::resource))
        .with_state(api)
}

async fn pods(State(api): State<Api>) -> Response {
    let items: Vec<_> = api.pods.list();
    let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})).into_response()
}

/// A request that cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such pod on this node.
    #[error("pod \"{0}\" not found on this node")]
    NoPod(String),
    /// The pod has no such container.
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The container has not been started.
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    Waiting {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// Why.
        reason: String,
    },
    /// The container ran only once.
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The container is not running.
    #[error("container {container} of pod {pod} is not running")]
    NotRunning {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The pod has no sandbox.
    #[error("pod {0} is not running")]
    NoSandbox(String),
    /// The request makes no sense.
    #[error("{0}")]
    Bad(String),
    /// The runtime failed.
    #[error("container runtime: {0}")]
    Cri(#[from] CriError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::NoPod(_) | Self::NoContainer { .. } => StatusCode::NOT_FOUND,
            Self::Waiting { .. } | Self::NoPrevious { .. } | Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NotRunning { .. } | Self::NoSandbox(_) | Self::Cri(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (code, self.to_string()).into_response()
    }
}

impl Api {
    /// The pod of that name and what the runtime has of it.
    pub(crate) async fn look(&self, namespace: &str, pod: &str) -> Result<(PodModel, PodView), Refusal> {
        let found =
            self.pods.find(namespace, pod).ok_or_else(|| Refusal::NoPod(format!("{namespace}/{pod}")))?;
        let model = PodModel::new(found);
        let view = inspect::inspect(&self.shared.cri, &model.id.uid, &PodView::default()).await?;
        Ok((model, view))
    }

    /// A running container.
    pub(crate) async fn running(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<ContainerView, Refusal> {
        let (model, view) = self.look(namespace, pod).await?;
        let names = || (pod.to_owned(), container.to_owned());
        if model.unit(container).is_none() {
            let (pod, container) = names();
            return Err(Refusal::NoContainer { pod, container });
        }
        let found = view.latest(container).filter(|c| c.is_alive()).cloned();
        found.ok_or_else(|| {
            let (pod, container) = names();
            Refusal::NotRunning { pod, container }
        })
    }
}
