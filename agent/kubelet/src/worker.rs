//! One pod's worker: looks at the runtime, asks the plan, carries commands out, reports the status.
//!
//! All decisions are in [`crate::pod`]; commands run as tasks so that a pull or a long stop never keeps the
//! worker from seeing a deletion.

pub(crate) mod announce;
pub(crate) mod images;
pub(crate) mod ops;
pub(crate) mod report;
pub(crate) mod sandbox_op;
mod settle;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod teardown;
mod tell;
pub(crate) mod volumes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use self::ops::{Done, Outcome};
use crate::{
    cri::inspect,
    pod::{
        ending,
        memory::{Memory, Verdict},
        model::{PodModel, Role},
        plan::{self, Command, InFlight, Input, OpKey},
        status,
        view::PodView,
    },
    probe::task::{Change, Probes},
    shared::{RuntimeState, Shared},
};

/// What a worker is told.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    /// The pod as the API last had it.
    pub(crate) pod: Arc<Pod>,
    /// The API has it no more.
    pub(crate) gone: bool,
}

/// A worker's ears.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The latest wish.
    pub(crate) desired: watch::Receiver<Desired>,
    /// The runtime's state may have changed.
    pub(crate) poke: Arc<Notify>,
}

/// The worker.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    inbox: Inbox,
    model: Arc<PodModel>,
    gone: bool,
    view: PodView,
    looked: bool,
    memory: Memory,
    in_flight: InFlight,
    tasks: JoinSet<Done>,
    handles: BTreeMap<OpKey, (u64, AbortHandle)>,
    sequence: u64,
    probes: Probes,
    changes: mpsc::Receiver<Change>,
    reported: Option<PodStatus>,
    report_at: Option<Timestamp>,
    disputed_at: Option<Timestamp>,
    network: watch::Receiver<RuntimeState>,
    announced: announce::Announced,
}

/// How long to wait before looking again when the runtime does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often a young init container is looked at, and for how long it is young.
const GLANCE: Duration = Duration::from_millis(150);
const HURRY: Duration = Duration::from_secs(10);

impl Worker {
    /// A worker for the pod in `inbox`.
    pub(crate) fn new(shared: Arc<Shared>, mut inbox: Inbox) -> Self {
        let desired = inbox.desired.borrow_and_update().clone();
        let model = Arc::new(PodModel::new(desired.pod));
        let memory = Memory::recall(&model, Timestamp::now());
        let (sender, changes) = mpsc::channel(16);
        let probes = Probes::new(shared.cri.clone(), shared.events.clone(), sender);
        let reported = model.pod.status.clone();
        let network = shared.network.clone();
        Self {
            shared,
            inbox,
            model,
            gone: desired.gone,
            view: PodView::default(),
            looked: false,
            memory,
            in_flight: InFlight::new(),
            tasks: JoinSet::new(),
            handles: BTreeMap::new(),
            sequence: 0,
            probes,
            changes,
            reported,
            report_at: None,
            disputed_at: None,
            network,
            announced: announce::Announced::default(),
        }
    }

    /// Works until nothing is left to do for this pod.
    pub(crate) async fn run(mut self) {
        loop {
            if !self.looked && !self.look().await {
                self.wait(Some(Timestamp::now() + LOOK_AGAIN)).await;
                continue;
            }
            let now = Timestamp::now();
            self.network.mark_unchanged();
            let plan = plan::plan(&self.input(now));
            let mut again = false;
            for command in plan.commands {
                if command == Command::Forget {
                    return;
                }
                again |= self.carry_out(command);
            }
            if again {
                continue;
            }
            self.follow_up(now);
            let disputed = self.disputed_at.map(|since| since + tell::DISPUTE);
            let glance = self.hurries(now).then(|| now + GLANCE);
            self.wait(plan.wake.into_iter().chain(self.report_at).chain(disputed).chain(glance).min()).await;
            self.looked &= glance.is_none_or(|at| at > Timestamp::now());
        }
    }

    /// Whether a container runs whose end others wait for: it is looked at more often than the runtime is polled,
    /// for as long as it is young.
    fn hurries(&self, now: Timestamp) -> bool {
        self.model.of_role(Role::Init).any(|unit| {
            let young = |at: Timestamp| now < at + HURRY;
            self.view.current(unit.name()).is_some_and(|c| c.is_alive() && c.started_at.is_some_and(young))
        })
    }

    fn input(&self, now: Timestamp) -> Input<'_> {
        Input {
            model: &self.model,
            gone: self.gone,
            view: &self.view,
            memory: &self.memory,
            in_flight: &self.in_flight,
            network_ready: self.network.borrow().network_ready,
            now,
        }
    }

    async fn look(&mut self) -> bool {
        match inspect::inspect(&self.shared.cri, &self.model.id.uid, &self.view).await {
            Ok(view) => {
                self.memory.retain_probes(|id| view.alive().any(|c| c.id == id));
                self.view = view;
                self.looked = true;
                true
            }
            Err(error) => {
                tracing::warn!(pod = %self.model.id, call = error.call, %error, "the runtime does not answer");
                false
            }
        }
    }

    /// Whether the plan must be made again at once.
    fn carry_out(&mut self, command: Command) -> bool {
        tracing::debug!(pod = %self.model.id, ?command, "command");
        match command {
            Command::Fail(verdict) => {
                self.report_verdict(&verdict);
                self.memory.verdict = Some(verdict);
                return true;
            }
            Command::Freeze => {
                let status = status::status(&self.input(Timestamp::now()), &self.shared.node_ips);
                self.memory.last_status = Some(status);
                return true;
            }
            Command::Abort(key) => {
                self.in_flight.remove(&key);
                if let Some((_, handle)) = self.handles.remove(&key) {
                    handle.abort();
                }
                self.looked = false;
            }
            Command::Forget => {}
            other => self.spawn(other),
        }
        false
    }

    fn report_verdict(&self, verdict: &Verdict) {
        let severity = crate::events::Severity::Warning;
        self.shared.events.pod(&self.model.id, None, severity, &verdict.reason, verdict.message.clone());
    }

    fn spawn(&mut self, command: Command) {
        if let Command::StartContainer { name, .. } = &command {
            self.note_start(&name.clone());
        }
        let context = ops::Context {
            shared: self.shared.clone(),
            model: self.model.clone(),
            view: self.view.clone(),
            last_status: self.memory.last_status.clone(),
        };
        let Some((key, grace, task)) = ops::task(context, command) else { return };
        self.launch(key, grace, task);
    }

    fn launch(
        &mut self,
        key: OpKey,
        grace: Option<i64>,
        task: impl std::future::Future<Output = Outcome> + Send + 'static,
    ) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.in_flight.insert(key.clone(), grace);
        let done_key = key.clone();
        let handle = self.tasks.spawn(async move { Done { key: done_key, sequence, outcome: task.await } });
        self.handles.insert(key, (sequence, handle));
    }

    /// A restart counts towards the crash loop.
    fn note_start(&mut self, name: &str) {
        let now = Timestamp::now();
        let ended =
            self.view.latest(name).filter(|c| !c.is_alive()).map(crate::pod::view::ContainerView::ended_at);
        let memory = self.memory.container(name);
        if let (Some(ended), None) = (ended, &memory.failure) {
            memory.crash.advance(ended, now);
        }
    }

    /// Probes and status follow what was seen and planned.
    fn follow_up(&mut self, now: Timestamp) {
        let ending = ending::cause(&self.input(now)).is_some();
        let node_ip = self.shared.node_ips.first().cloned().unwrap_or_default();
        self.probes.sync(&self.model, &self.view, &self.memory, &node_ip, ending);
        self.report(now);
    }

    async fn wait(&mut self, until: Option<Timestamp>) {
        let sleep =
            until.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        tokio::select! {
            changed = self.inbox.desired.changed() => {
                if changed.is_ok() {
                    self.take_wish();
                } else {
                    // The manager is gone: the process is ending, pods live on.
                    std::future::pending::<()>().await;
                }
            }
            () = self.inbox.poke.notified() => self.looked = false,
            Some(done) = self.tasks.join_next() => match done {
                Ok(done) => self.settle(done),
                Err(error) if error.is_cancelled() => {}
                Err(error) => {
                    tracing::error!(pod = %self.model.id, %error, "a command panicked");
                    self.forget_finished();
                }
            },
            Some(change) = self.changes.recv() => change.apply(&mut self.memory),
            Ok(()) = self.network.changed() => {}
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
        }
    }

    /// A command that panicked says nothing: without this it would be in flight for ever.
    fn forget_finished(&mut self) {
        self.handles.retain(|_, (_, handle)| !handle.is_finished());
        self.in_flight.retain(|key, _| self.handles.contains_key(key));
        self.looked = false;
    }

    fn take_wish(&mut self) {
        let desired = self.inbox.desired.borrow_and_update().clone();
        self.gone = desired.gone;
        self.model = Arc::new(PodModel::new(desired.pod));
    }
}
