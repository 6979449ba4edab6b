//! The groups with few resources: autoscaling, policy, certificates, coordination, scheduling, node, admission,
//! extensions, flow control.

use crate::strategy::Strategy;

pub(crate) mod admission_policy;
pub(crate) mod autoscaler;
pub(crate) mod custom_resource;
pub(crate) mod disruption_budget;
pub(crate) mod flow;
pub(crate) mod lease;
pub(crate) mod priority_class;
pub(crate) mod runtime_class;
pub(crate) mod signing_request;
pub(crate) mod webhook;

pub(super) fn strategy(group: &str, plural: &str) -> Option<&'static Strategy> {
    Some(match (group, plural) {
        ("autoscaling", "horizontalpodautoscalers") => &autoscaler::STRATEGY,
        ("policy", "poddisruptionbudgets") => &disruption_budget::STRATEGY,
        ("certificates.k8s.io", "certificatesigningrequests") => &signing_request::STRATEGY,
        ("coordination.k8s.io", "leases") => &lease::STRATEGY,
        ("scheduling.k8s.io", "priorityclasses") => &priority_class::STRATEGY,
        ("node.k8s.io", "runtimeclasses") => &runtime_class::STRATEGY,
        (_, "validatingwebhookconfigurations") => &webhook::VALIDATING,
        (_, "mutatingwebhookconfigurations") => &webhook::MUTATING,
        (_, "validatingadmissionpolicies") => &admission_policy::VALIDATING,
        (_, "mutatingadmissionpolicies") => &admission_policy::MUTATING,
        (_, "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings") => {
            &admission_policy::BINDINGS
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => &custom_resource::STRATEGY,
        (_, "flowschemas") => &flow::SCHEMAS,
        (_, "prioritylevelconfigurations") => &flow::LEVELS,
        _ => return None,
    })
}
