//! The node's status: addresses, capacity, conditions, images. Pure.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
        NodeSystemInfo,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::machine::Machine;
use crate::shared::RuntimeState;

/// What the status is made of.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    /// The node's name.
    pub(crate) name: &'a str,
    /// Its addresses.
    pub(crate) ips: &'a [String],
    /// The machine.
    pub(crate) machine: &'a Machine,
    /// The runtime's name and version.
    pub(crate) runtime_version: &'a str,
    /// The runtime's state.
    pub(crate) runtime: &'a RuntimeState,
    /// What presses on the node.
    pub(crate) pressure: Pressure,
    /// Images on the node.
    pub(crate) images: Vec<ContainerImage>,
    /// Port of the kubelet API.
    pub(crate) port: u16,
}

/// What presses on the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Memory runs out.
    pub(crate) memory: bool,
    /// Disk runs out.
    pub(crate) disk: bool,
    /// Process ids run out.
    pub(crate) pids: bool,
}

/// The status, conditions keeping the transition times of `known` where nothing changed.
pub(crate) fn status(facts: Facts<'_>, known: &[NodeCondition], now: Timestamp) -> NodeStatus {
    let machine = facts.machine;
    let mut addresses: Vec<_> = facts.ips.iter().map(|ip| address("InternalIP", ip)).collect();
    addresses.push(address("Hostname", facts.name));
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(machine.capacity.clone()),
        allocatable: Some(machine.allocatable.clone()),
        conditions: Some(conditions(&facts, known, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: facts.runtime_version.to_owned(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: concat!("v1.36.0+skep-", env!("CARGO_PKG_VERSION")).to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            swap: None,
            system_uuid: machine.system_uuid.clone(),
        }),
        images: Some(facts.images),
        ..NodeStatus::default()
    }
}

/// Whether the API shows the node as `status` does: a controller that hears nothing of a node marks it.
pub(crate) fn agrees(seen: &NodeStatus, status: &NodeStatus) -> bool {
    let seen_conditions = seen.conditions.as_deref().unwrap_or_default();
    let same = |c: &NodeCondition| {
        seen_conditions.iter().any(|s| s.type_ == c.type_ && s.status == c.status && s.reason == c.reason)
    };
    status.conditions.iter().flatten().all(same)
}

fn address(kind: &str, address: &str) -> NodeAddress {
    NodeAddress { type_: kind.to_owned(), address: address.to_owned() }
}

fn conditions(facts: &Facts<'_>, known: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let pressure = |kind: &'static str, presses: bool, [good, bad]: [&'static str; 2], what: &str| {
        let message = format!("kubelet has {}{what}", if presses { "" } else { "sufficient " });
        (kind, presses, if presses { bad } else { good }, message)
    };
    let p = facts.pressure;
    let derived = [
        pressure(
            "MemoryPressure",
            p.memory,
            ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
            "memory",
        ),
        pressure(
            "DiskPressure",
            p.disk,
            ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
            "disk pressure",
        ),
        pressure("PIDPressure", p.pids, ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"], "PIDs"),
        ready(facts.runtime),
    ];
    derived
        .into_iter()
        .map(|(kind, holds, reason, message)| stamp(kind, holds, reason, message, known, now))
        .collect()
}

fn ready(runtime: &RuntimeState) -> (&'static str, bool, &'static str, String) {
    if !runtime.runtime_ready {
        return (
            "Ready",
            false,
            "KubeletNotReady",
            format!("container runtime is down: {}", runtime.message),
        );
    }
    if !runtime.network_ready {
        let message = format!("container runtime network not ready: {}", runtime.message);
        return ("Ready", false, "KubeletNotReady", message);
    }
    ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned())
}

fn stamp(
    kind: &str,
    holds: bool,
    reason: &str,
    message: String,
    known: &[NodeCondition],
    now: Timestamp,
) -> NodeCondition {
    let status = if holds { "True" } else { "False" };
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let before = known.iter().find(|c| c.type_ == kind && c.status == status);
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(before.and_then(|c| c.last_transition_time.clone()).unwrap_or(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(machine: &'a Machine, runtime: &'a RuntimeState, ips: &'a [String]) -> Facts<'a> {
        Facts {
            name: "n",
            ips,
            machine,
            runtime_version: "containerd://1",
            runtime,
            pressure: Pressure::default(),
            images: Vec::new(),
            port: 10250,
        }
    }

    #[test]
    fn is_not_ready_without_a_network_and_says_why() {
        let machine = Machine::default();
        let runtime =
            RuntimeState { runtime_ready: true, network_ready: false, message: "no CNI config".into() };
        let status = status(facts(&machine, &runtime, &["10.0.0.1".to_owned()]), &[], Timestamp::UNIX_EPOCH);
        let conditions = status.conditions.unwrap();
        let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(ready.status, "False");
        assert!(ready.message.as_deref().unwrap().contains("no CNI config"));
        assert_eq!(status.addresses.unwrap().len(), 2);
    }

    #[test]
    fn a_node_that_was_taken_for_lost_disagrees() {
        let machine = Machine::default();
        let runtime = RuntimeState { runtime_ready: true, network_ready: true, message: String::new() };
        let own = status(facts(&machine, &runtime, &[]), &[], Timestamp::UNIX_EPOCH);
        assert!(agrees(&own, &own));
        let mut seen = own.clone();
        for condition in seen.conditions.iter_mut().flatten() {
            condition.status = "Unknown".to_owned();
        }
        assert!(!agrees(&seen, &own));
    }

    #[test]
    fn a_condition_that_stays_keeps_its_transition_time() {
        let machine = Machine::default();
        let runtime = RuntimeState { runtime_ready: true, network_ready: true, message: String::new() };
        let at = |s| Timestamp::from_second(s).unwrap();
        let first = status(facts(&machine, &runtime, &[]), &[], at(10)).conditions.unwrap();
        let second = status(facts(&machine, &runtime, &[]), &first, at(20)).conditions.unwrap();
        assert_eq!(second[3].last_transition_time, Some(Time(at(10))));
        assert_eq!(second[3].last_heartbeat_time, Some(Time(at(20))));
    }
}
