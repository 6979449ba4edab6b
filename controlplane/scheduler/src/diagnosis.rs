//! Why a pod fits nowhere, in the words that users of `kubectl describe` know.

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::framework::{Rejection, Rules, Shortage};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// A pod fits on none of the nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FitError {
    /// For people: how many nodes, and how many for each reason.
    pub message: String,
    /// The rules that rejected nodes: a change that concerns none of them cannot help.
    pub rules: Rules,
}

impl FitError {
    /// Sums up why each node (by index) was ruled out.
    pub fn new(cache: &Cache, pod: &PodInfo, rejections: &[(usize, Rejection)]) -> Self {
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut rules = Rules::default();
        for (index, rejection) in rejections {
            rules.insert(rejection.rule());
            let Some(node) = cache.nodes().get(*index) else { continue };
            for reason in reasons_of(*rejection, node, pod) {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        if rejections.is_empty() {
            return Self { message: "no nodes available to schedule pods".to_owned(), rules };
        }
        let mut parts: Vec<String> =
            reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort_unstable();
        let message = format!("0/{} nodes are available: {}. ", rejections.len(), parts.join(", "));
        Self { message, rules }
    }
}

fn reasons_of(rejection: Rejection, node: &NodeInfo, pod: &PodInfo) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match rejection {
        Rejection::NodeName => one("node(s) didn't match the requested node name"),
        Rejection::Unschedulable => one("node(s) were unschedulable"),
        Rejection::Taint(index) => node
            .taints()
            .get(index)
            .map(|taint| {
                let value = taint.value.as_deref().unwrap_or_default();
                format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)
            })
            .into_iter()
            .collect(),
        Rejection::NodeAffinity => one("node(s) didn't match Pod's node affinity/selector"),
        Rejection::Ports => one("node(s) didn't have free ports for the requested pod ports"),
        Rejection::Shortage(shortage) => shortages(shortage, pod),
        Rejection::Spread => one("node(s) didn't match pod topology spread constraints"),
        Rejection::SpreadLabel => {
            one("node(s) didn't match pod topology spread constraints (missing required label)")
        }
        Rejection::PodAffinity => one("node(s) didn't match pod affinity rules"),
        Rejection::PodAntiAffinity => one("node(s) didn't match pod anti-affinity rules"),
        Rejection::ExistingAntiAffinity => one("node(s) didn't satisfy existing pods anti-affinity rules"),
    }
}

fn shortages(shortage: Shortage, pod: &PodInfo) -> Vec<String> {
    let mut reasons = Vec::new();
    if shortage.0 & Shortage::PODS != 0 {
        reasons.push("Too many pods".to_owned());
    }
    let named =
        [(Shortage::CPU, "cpu"), (Shortage::MEMORY, "memory"), (Shortage::EPHEMERAL, "ephemeral-storage")];
    reasons.extend(
        named.iter().filter(|(bit, _)| shortage.0 & bit != 0).map(|(_, name)| format!("Insufficient {name}")),
    );
    for (index, (name, _)) in pod.requests.scalars.iter().enumerate().take(60) {
        if shortage.0 & (1 << (Shortage::SCALARS as usize + index)) != 0 {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}
