//! The pod state machine: from what is wanted, seen and remembered to the next commands.
//!
//! [`plan`] is called after every change and at every wake-up. It is idempotent: commands in flight are not
//! given again, and a plan without commands says only when to look again.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    ending,
    memory::{Memory, Verdict},
    model::PodModel,
    running,
    view::PodView,
};

/// What a command works on; two commands with the same key never run at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OpKey {
    /// Setting volumes up.
    Volumes,
    /// Reading projected files again.
    Refresh,
    /// Making a sandbox.
    Sandbox,
    /// Starting the named container.
    Start(String),
    /// Stopping the container of that id.
    Stop(String),
    /// Taking the pod down.
    Teardown,
    /// Telling the API that the pod is gone.
    Finalize,
    /// Telling the API how the pod is.
    Report,
}

/// Commands being carried out, with the grace period of stops.
pub(crate) type InFlight = BTreeMap<OpKey, Option<i64>>;

/// Why a container is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The pod ends.
    PodEnds,
    /// A probe gave up (`liveness` or `startup`).
    Probe(&'static str),
    /// Its specification changed.
    Changed,
    /// Its sandbox is gone.
    SandboxLost,
    /// The runtime lost track of it.
    Unknown,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Set all volumes up.
    PrepareVolumes,
    /// Read config maps, secrets, tokens and downward files again.
    RefreshVolumes,
    /// Remove the stale sandboxes, then make one.
    CreateSandbox {
        /// Its attempt number.
        attempt: u32,
        /// Sandboxes to stop and remove first.
        stale: Vec<String>,
    },
    /// Pull, create and start a container.
    StartContainer {
        /// Its name.
        name: String,
        /// Its attempt number.
        attempt: u32,
        /// The sandbox it goes into.
        sandbox: String,
        /// A container that was made but never started, to be removed first.
        remove: Option<String>,
    },
    /// Stop a container.
    StopContainer {
        /// Its name.
        name: String,
        /// The runtime's id.
        id: String,
        /// Seconds until the final signal.
        grace: i64,
        /// Why.
        reason: StopReason,
    },
    /// Give up a command in flight.
    Abort(OpKey),
    /// The pod is over for a reason of its own.
    Fail(Verdict),
    /// Keep the present status as the last one: containers are about to go.
    Freeze,
    /// Stop sandboxes, unmount volumes, remove cgroups; with `remove`, the containers too.
    Teardown {
        /// Whether nothing is to be left, not even logs.
        remove: bool,
    },
    /// Report the last status and delete the object.
    Finalize,
    /// The worker's job is done.
    Forget,
}

/// What to do now and when to look again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In order.
    pub(crate) commands: Vec<Command>,
    /// The earliest moment at which time alone changes the plan or the status.
    pub(crate) wake: Option<Timestamp>,
}

impl Plan {
    pub(super) fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }
}

/// Everything a decision depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    /// The pod as wanted.
    pub(crate) model: &'a PodModel,
    /// The API has no such pod (any more).
    pub(crate) gone: bool,
    /// The pod as seen.
    pub(crate) view: &'a PodView,
    /// What is remembered.
    pub(crate) memory: &'a Memory,
    /// What is being done.
    pub(crate) in_flight: &'a InFlight,
    /// Whether the node's network plugin is ready.
    pub(crate) network_ready: bool,
    /// The time.
    pub(crate) now: Timestamp,
}

impl Input<'_> {
    /// Whether a command of that key is in flight.
    pub(super) fn busy(&self, key: &OpKey) -> bool {
        self.in_flight.contains_key(key)
    }

    /// Whether any container is being started.
    pub(super) fn starting(&self) -> bool {
        self.in_flight.keys().any(|k| matches!(k, OpKey::Start(_)))
    }

    /// Stops a container unless that is being done with at most as much grace.
    pub(super) fn stop(&self, plan: &mut Plan, name: &str, id: &str, grace: i64, reason: StopReason) {
        let key = OpKey::Stop(id.to_owned());
        match self.in_flight.get(&key) {
            Some(Some(known)) if *known <= grace => return,
            Some(_) => plan.push(Command::Abort(key)),
            None => {}
        }
        plan.push(Command::StopContainer { name: name.to_owned(), id: id.to_owned(), grace, reason });
    }
}

/// The next commands.
pub(crate) fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    match ending::cause(input) {
        Some(cause) => ending::plan(input, cause, &mut plan),
        None => running::plan(input, &mut plan),
    }
    plan
}
