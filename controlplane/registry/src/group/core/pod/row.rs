//! A pod's table row: ready counts, the status word that says what is going on, restarts.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::time;

use crate::field::{at, flag, int, items, set, text};
use crate::row;

/// The cells of the pod columns.
pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let ip = items(pod, &["status", "podIPs"])
        .first()
        .map_or(text(pod, &["status", "podIP"]), |i| text(i, &["ip"]));
    vec![
        row::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.clone().into(),
        summary.restarts_cell(now),
        row::age(pod, now),
        row::or_none(ip),
        row::or_none(text(pod, &["spec", "nodeName"])),
        row::or_none(text(pod, &["status", "nominatedNodeName"])),
        readiness_gates(pod),
    ]
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    items(pod, &["status", "conditions"]).iter().find(|c| text(c, &["type"]) == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| text(c, &["status"]) == "True")
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = items(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let met = gates.iter().filter(|g| is_true(pod, text(g, &["conditionType"]))).count();
    format!("{met}/{}", gates.len()).into()
}

#[derive(Default)]
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars = items(pod, &["spec", "initContainers"]).iter().filter(|c| is_sidecar(c)).count();
        let mut out = Self { total: items(pod, &["spec", "containers"]).len() + sidecars, ..Self::default() };
        let why = text(pod, &["status", "reason"]);
        out.reason = if why.is_empty() { text(pod, &["status", "phase"]) } else { why }.to_owned();
        if condition(pod, "PodScheduled").is_some_and(|c| text(c, &["reason"]) == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut out.reason);
        }
        let initializing = out.init_containers(pod);
        if !initializing || is_true(pod, "Initialized") {
            out.containers(pod);
        }
        if set(pod, &["metadata", "deletionTimestamp"]) {
            if why == "NodeLost" {
                "Unknown".clone_into(&mut out.reason);
            } else if !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut out.reason);
            }
        }
        out
    }

    /// Counts init containers; whether one of them still holds the pod up.
    fn init_containers(&mut self, pod: &Value) -> bool {
        let specs = items(pod, &["spec", "initContainers"]);
        let sidecar = |name: &str| specs.iter().any(|c| text(c, &["name"]) == name && is_sidecar(c));
        let mut sidecar_restarts = 0;
        for (i, status) in items(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
            let is_sidecar = sidecar(text(status, &["name"]));
            self.count_restarts(status);
            if is_sidecar {
                sidecar_restarts += int(status, &["restartCount"]).unwrap_or(0);
            }
            if int(status, &["state", "terminated", "exitCode"]) == Some(0) && !is_sidecar {
                continue;
            }
            if is_sidecar && flag(status, &["started"]) {
                self.ready += usize::from(flag(status, &["ready"]));
                continue;
            }
            self.reason = init_reason(status).unwrap_or_else(|| format!("Init:{i}/{}", specs.len()));
            return true;
        }
        self.restarts = sidecar_restarts;
        false
    }

    fn containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in items(pod, &["status", "containerStatuses"]).iter().rev() {
            self.count_restarts(status);
            let waiting = text(status, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(terminated) = at(status, &["state", "terminated"]) {
                self.reason = ended(terminated, "");
            } else if flag(status, &["ready"]) && at(status, &["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if is_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += int(status, &["restartCount"]).unwrap_or(0);
        let finished = time::parse(text(status, &["lastState", "terminated", "finishedAt"]));
        self.last_restart = self.last_restart.max(finished);
    }

    fn restarts_cell(&self, now: Timestamp) -> Value {
        match self.last_restart.filter(|_| self.restarts > 0) {
            Some(at) => format!("{} ({} ago)", self.restarts, time::age(at, now)).into(),
            None => self.restarts.to_string().into(),
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    text(container, &["restartPolicy"]) == "Always"
}

fn init_reason(status: &Value) -> Option<String> {
    if let Some(terminated) = at(status, &["state", "terminated"]) {
        return Some(ended(terminated, "Init:"));
    }
    let waiting = text(status, &["state", "waiting", "reason"]);
    (!matches!(waiting, "" | "PodInitializing")).then(|| format!("Init:{waiting}"))
}

fn ended(terminated: &Value, prefix: &str) -> String {
    let reason = text(terminated, &["reason"]);
    match int(terminated, &["signal"]).unwrap_or(0) {
        _ if !reason.is_empty() => format!("{prefix}{reason}"),
        0 => format!("{prefix}ExitCode:{}", int(terminated, &["exitCode"]).unwrap_or(0)),
        signal => format!("{prefix}Signal:{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(status: &Value) -> String {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]});
        Summary::of(&json!({"metadata": {}, "spec": spec, "status": status})).reason
    }

    #[test]
    fn says_what_a_pod_waits_for() {
        let waiting =
            json!({"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3});
        assert_eq!(reason(&json!({"phase": "Running", "containerStatuses": [waiting]})), "CrashLoopBackOff");
        let init = json!({"name": "i", "state": {"running": {}}});
        assert_eq!(reason(&json!({"phase": "Pending", "initContainerStatuses": [init]})), "Init:0/1");
        let failed = json!({"name": "i", "state": {"terminated": {"exitCode": 2}}});
        assert_eq!(
            reason(&json!({"phase": "Pending", "initContainerStatuses": [failed]})),
            "Init:ExitCode:2"
        );
        assert_eq!(reason(&json!({"phase": "Pending"})), "Pending");
    }

    #[test]
    fn deletion_shows_unless_the_pod_has_ended() {
        let pod = |phase: &str| json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": phase}});
        assert_eq!(Summary::of(&pod("Running")).reason, "Terminating");
        assert_eq!(Summary::of(&pod("Succeeded")).reason, "Succeeded");
    }

    #[test]
    fn restarts_say_when_the_last_one_was() {
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "c", "ready": true, "restartCount": 2,
            "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}}]});
        let pod = json!({"spec": {"containers": [{"name": "c"}]}, "status": status});
        let now = time::parse("2026-01-01T00:00:30Z").unwrap();
        let cells = cells(&pod, now);
        assert_eq!((&cells[1], &cells[3]), (&json!("1/1"), &json!("2 (30s ago)")));
    }
}
