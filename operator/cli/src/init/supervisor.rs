//! The supervisor's decisions, without a process or a clock: what to start, stop or kill next.
//!
//! Times are durations since pid 1 started. A service that ends is started again at once when it had
//! been up for a while, and after a doubling pause when it had not.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::node_file::Service;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A run at least this long counts as healthy and resets the pause.
const HEALTHY_RUN: Duration = Duration::from_secs(10);
/// How often the files that services wait for are looked at.
const FILE_POLL: Duration = Duration::from_millis(100);

/// What the driver has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the service with this index.
    Start(usize),
    /// Ask this process to end (SIGTERM).
    Terminate(i32),
    /// End this process (SIGKILL).
    Kill(i32),
    /// Nothing of ours runs any more: leave.
    Leave,
}

/// Where a service stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub(crate) enum Phase {
    /// Not started yet, or files it needs are missing.
    Waiting,
    /// Running since a time.
    Running {
        /// Its process id in the node.
        pid: i32,
        /// When it started, since pid 1 started.
        since: Duration,
    },
    /// Ended; to be started again at a time.
    Pausing {
        /// When the pause ends.
        until: Duration,
    },
    /// Asked to end; killed after the deadline.
    Stopping {
        /// Its process id in the node.
        pid: i32,
        /// When it is killed.
        deadline: Duration,
    },
    /// Ended for good.
    Stopped,
}

/// A service and its history.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Unit {
    /// What to run.
    #[serde(skip)]
    pub(crate) service: Service,
    /// Its name, for the status file.
    pub(crate) name: String,
    /// Where it stands.
    #[serde(flatten)]
    pub(crate) phase: Phase,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// How its last run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_exit: Option<String>,
    #[serde(skip)]
    pause: Duration,
}

/// All services of a node.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    units: Vec<Unit>,
    stopping: bool,
}

impl Supervisor {
    /// A supervisor that has started nothing yet.
    pub(crate) fn new(services: &[Service]) -> Self {
        let unit = |service: &Service| Unit {
            name: service.name.clone(),
            service: service.clone(),
            phase: Phase::Waiting,
            restarts: 0,
            last_exit: None,
            pause: FIRST_PAUSE,
        };
        Self { units: services.iter().map(unit).collect(), stopping: false }
    }

    /// The services and where they stand.
    pub(crate) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// What is due now. `exists` says whether a file is there.
    pub(crate) fn due(&mut self, now: Duration, exists: impl Fn(&Path) -> bool) -> Vec<Action> {
        if self.stopping {
            return self.due_while_stopping(now);
        }
        let startable = |unit: &Unit| match unit.phase {
            Phase::Waiting => unit.service.needs.iter().all(|path| exists(path)),
            Phase::Pausing { until } => until <= now,
            _ => false,
        };
        let due = self.units.iter().enumerate().filter(|(_, unit)| startable(unit));
        due.map(|(index, _)| Action::Start(index)).collect()
    }

    /// One service at a time, the last one first.
    fn due_while_stopping(&mut self, now: Duration) -> Vec<Action> {
        for unit in self.units.iter_mut().rev() {
            match unit.phase {
                Phase::Running { pid, .. } => {
                    unit.phase = Phase::Stopping { pid, deadline: now + unit.service.stop_timeout() };
                    return vec![Action::Terminate(pid)];
                }
                Phase::Stopping { pid, deadline } if deadline <= now => return vec![Action::Kill(pid)],
                Phase::Stopping { .. } => return Vec::new(),
                Phase::Waiting | Phase::Pausing { .. } => unit.phase = Phase::Stopped,
                Phase::Stopped => {}
            }
        }
        vec![Action::Leave]
    }

    /// A service was started.
    pub(crate) fn started(&mut self, index: usize, pid: i32, now: Duration) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.phase = Phase::Running { pid, since: now };
        }
    }

    /// A service could not be started.
    pub(crate) fn failed(&mut self, index: usize, reason: String, now: Duration) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.pause_before_restart(now, reason);
        }
    }

    /// A process ended. Returns the name of the service it was, if it was one.
    pub(crate) fn ended(&mut self, pid: i32, how: &str, now: Duration) -> Option<&str> {
        let unit = self.units.iter_mut().find(|unit| unit.pid() == Some(pid))?;
        match unit.phase {
            Phase::Stopping { .. } => {
                unit.phase = Phase::Stopped;
                unit.last_exit = Some(how.to_owned());
            }
            Phase::Running { since, .. } if now.saturating_sub(since) >= HEALTHY_RUN => {
                unit.pause = FIRST_PAUSE;
                unit.pause_before_restart(now, how.to_owned());
            }
            _ => unit.pause_before_restart(now, how.to_owned()),
        }
        Some(&unit.name)
    }

    /// From now on stop everything, in the opposite order of starting.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// When to look again if nothing happens before.
    pub(crate) fn next_look(&self, now: Duration) -> Option<Duration> {
        let at = |unit: &Unit| match unit.phase {
            Phase::Waiting => Some(now + FILE_POLL),
            Phase::Pausing { until } => Some(until),
            Phase::Stopping { deadline, .. } => Some(deadline.max(now + FILE_POLL)),
            Phase::Running { .. } | Phase::Stopped => None,
        };
        self.units.iter().filter_map(at).min()
    }
}

impl Unit {
    /// The process, while there is one.
    pub(crate) fn pid(&self) -> Option<i32> {
        match self.phase {
            Phase::Running { pid, .. } | Phase::Stopping { pid, .. } => Some(pid),
            _ => None,
        }
    }

    fn pause_before_restart(&mut self, now: Duration, how: String) {
        self.phase = Phase::Pausing { until: now + self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.restarts += 1;
        self.last_exit = Some(how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, needs: &[&str]) -> Service {
        Service {
            name: name.into(),
            command: vec![name.into()],
            needs: needs.iter().map(Into::into).collect(),
            listener: false,
            stop_seconds: 3,
            env: Default::default(),
        }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn running() -> Supervisor {
        let mut supervisor = Supervisor::new(&[service("containerd", &[]), service("kubelet", &[])]);
        supervisor.started(0, 10, seconds(0));
        supervisor.started(1, 11, seconds(0));
        supervisor
    }

    #[test]
    fn starts_in_order_and_waits_for_needed_files() {
        let mut supervisor = Supervisor::new(&[service("containerd", &[]), service("kubelet", &["/token"])]);
        assert_eq!(supervisor.due(seconds(0), |_| false), [Action::Start(0)]);
        supervisor.started(0, 10, seconds(0));
        assert!(supervisor.due(seconds(1), |_| false).is_empty());
        assert_eq!(supervisor.due(seconds(2), |path| path == Path::new("/token")), [Action::Start(1)]);
    }

    #[test]
    fn restarts_at_once_after_a_healthy_run() {
        let mut supervisor = running();
        assert_eq!(supervisor.ended(10, "signal 9", seconds(60)), Some("containerd"));
        assert_eq!(supervisor.next_look(seconds(60)), Some(seconds(60) + FIRST_PAUSE));
        assert_eq!(supervisor.due(seconds(61), |_| true), [Action::Start(0)]);
    }

    #[test]
    fn pauses_longer_each_time_a_run_is_short_up_to_a_limit() {
        let mut supervisor = running();
        let mut pauses = Vec::new();
        for round in 1..20u64 {
            let now = seconds(round * 100);
            supervisor.started(0, 10, now);
            supervisor.ended(10, "exit status 1", now);
            pauses.push(supervisor.next_look(now).unwrap() - now);
        }
        assert!(pauses.windows(2).all(|pair| pair[1] >= pair[0]));
        assert_eq!((pauses[0], pauses[18]), (FIRST_PAUSE, LONGEST_PAUSE));
    }

    #[test]
    fn stops_the_last_first_and_kills_at_the_deadline() {
        let mut supervisor = running();
        supervisor.stop();
        assert_eq!(supervisor.due(seconds(5), |_| true), [Action::Terminate(11)]);
        assert!(supervisor.due(seconds(6), |_| true).is_empty());
        assert_eq!(supervisor.due(seconds(8), |_| true), [Action::Kill(11)]);
        supervisor.ended(11, "signal 9", seconds(8));
        assert_eq!(supervisor.due(seconds(8), |_| true), [Action::Terminate(10)]);
        supervisor.ended(10, "exit status 0", seconds(8));
        assert_eq!(supervisor.due(seconds(8), |_| true), [Action::Leave]);
    }

    #[test]
    fn an_orphan_it_reaps_is_none_of_its_services() {
        assert_eq!(running().ended(99, "exit status 0", seconds(1)), None);
    }
}
