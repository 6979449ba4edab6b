//! A pod as the runtime reports it: sandboxes and containers, newest first.

use jiff::Timestamp;

/// One sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxView {
    /// The runtime's id.
    pub(crate) id: String,
    /// Which try of this pod it is.
    pub(crate) attempt: u32,
    /// Whether its namespaces and network stand.
    pub(crate) ready: bool,
    /// When it was made, in nanoseconds.
    pub(crate) created_at: i64,
    /// Its addresses; empty for host network.
    pub(crate) ips: Vec<String>,
}

/// The state of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerView {
    /// The runtime's id.
    pub(crate) id: String,
    /// The container's name in the pod.
    pub(crate) name: String,
    /// The sandbox it is in.
    pub(crate) sandbox: String,
    /// How many runs came before.
    pub(crate) attempt: u32,
    /// Its state.
    pub(crate) state: RunState,
    /// When it was made, in nanoseconds.
    pub(crate) created_at: i64,
    /// When it was started.
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended.
    pub(crate) finished_at: Option<Timestamp>,
    /// How it ended.
    pub(crate) exit_code: i32,
    /// Why, in a word.
    pub(crate) reason: String,
    /// Why, at length: the termination message.
    pub(crate) message: String,
    /// The image as the user wrote it.
    pub(crate) image: String,
    /// The image by digest or id.
    pub(crate) image_id: String,
    /// [`super::model::Unit::hash`] at its creation; empty when unknown.
    pub(crate) hash: String,
}

impl ContainerView {
    /// Whether its processes may be alive.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.state, RunState::Running | RunState::Unknown)
    }

    /// The moment it ended, for backoff.
    pub(crate) fn ended_at(&self) -> Timestamp {
        self.finished_at
            .or_else(|| Timestamp::from_nanosecond(self.created_at.into()).ok())
            .unwrap_or_default()
    }
}

/// Everything the runtime has of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodView {
    /// Newest first.
    pub(crate) sandboxes: Vec<SandboxView>,
    /// Newest first.
    pub(crate) containers: Vec<ContainerView>,
}

impl PodView {
    /// Puts the newest first, as every reader expects.
    pub(crate) fn sorted(mut self) -> Self {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.attempt)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
        self
    }

    /// The sandbox in use: the newest, if it stands.
    pub(crate) fn sandbox(&self) -> Option<&SandboxView> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    /// The newest container of that name.
    pub(crate) fn latest(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of that name in the sandbox in use.
    pub(crate) fn current(&self, name: &str) -> Option<&ContainerView> {
        let sandbox = self.sandbox()?;
        self.latest(name).filter(|c| c.sandbox == sandbox.id)
    }

    /// The run before the newest.
    pub(crate) fn previous(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().filter(|c| c.name == name).nth(1)
    }

    /// Containers whose processes may be alive.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &ContainerView> {
        self.containers.iter().filter(|c| c.is_alive())
    }
}
