//! The answers on the admin port.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use skep_datapath::{Datapath, DatapathError};
use tokio::sync::{mpsc, oneshot, watch};

use super::{flows, lb, services};
use crate::{cluster::Cluster, endpoints::Endpoints, engine::Question, report::Reporter};

/// Everything that answers are made from.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) questions: mpsc::Sender<Question>,
    pub(crate) reporter: Reporter,
}

/// Routes that answer once `source` has something to answer from.
pub(crate) fn routes(source: watch::Receiver<Option<Answers>>) -> Router {
    Router::new()
        .route("/v1/services", get(services_of))
        .route("/v1/endpoints", get(endpoints_of))
        .route("/v1/health", get(health_of))
        .route("/v1/bpf/{map}", get(map_of))
        .with_state(source)
}

type Source = State<watch::Receiver<Option<Answers>>>;

fn not_yet() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the data path is not up yet").into_response()
}

/// Has something done on the engine's own task; nobody answers while it is not there.
async fn ask<T: Send + 'static>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(&Cluster) -> T + Send + 'static,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    let question: Question = Box::new(move |cluster| {
        // Whoever asked may have gone.
        let _ = answer.send(question(cluster));
    });
    questions.send(question).await.ok()?;
    answered.await.ok()
}

async fn services_of(State(source): Source) -> Response {
    let Some(answers) = source.borrow().clone() else { return not_yet() };
    match ask(&answers.questions, |cluster| services::services(cluster.balancer())).await {
        Some(rows) => Json(rows).into_response(),
        None => not_yet(),
    }
}

async fn endpoints_of(State(source): Source) -> Response {
    let Some(answers) = source.borrow().clone() else { return not_yet() };
    let rows = answers.endpoints.list().into_iter();
    Json(rows.map(|(pod, ip)| json!({"pod": pod, "address": ip})).collect::<Vec<_>>()).into_response()
}

async fn health_of(State(source): Source) -> Response {
    let Some(answers) = source.borrow().clone() else { return not_yet() };
    Json(answers.reporter.service_health()).into_response()
}

async fn map_of(State(source): Source, Path(map): Path<String>) -> Response {
    let Some(answers) = source.borrow().clone() else { return not_yet() };
    let Some(names) = ask(&answers.questions, |cluster| lb::Names::of(cluster.balancer())).await else {
        return not_yet();
    };
    let datapath = answers.datapath;
    let read = tokio::task::spawn_blocking(move || rows(&map, &datapath, &names)).await;
    match read {
        Ok(Ok(Some(rows))) => Json(rows).into_response(),
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(_) => not_yet(),
    }
}

fn rows(map: &str, datapath: &Datapath, names: &lb::Names) -> Result<Option<Value>, DatapathError> {
    let tables = datapath.tables();
    let rows = match map {
        "lb" => json!(lb::frontends(tables, names)?),
        "maglev" => json!(lb::maglev(tables, names)?),
        "affinity" => json!(lb::affinity(&datapath.affinity()?, names)),
        "ct" => json!(flows::flows(&datapath.conntrack()?, names)),
        "nat" => json!(flows::translations(&datapath.conntrack()?, names)),
        _ => return Ok(None),
    };
    Ok(Some(rows))
}
