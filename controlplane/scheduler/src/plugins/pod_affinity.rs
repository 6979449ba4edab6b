//! Pod affinity and anti-affinity: near or away from other pods, by domain.
//!
//! Anti-affinity works both ways: a pod on a node may keep others out of its domain.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Cache;
use crate::framework::{Cycle, Filter, Interest, MAX_SCORE, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::{AffinityTerm, PodInfo};

/// Filter and score: `spec.affinity.podAffinity`, `spec.affinity.podAntiAffinity`.
pub struct PodAffinity;

/// Matching pods by domain.
#[derive(Default)]
pub struct AffinityState {
    /// For each required term.
    near: Vec<HashMap<String, i64>>,
    /// For each required anti-affinity term.
    away: Vec<HashMap<String, i64>>,
    /// Domains (key, value) that existing pods keep this one out of.
    barred: HashMap<(String, String), i64>,
    /// Whether the pod is the first of a group that wants its own company.
    first: bool,
    /// Sums of preferences by domain (key, value).
    preferred: HashMap<(String, String), i64>,
}

impl Filter for PodAffinity {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Interest {
        let pod = cycle.pod;
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() && !cycle.cache.has_affinity_pods() {
            return Interest::Skip;
        }
        let near: Vec<_> = pod.affinity.iter().map(|term| count(cycle.cache, term)).collect();
        let itself = pod.affinity.iter().all(|term| selects(cycle.cache, term, pod));
        cycle.affinity.first = itself && near.iter().all(HashMap::is_empty);
        cycle.affinity.near = near;
        cycle.affinity.away = pod.anti_affinity.iter().map(|term| count(cycle.cache, term)).collect();
        cycle.affinity.barred = barred(cycle.cache, pod);
        Interest::Ask
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        let state = &cycle.affinity;
        for (term, counts) in cycle.pod.affinity.iter().zip(&state.near) {
            let domain = node.label(&term.topology_key).ok_or(Rejection::PodAffinity)?;
            if !state.first && !counts.contains_key(domain) {
                return Err(Rejection::PodAffinity);
            }
        }
        for (term, counts) in cycle.pod.anti_affinity.iter().zip(&state.away) {
            if node.label(&term.topology_key).is_some_and(|domain| counts.contains_key(domain)) {
                return Err(Rejection::PodAntiAffinity);
            }
        }
        let kept_out = |(key, value): &(String, String)| node.label(key) == Some(value.as_str());
        if state.barred.keys().any(kept_out) { Err(Rejection::ExistingAntiAffinity) } else { Ok(()) }
    }
}

/// Pods that `term` selects, by domain.
fn count(cache: &Cache, term: &AffinityTerm) -> HashMap<String, i64> {
    let mut counts: HashMap<String, i64> = HashMap::new();
    for node in cache.nodes() {
        let Some(domain) = node.label(&term.topology_key) else { continue };
        let found = node.pods.iter().filter(|other| selects(cache, term, other)).count();
        if found > 0 {
            *counts.entry(domain.to_owned()).or_default() += i64::try_from(found).unwrap_or(i64::MAX);
        }
    }
    counts
}

/// Whether `term` means `pod`.
fn selects(cache: &Cache, term: &AffinityTerm, pod: &PodInfo) -> bool {
    let namespace = &pod.key.namespace;
    let by_label = || match (&term.namespace_selector, cache.namespace_labels(namespace)) {
        (Some(selector), Some(labels)) => selector.matches(labels),
        (Some(selector), None) => selector.is_empty(),
        (None, _) => false,
    };
    (term.namespaces.contains(namespace) || by_label())
        && pod.pod.metadata.labels.as_ref().is_some_and(|labels| term.selector.matches(labels))
}

/// Existing pods with terms, and the nodes they are on.
fn with_terms(cache: &Cache) -> impl Iterator<Item = (&NodeInfo, &Arc<PodInfo>)> {
    let nodes = cache.nodes().iter().filter(|node| node.affinity_pods > 0);
    nodes.flat_map(|node| node.pods.iter().filter(|pod| pod.has_pod_affinity()).map(move |pod| (node, pod)))
}

fn barred(cache: &Cache, pod: &PodInfo) -> HashMap<(String, String), i64> {
    let mut barred = HashMap::new();
    for (node, other) in with_terms(cache) {
        for term in other.anti_affinity.iter().filter(|term| selects(cache, term, pod)) {
            if let Some(domain) = node.label(&term.topology_key) {
                *barred.entry((term.topology_key.clone(), domain.to_owned())).or_default() += 1;
            }
        }
    }
    barred
}

impl Score for PodAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score(&self, cycle: &mut Cycle<'_>, _feasible: &[usize]) -> Interest {
        let mut sums: HashMap<(String, String), i64> = HashMap::new();
        let mut add = |term: &AffinityTerm, node: &NodeInfo, weight: i64| {
            if let Some(domain) = node.label(&term.topology_key) {
                *sums.entry((term.topology_key.clone(), domain.to_owned())).or_default() += weight;
            }
        };
        for (weight, term) in &cycle.pod.preferred_pods {
            for node in cycle.cache.nodes() {
                let found = node.pods.iter().filter(|other| selects(cycle.cache, term, other)).count();
                if found > 0 {
                    add(term, node, weight * i64::try_from(found).unwrap_or(i64::MAX));
                }
            }
        }
        for (node, other) in with_terms(cycle.cache) {
            // A pod that must be near this one would rather have it near too.
            let hard = other.affinity.iter().map(|term| (1, term));
            for (weight, term) in
                hard.chain(other.preferred_pods.iter().map(|(weight, term)| (*weight, term)))
            {
                if selects(cycle.cache, term, cycle.pod) {
                    add(term, node, weight);
                }
            }
        }
        cycle.affinity.preferred = sums;
        if cycle.affinity.preferred.is_empty() { Interest::Skip } else { Interest::Ask }
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let here = |((key, value), _): &(&(String, String), &i64)| node.label(key) == Some(value.as_str());
        cycle.affinity.preferred.iter().filter(here).map(|(_, weight)| weight).sum()
    }

    fn normalize(&self, _cycle: &Cycle<'_>, scores: &mut [i64]) {
        let highest = scores.iter().copied().max().unwrap_or(0);
        let lowest = scores.iter().copied().min().unwrap_or(0);
        for score in scores {
            *score = if highest == lowest { 0 } else { MAX_SCORE * (*score - lowest) / (highest - lowest) };
        }
    }
}
