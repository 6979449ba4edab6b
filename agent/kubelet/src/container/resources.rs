//! CPU and memory limits of containers and pods in the kernel's units. Pure.

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use skep_wire::cri::v1;

use crate::{
    pod::{
        model::{PodModel, Role},
        qos::{self, QosClass},
    },
    quantity,
};

/// The scheduler's period, in microseconds.
pub(crate) const PERIOD: i64 = 100_000;

/// CPU shares of so many thousandths of a CPU.
pub(crate) fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

/// The quota in microseconds per [`PERIOD`].
pub(crate) fn quota(milli: i64) -> i64 {
    (milli * PERIOD / 1000).max(1000)
}

/// The cgroup v2 weight that stands for these shares.
pub(crate) fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// What one container asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Requested CPU, in thousandths.
    pub(crate) cpu_request: i64,
    /// CPU limit, in thousandths.
    pub(crate) cpu_limit: Option<i64>,
    /// Memory limit, in bytes.
    pub(crate) memory_limit: Option<i64>,
}

/// Reads the requirements.
pub(crate) fn ask(resources: Option<&ResourceRequirements>) -> Ask {
    let limit = |name: &str| resources.and_then(|r| r.limits.as_ref()?.get(name));
    let request = |name: &str| resources.and_then(|r| r.requests.as_ref()?.get(name));
    let cpu_limit = limit("cpu").and_then(quantity::milli).filter(|v| *v > 0);
    Ask {
        cpu_request: request("cpu").and_then(quantity::milli).or(cpu_limit).unwrap_or(0),
        cpu_limit,
        memory_limit: limit("memory").and_then(quantity::whole).filter(|v| *v > 0),
    }
}

/// The limits of a container for the runtime.
pub(crate) fn container(
    model: &PodModel,
    container: &Container,
    node_memory: i64,
) -> v1::LinuxContainerResources {
    let ask = ask(container.resources.as_ref());
    v1::LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: ask.cpu_limit.map_or(0, quota),
        cpu_shares: shares(ask.cpu_request),
        memory_limit_in_bytes: ask.memory_limit.unwrap_or(0),
        oom_score_adj: qos::oom_score_adj(&model.pod, container, node_memory),
        ..v1::LinuxContainerResources::default()
    }
}

/// The limits of the pod as a whole: unlimited in a dimension as soon as one container is.
pub(crate) fn pod(model: &PodModel) -> Ask {
    let sum = |role: &[Role]| {
        let asks = model
            .units
            .iter()
            .filter(|u| role.contains(&u.role))
            .map(|u| ask(u.container.resources.as_ref()));
        asks.fold(Ask { cpu_request: 0, cpu_limit: Some(0), memory_limit: Some(0) }, add)
    };
    let mut total = sum(&[Role::Main, Role::Sidecar]);
    for unit in model.of_role(Role::Init) {
        let init = ask(unit.container.resources.as_ref());
        total.cpu_request = total.cpu_request.max(init.cpu_request);
        total.cpu_limit = total.cpu_limit.zip(init.cpu_limit).map(|(a, b)| a.max(b));
        total.memory_limit = total.memory_limit.zip(init.memory_limit).map(|(a, b)| a.max(b));
    }
    if qos::class(&model.pod) == QosClass::BestEffort {
        total.cpu_request = 0;
    }
    total
}

fn add(total: Ask, one: Ask) -> Ask {
    Ask {
        cpu_request: total.cpu_request + one.cpu_request,
        cpu_limit: total.cpu_limit.zip(one.cpu_limit).map(|(a, b)| a + b),
        memory_limit: total.memory_limit.zip(one.memory_limit).map(|(a, b)| a + b),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn translates_cpu_to_shares_quota_and_weight() {
        assert_eq!(shares(1000), 1024);
        assert_eq!(shares(0), 2);
        assert_eq!(quota(250), 25_000);
        assert_eq!(quota(1), 1000);
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
    }

    #[test]
    fn a_pod_is_limited_only_if_all_its_containers_are() {
        let of = |second: serde_json::Value| {
            let limits = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
            let value = json!({"metadata": {"name": "p"}, "spec": {
                "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "2", "memory": "32Mi"}}}],
                "containers": [{"name": "a", "resources": limits}, {"name": "b", "resources": second}]}});
            pod(&PodModel::new(Arc::new(serde_json::from_value(value).unwrap())))
        };
        let both = of(json!({"limits": {"cpu": "500m", "memory": "64Mi"}}));
        assert_eq!(both, Ask { cpu_request: 2000, cpu_limit: Some(2000), memory_limit: Some(128 << 20) });
        assert_eq!(of(json!({})).memory_limit, None);
    }
}
