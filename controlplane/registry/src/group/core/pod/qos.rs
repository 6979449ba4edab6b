//! The quality-of-service class of a pod.

use serde_json::Value;

use crate::check::quantity;
use crate::field::{at, items};

/// Guaranteed when every container's CPU and memory requests equal its limits, Burstable when any is given.
pub(super) fn class(pod: &Value) -> &'static str {
    let containers: Vec<&Value> =
        items(pod, &["spec", "containers"]).iter().chain(items(pod, &["spec", "initContainers"])).collect();
    let amount = |c: &Value, kind: &str, name: &str| {
        at(c, &["resources", kind, name]).map(quantity).filter(|q| q.signum() > 0)
    };
    let (mut any, mut equal) = (false, true);
    let pod_level = pod.get("spec").filter(|spec| at(spec, &["resources"]).is_some());
    let considered = pod_level.map_or(containers, |spec| vec![spec]);
    for container in considered {
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount(container, "requests", name), amount(container, "limits", name));
            any |= request.is_some() || limit.is_some();
            equal &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(resources: &Value) -> &'static str {
        class(&json!({"spec": {"containers": [{"resources": resources}]}}))
    }

    #[test]
    fn tells_the_three_classes_apart() {
        assert_eq!(of(&json!({})), "BestEffort");
        assert_eq!(of(&json!({"requests": {"cpu": "1"}})), "Burstable");
        let all = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(of(&json!({"requests": all, "limits": all})), "Guaranteed");
        assert_eq!(of(&json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": all})), "Burstable");
    }
}
