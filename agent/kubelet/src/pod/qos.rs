//! Quality of service: the class of a pod and what follows from it (cgroup parent, OOM score). Pure.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::quantity;

/// The three classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QosClass {
    /// Every container limits CPU and memory and requests as much.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is requested.
    BestEffort,
}

impl QosClass {
    /// The name in `status.qosClass`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod.
pub(crate) fn class(pod: &Pod) -> QosClass {
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    if !containers.iter().any(|c| asks(c.resources.as_ref())) {
        return QosClass::BestEffort;
    }
    if containers.iter().all(|c| is_guaranteed(c.resources.as_ref())) {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

fn amount(resources: Option<&ResourceRequirements>, limit: bool, name: &str) -> Option<i64> {
    let resources = resources?;
    let list = if limit { &resources.limits } else { &resources.requests };
    list.as_ref()?.get(name).and_then(quantity::milli).filter(|v| *v > 0)
}

fn asks(resources: Option<&ResourceRequirements>) -> bool {
    ["cpu", "memory"]
        .iter()
        .any(|name| amount(resources, true, name).is_some() || amount(resources, false, name).is_some())
}

fn is_guaranteed(resources: Option<&ResourceRequirements>) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = amount(resources, true, name);
        limit.is_some() && amount(resources, false, name).is_none_or(|request| Some(request) == limit)
    })
}

/// The OOM score adjustment of a container: the less it uses of what it asked for, the safer it is.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i64) -> i64 {
    const NODE_CRITICAL: i32 = 2_000_000_000;
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    if priority >= NODE_CRITICAL {
        return -997;
    }
    match class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = memory_request(container).unwrap_or(0);
            let share = 1000i128 * i128::from(request) / i128::from(node_memory.max(1));
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// The memory a container requests, or its limit where only that is given.
pub(crate) fn memory_request(container: &Container) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    let of = |list: &Option<std::collections::BTreeMap<String, _>>| {
        list.as_ref().and_then(|l| l.get("memory")).and_then(quantity::whole)
    };
    of(&resources.requests).or_else(|| of(&resources.limits))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: &[serde_json::Value]) -> Pod {
        let containers: Vec<_> = resources
            .iter()
            .enumerate()
            .map(|(i, r)| json!({"name": format!("c{i}"), "resources": r}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}))
            .unwrap()
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(class(&pod(&[json!({})])), QosClass::BestEffort);
        assert_eq!(class(&pod(std::slice::from_ref(&full))), QosClass::Guaranteed);
        assert_eq!(class(&pod(&[full.clone(), json!({})])), QosClass::Burstable);
        let less =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(class(&pod(&[less])), QosClass::Burstable);
    }

    #[test]
    fn burstable_containers_are_safer_the_more_they_request() {
        let p = pod(&[json!({"requests": {"memory": "1Gi"}})]);
        let container = &p.spec.as_ref().unwrap().containers[0];
        assert_eq!(oom_score_adj(&p, container, 4 << 30), 750);
        assert_eq!(oom_score_adj(&p, container, 1 << 30), 3);
    }
}
