//! From a command to the task that carries it out, and what comes back.

use std::{future::Future, pin::Pin, sync::Arc};

use k8s_openapi::api::core::v1::PodStatus;

use super::{report, sandbox_op, start, stop, teardown, volumes};
use crate::{
    pod::{
        model::PodModel,
        plan::{Command, OpKey},
        view::PodView,
    },
    shared::Shared,
};

/// What a task works with: the node, and the pod as it was when the command was given.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The node's parts.
    pub(crate) shared: Arc<Shared>,
    /// The pod as wanted.
    pub(crate) model: Arc<PodModel>,
    /// The pod as seen.
    pub(crate) view: PodView,
    /// The status after the last container ended.
    pub(crate) last_status: Option<PodStatus>,
}

/// Why a container did not start: the waiting reason and the story.
#[derive(Debug, Clone)]
pub(crate) struct NotStarted {
    /// E.g. `ErrImagePull`.
    pub(crate) reason: &'static str,
    /// The story.
    pub(crate) message: String,
}

/// What came of a command. Errors have been logged and told as events where they happened.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Volumes are set up (and need refreshing), or not.
    Volumes(Result<bool, ()>),
    /// Projected files were read again.
    Refreshed,
    /// A sandbox stands, or not.
    Sandbox(Result<(), ()>),
    /// The container was started.
    Started(String),
    /// It was not.
    NotStarted(String, NotStarted),
    /// A stop is over, one way or the other; the next look tells.
    Stopped,
    /// The pod is down (and its containers removed), or not.
    TornDown(Result<bool, ()>),
    /// The API has been told, or not.
    Finalized(Result<(), ()>),
    /// The status the API now has; none when it could not be told.
    Reported(Option<Box<PodStatus>>),
}

/// A finished task.
#[derive(Debug)]
pub(crate) struct Done {
    /// What it worked on.
    pub(crate) key: OpKey,
    /// Which try it was.
    pub(crate) sequence: u64,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

type Task = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The task for a command, what it works on, and the grace of a stop.
pub(crate) fn task(context: Context, command: Command) -> Option<(OpKey, Option<i64>, Task)> {
    Some(match command {
        Command::PrepareVolumes => (OpKey::Volumes, None, Box::pin(volumes::prepare(context))),
        Command::RefreshVolumes => (OpKey::Refresh, None, Box::pin(volumes::refresh(context))),
        Command::CreateSandbox { attempt, stale } => {
            (OpKey::Sandbox, None, Box::pin(sandbox_op::create(context, attempt, stale)))
        }
        Command::StartContainer { name, attempt, sandbox, remove } => {
            let key = OpKey::Start(name.clone());
            (key, None, Box::pin(start::start(context, start::Order { name, attempt, sandbox, remove })))
        }
        Command::StopContainer { name, id, grace, reason } => {
            let key = OpKey::Stop(id.clone());
            (key, Some(grace), Box::pin(stop::stop(context, stop::Order { name, id, grace, reason })))
        }
        Command::Teardown { remove } => {
            (OpKey::Teardown, None, Box::pin(teardown::teardown(context, remove)))
        }
        Command::Finalize => (OpKey::Finalize, None, Box::pin(report::finalize(context))),
        Command::Abort(_) | Command::Fail(_) | Command::Freeze | Command::Forget => return None,
    })
}
