//! PodDisruptionBudgets.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, int};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    unconditional_update: false,
    validate,
    row: |budget, now| {
        let share = |name: &str| match at(budget, &["spec", name]) {
            Some(Value::String(s)) => Value::from(s.as_str()),
            Some(number) => number.to_string().into(),
            None => "N/A".into(),
        };
        vec![
            row::name(budget),
            share("minAvailable"),
            share("maxUnavailable"),
            int(budget, &["status", "disruptionsAllowed"]).unwrap_or(0).into(),
            row::age(budget, now),
        ]
    },
    ..Strategy::WITH_STATUS
};

fn validate(budget: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &budget["spec"];
    if at(spec, &["minAvailable"]).is_some() && at(spec, &["maxUnavailable"]).is_some() {
        errors.invalid(&path, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for name in ["minAvailable", "maxUnavailable"] {
        if let Some(value) = at(spec, &[name]) {
            check::count_or_percent(value, &path.field(name), errors);
            check::at_most_all(value, &path.field(name), errors);
        }
    }
    check::selector(spec.get("selector"), &path.field("selector"), errors);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    check::one_of(spec, "unhealthyPodEvictionPolicy", &policies, &path, errors);
}
