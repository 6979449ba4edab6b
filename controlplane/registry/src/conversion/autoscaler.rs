//! autoscaling/v1 knows one metric, the CPU target; autoscaling/v2 has a list of them, of which it is one.
//!
//! Other metrics and the behavior survive a v1 round trip in annotations, as upstream keeps them.

use serde_json::{Value, json};

use crate::field::{at, items, object, remove};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

fn is_cpu_share(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && at(metric, &["resource", "target", "averageUtilization"]).is_some()
}

fn annotate(autoscaler: &mut Value, key: &str, value: &Value) {
    object(object(autoscaler, "metadata"), "annotations")[key] = value.to_string().into();
}

fn annotated(autoscaler: &mut Value, key: &str) -> Option<Value> {
    let text = remove(autoscaler.get_mut("metadata")?.get_mut("annotations")?, key)?;
    serde_json::from_str(text.as_str()?).ok()
}

/// To the v2 form.
pub(super) fn to_v2(autoscaler: &mut Value) {
    let mut metrics = match annotated(autoscaler, METRICS) {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    if let Some(spec) = autoscaler.get_mut("spec") {
        if let Some(share) = remove(spec, "targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": share});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if metrics.is_empty() {
            // The old version's way of saying nothing: a share of the CPU.
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        spec["metrics"] = metrics.into();
    }
    if let Some(behavior) = annotated(autoscaler, BEHAVIOR) {
        object(autoscaler, "spec")["behavior"] = behavior;
    }
    let (conditions, mut current) = (annotated(autoscaler, CONDITIONS), annotated(autoscaler, CURRENT));
    let share = autoscaler.get_mut("status").and_then(|s| remove(s, "currentCPUUtilizationPercentage"));
    if let Some(share) = share {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": share}}});
        match &mut current {
            Some(Value::Array(list)) => list.insert(0, cpu),
            _ => current = Some(json!([cpu])),
        }
    }
    for (name, value) in [("conditions", conditions), ("currentMetrics", current)] {
        if let Some(value) = value {
            object(autoscaler, "status")[name] = value;
        }
    }
}

/// To the v1 form.
pub(super) fn to_v1(autoscaler: &mut Value) {
    let (mut share, mut others) = (None, Vec::new());
    for metric in items(autoscaler, &["spec", "metrics"]) {
        if share.is_none() && is_cpu_share(metric) {
            share = Some(metric["resource"]["target"]["averageUtilization"].clone());
        } else {
            others.push(metric.clone());
        }
    }
    let mut behavior = None;
    if let Some(spec) = autoscaler.get_mut("spec") {
        remove(spec, "metrics");
        behavior = remove(spec, "behavior");
        if let Some(share) = share {
            spec["targetCPUUtilizationPercentage"] = share;
        }
    }
    let (mut conditions, mut current) = (None, None);
    if let Some(status) = autoscaler.get_mut("status") {
        conditions = remove(status, "conditions");
        current = remove(status, "currentMetrics");
        let cpu = current.as_ref().and_then(Value::as_array).and_then(|list| {
            list.iter().find_map(|m| at(m, &["resource", "current", "averageUtilization"]).cloned())
        });
        if let Some(cpu) = cpu {
            status["currentCPUUtilizationPercentage"] = cpu;
        }
    }
    if !others.is_empty() {
        annotate(autoscaler, METRICS, &others.into());
    }
    for (key, value) in [(BEHAVIOR, behavior), (CONDITIONS, conditions), (CURRENT, current)] {
        if let Some(value) = value {
            annotate(autoscaler, key, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_target_becomes_a_metric_and_back() {
        let mut autoscaler =
            json!({"metadata": {}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}});
        let before = autoscaler.clone();
        to_v2(&mut autoscaler);
        assert_eq!(autoscaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
        to_v1(&mut autoscaler);
        assert_eq!(autoscaler, before);
    }

    #[test]
    fn other_metrics_survive_the_old_version() {
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "x"}}});
        let mut autoscaler = json!({"metadata": {}, "spec": {"maxReplicas": 3, "metrics": [pods]}});
        let metrics = autoscaler["spec"]["metrics"].clone();
        to_v1(&mut autoscaler);
        assert!(autoscaler["spec"].get("metrics").is_none());
        to_v2(&mut autoscaler);
        assert_eq!(autoscaler["spec"]["metrics"], metrics);
    }
}
