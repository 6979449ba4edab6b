//! HorizontalPodAutoscalers, in both versions.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, int, items, object, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const METRICS: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

pub(crate) static STRATEGY: Strategy = Strategy {
    status: true,
    default,
    prepare_create: |hpa| hpa["status"] = json!({"desiredReplicas": 0, "currentMetrics": null}),
    validate,
    row: cells,
    ..Strategy::BASE
};

fn is_old(hpa: &Value) -> bool {
    text(hpa, &["apiVersion"]) == "autoscaling/v1"
}

fn default(hpa: &mut Value) {
    let old = is_old(hpa);
    let spec = object(hpa, "spec");
    fill(spec, "minReplicas", 1);
    if old {
        return;
    }
    if items(spec, &["metrics"]).is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    }
    if at(spec, &["behavior"]).is_some() {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let behavior = object(spec, "behavior");
        for (name, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
            let rules = object(behavior, name);
            fill_empty(rules, "selectPolicy", "Max");
            if name == "scaleUp" {
                fill(rules, "stabilizationWindowSeconds", 0);
            }
            fill(rules, "policies", policies);
        }
    }
}

fn validate(hpa: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &hpa["spec"];
    let (least, most) = (int(spec, &["minReplicas"]).unwrap_or(1), int(spec, &["maxReplicas"]).unwrap_or(0));
    if least < 1 {
        errors.invalid(&path.field("minReplicas"), least, "must be greater than or equal to 1");
    }
    if most < 1 {
        errors.invalid(&path.field("maxReplicas"), most, "must be greater than 0");
    }
    if most < least {
        errors.invalid(&path.field("maxReplicas"), most, "must be greater than or equal to `minReplicas`");
    }
    let target = path.field("scaleTargetRef");
    for name in ["kind", "name"] {
        check::required(&spec["scaleTargetRef"], name, &target, errors);
    }
    let list = path.field("metrics");
    for (i, one) in items(spec, &["metrics"]).iter().enumerate() {
        metric(one, &list.index(i), errors);
    }
    let behavior = path.field("behavior");
    for name in ["scaleUp", "scaleDown"] {
        if let Some(rules) = at(spec, &["behavior", name]) {
            scaling(rules, &behavior.field(name), errors);
        }
    }
}

fn metric(metric: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(metric, &["type"]);
    if kind.is_empty() {
        return errors.required(&path.field("type"), "must specify a metric source type");
    }
    if !METRICS.contains(&kind) {
        return errors.not_supported(&path.field("type"), kind, METRICS);
    }
    let mut field = kind.to_owned();
    field[..1].make_ascii_lowercase();
    let path = path.field(&field);
    let Some(source) = at(metric, &[&field]) else {
        return errors.required(&path, "must populate information for the given metric source");
    };
    if matches!(kind, "Resource" | "ContainerResource") {
        check::required(source, "name", &path, errors);
    }
    let target = path.field("target");
    let goal = &source["target"];
    if text(goal, &["type"]).is_empty() {
        errors.required(&target.field("type"), "must specify a metric target type");
    } else {
        check::one_of(goal, "type", &["AverageValue", "Utilization", "Value"], &target, errors);
    }
    if let Some(share) = int(goal, &["averageUtilization"]).filter(|s| *s < 1) {
        errors.invalid(&target.field("averageUtilization"), share, "must be greater than 0");
    }
    for name in ["value", "averageValue"] {
        if let Some(amount) = at(goal, &[name]).filter(|a| check::quantity(a).signum() != 1) {
            errors.invalid(&target.field(name), amount.clone(), "must be positive");
        }
    }
}

fn scaling(rules: &Value, path: &Path<'_>, errors: &mut Errors) {
    let window = int(rules, &["stabilizationWindowSeconds"]).unwrap_or(0);
    if !(0..=3600).contains(&window) {
        errors.invalid(&path.field("stabilizationWindowSeconds"), window, "must be between 0 and 3600");
    }
    check::one_of(rules, "selectPolicy", &["Disabled", "Max", "Min"], path, errors);
    let list = path.field("policies");
    if items(rules, &["policies"]).is_empty() {
        errors.required(&list, "must specify at least one Policy");
    }
    for (i, policy) in items(rules, &["policies"]).iter().enumerate() {
        let path = list.index(i);
        check::one_of(policy, "type", &["Percent", "Pods"], &path, errors);
        for name in ["value", "periodSeconds"] {
            let number = int(policy, &[name]).unwrap_or(0);
            if number <= 0 {
                errors.invalid(&path.field(name), number, "must be greater than zero");
            }
        }
    }
}

fn cells(hpa: &Value, now: Timestamp) -> Vec<Value> {
    let converted = crate::conversion::Conversion::Autoscaler.to_storage(hpa, "autoscaling/v2");
    let hpa = converted.as_ref().filter(|_| is_old(hpa)).unwrap_or(hpa);
    let target = &hpa["spec"]["scaleTargetRef"];
    let least = int(hpa, &["spec", "minReplicas"]).map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    vec![
        row::name(hpa),
        format!("{}/{}", text(target, &["kind"]), text(target, &["name"])).into(),
        targets(hpa).into(),
        least.into(),
        int(hpa, &["spec", "maxReplicas"]).unwrap_or(0).into(),
        int(hpa, &["status", "currentReplicas"]).unwrap_or(0).into(),
        row::age(hpa, now),
    ]
}

fn targets(hpa: &Value) -> String {
    let current = items(hpa, &["status", "currentMetrics"]);
    let one = |i: usize, metric: &Value| {
        let kind = text(metric, &["type"]);
        let mut field = kind.to_owned();
        field.get_mut(..1).map(str::make_ascii_lowercase);
        let source = &metric[&field];
        let now = current.get(i).map(|c| &c[&field]["current"]);
        if let Some(share) = int(source, &["target", "averageUtilization"]) {
            let now = now.and_then(|c| int(c, &["averageUtilization"]));
            let now = now.map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%"));
            return format!("{}: {now}/{share}%", text(source, &["name"]));
        }
        let average = at(source, &["target", "averageValue"]).is_some();
        let name = if average { "averageValue" } else { "value" };
        let now = now.map(|c| text(c, &[name])).filter(|v| !v.is_empty()).unwrap_or("<unknown>");
        let goal = text(source, &["target", name]);
        let prefix =
            if kind == "Resource" { format!("{}: ", text(source, &["name"])) } else { String::new() };
        format!("{prefix}{now}/{goal}{}", if average && kind != "Resource" { " (avg)" } else { "" })
    };
    let metrics = items(hpa, &["spec", "metrics"]);
    let mut shown: Vec<String> = metrics.iter().enumerate().take(2).map(|(i, m)| one(i, m)).collect();
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    if metrics.len() > 2 {
        shown.push(format!("{} more...", metrics.len() - 2));
        return format!("{} + {}", shown[..2].join(", "), shown[2]);
    }
    shown.join(", ")
}
