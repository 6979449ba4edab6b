//! Topology spread: pods of one set are spread over domains (nodes, zones).
//!
//! Declared hard constraints rule nodes out, soft ones compare them. Pods that declare none but have a controller are
//! spread softly over zones and nodes, counted by controller.

use std::collections::HashMap;

use crate::framework::{Cycle, Filter, Interest, MAX_SCORE, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::placement::first_untolerated;
use crate::pod_info::{PodInfo, SpreadConstraint};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Filter and score: `spec.topologySpreadConstraints`.
pub struct TopologySpread;

/// Matching pods by domain, a map for each constraint.
#[derive(Default)]
pub struct SpreadState {
    hard: Vec<Hard>,
    soft: Vec<Soft>,
}

struct Hard {
    constraint: usize,
    counts: HashMap<String, i64>,
    fewest: i64,
    itself: i64,
}

struct Soft {
    place: Place,
    max_skew: i64,
    /// Matching pods by domain; empty where each node is its own domain.
    counts: HashMap<String, i64>,
    /// The more domains, the more a pod in one of them counts; in thousandths.
    weight: i64,
}

/// What makes the domains of a soft constraint.
enum Place {
    /// Zones, pods counted by controller.
    Zone,
    /// Nodes, pods counted by controller.
    Node,
    /// Nodes, pods counted by the declared constraint at this index.
    DeclaredNode(usize),
    /// Values of this label.
    Label(String),
}

impl Filter for TopologySpread {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Interest {
        let hard = cycle.pod.spread.iter().enumerate().filter(|(_, constraint)| constraint.hard);
        let hard: Vec<Hard> = hard.map(|(index, constraint)| count_hard(cycle, index, constraint)).collect();
        cycle.spread.hard = hard;
        if cycle.spread.hard.is_empty() { Interest::Skip } else { Interest::Ask }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        for hard in &cycle.spread.hard {
            let constraint = &cycle.pod.spread[hard.constraint];
            let Some(domain) = node.label(&constraint.topology_key) else {
                return Err(Rejection::SpreadLabel);
            };
            let count = hard.counts.get(domain).copied().unwrap_or(0);
            if count + hard.itself - hard.fewest > constraint.max_skew {
                return Err(Rejection::Spread);
            }
        }
        Ok(())
    }
}

fn count_hard(cycle: &Cycle<'_>, index: usize, constraint: &SpreadConstraint) -> Hard {
    let mut counts: HashMap<String, i64> = HashMap::new();
    for node in cycle.cache.nodes().iter().filter(|node| is_counted(cycle.pod, constraint, node)) {
        if let Some(domain) = node.label(&constraint.topology_key) {
            *counts.entry(domain.to_owned()).or_default() += matching(cycle.pod, constraint, node);
        }
    }
    let enough = constraint.min_domains.is_none_or(|wanted| counts.len() >= wanted);
    let fewest = if enough { counts.values().copied().min().unwrap_or(0) } else { 0 };
    let labels = cycle.pod.pod.metadata.labels.clone().unwrap_or_default();
    Hard { constraint: index, counts, fewest, itself: i64::from(constraint.selector.matches(&labels)) }
}

fn is_counted(pod: &PodInfo, constraint: &SpreadConstraint, node: &NodeInfo) -> bool {
    let borne = || first_untolerated(node.taints(), &pod.tolerations, &["NoSchedule", "NoExecute"]).is_none();
    node.node.is_some()
        && (!constraint.honor_affinity || pod.nodes.matches(&node.name, node.labels()))
        && (!constraint.honor_taints || borne())
}

fn matching(pod: &PodInfo, constraint: &SpreadConstraint, node: &NodeInfo) -> i64 {
    let counts = |other: &&std::sync::Arc<PodInfo>| {
        other.key.namespace == pod.key.namespace
            && other.pod.metadata.deletion_timestamp.is_none()
            && other.pod.metadata.labels.as_ref().is_some_and(|labels| constraint.selector.matches(labels))
    };
    i64::try_from(node.pods.iter().filter(counts).count()).unwrap_or(i64::MAX)
}

impl Score for TopologySpread {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score(&self, cycle: &mut Cycle<'_>, _feasible: &[usize]) -> Interest {
        let soft = if cycle.pod.spread.is_empty() { by_default(cycle) } else { declared(cycle) };
        cycle.spread.soft = soft;
        if cycle.spread.soft.is_empty() { Interest::Skip } else { Interest::Ask }
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let crowd = |soft: &Soft| {
            let of = |domain: Option<&str>| {
                domain.and_then(|domain| soft.counts.get(domain)).copied().unwrap_or(0)
            };
            let count = match &soft.place {
                Place::Zone => of(node.zone.as_deref()),
                Place::Label(key) => of(node.label(key)),
                Place::Node => {
                    let controller = cycle.pod.controller.as_ref();
                    controller.and_then(|controller| node.by_controller.get(controller)).copied().unwrap_or(0)
                }
                Place::DeclaredNode(index) => matching(cycle.pod, &cycle.pod.spread[*index], node),
            };
            count * soft.weight + (soft.max_skew - 1) * 1000
        };
        cycle.spread.soft.iter().map(crowd).sum()
    }

    fn normalize(&self, _cycle: &Cycle<'_>, scores: &mut [i64]) {
        let highest = scores.iter().copied().max().unwrap_or(0);
        let lowest = scores.iter().copied().min().unwrap_or(0);
        for score in scores {
            *score = if highest == 0 { MAX_SCORE } else { MAX_SCORE * (highest + lowest - *score) / highest };
        }
    }
}

/// Pods of one controller are spread over zones and nodes. Only nodes that have such pods are looked at.
fn by_default(cycle: &Cycle<'_>) -> Vec<Soft> {
    let Some(controller) = &cycle.pod.controller else { return Vec::new() };
    let mut counts: HashMap<String, i64> = HashMap::new();
    for node in cycle.cache.nodes_with(controller) {
        if let Some(zone) = &node.zone {
            *counts.entry(zone.clone()).or_default() +=
                node.by_controller.get(controller).copied().unwrap_or(0);
        }
    }
    let nodes = Soft {
        place: Place::Node,
        max_skew: 5,
        counts: HashMap::new(),
        weight: domain_weight(cycle.cache.nodes().len()),
    };
    let zones = cycle.cache.zones();
    if zones == 0 {
        return vec![nodes];
    }
    vec![Soft { place: Place::Zone, max_skew: 3, counts, weight: domain_weight(zones) }, nodes]
}

fn declared(cycle: &Cycle<'_>) -> Vec<Soft> {
    let soft = cycle.pod.spread.iter().enumerate().filter(|(_, constraint)| !constraint.hard);
    soft.map(|(index, constraint)| {
        let (place, counts, domains) = if constraint.topology_key == HOSTNAME {
            (Place::DeclaredNode(index), HashMap::new(), cycle.cache.nodes().len())
        } else {
            let counts = count_by_label(cycle, constraint);
            let domains = counts.len();
            (Place::Label(constraint.topology_key.clone()), counts, domains)
        };
        Soft { place, max_skew: constraint.max_skew, counts, weight: domain_weight(domains) }
    })
    .collect()
}

fn count_by_label(cycle: &Cycle<'_>, constraint: &SpreadConstraint) -> HashMap<String, i64> {
    let mut counts: HashMap<String, i64> = HashMap::new();
    for node in cycle.cache.nodes().iter().filter(|node| node.node.is_some()) {
        let Some(domain) = node.label(&constraint.topology_key) else { continue };
        let found = matching(cycle.pod, constraint, node);
        match counts.get_mut(domain) {
            Some(total) => *total += found,
            None => drop(counts.insert(domain.to_owned(), found)),
        }
    }
    counts
}

/// The natural logarithm, in thousandths.
fn domain_weight(domains: usize) -> i64 {
    ((domains as f64 + 2.0).ln() * 1000.0) as i64
}
