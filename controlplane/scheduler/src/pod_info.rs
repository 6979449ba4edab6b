//! A pod as the plugins see it: everything they ask for parsed once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Pod, PodAffinityTerm, PodSpec, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
    WeightedPodAffinityTerm,
};
use kube::ResourceExt;
use skep_api::LabelSelector;
use skep_api::selector::{Operator, Requirement};
use skep_informer::ObjectKey;

use crate::placement::{NodeMatcher, NodeTerm};
use crate::resources::Resources;

/// CPU that a container without a request is counted with when nodes are compared.
const UNREQUESTED_MILLI_CPU: i64 = 100;
/// Memory likewise.
const UNREQUESTED_MEMORY: i64 = 200 * 1024 * 1024;

/// A parsed pod.
#[derive(Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Uid.
    pub uid: String,
    /// Uid of its controller: pods of one controller are spread by default.
    pub controller: Option<Arc<str>>,
    /// Scheduling priority.
    pub priority: i32,
    /// Node asked for by name.
    pub node_name: Option<String>,
    /// What it asks for.
    pub requests: Resources,
    /// CPU (thousandths) and memory (bytes) it is counted with when nodes are compared.
    pub weight: (i64, i64),
    /// Taints it bears.
    pub tolerations: Vec<Toleration>,
    /// Nodes it may run on.
    pub nodes: NodeMatcher,
    /// Nodes it would rather run on.
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    /// Ports of the node it takes.
    pub host_ports: Vec<HostPort>,
    /// Declared spread constraints.
    pub spread: Vec<SpreadConstraint>,
    /// Pods it must be near.
    pub affinity: Vec<AffinityTerm>,
    /// Pods it must not be near.
    pub anti_affinity: Vec<AffinityTerm>,
    /// Pods it would rather be near (negative weight: away from).
    pub preferred_pods: Vec<(i64, AffinityTerm)>,
}

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address; `0.0.0.0` is all of them.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether two pods cannot both have these.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A declared topology spread constraint.
#[derive(Debug, Clone)]
pub struct SpreadConstraint {
    /// How uneven it may be.
    pub max_skew: i64,
    /// Node label that makes domains.
    pub topology_key: String,
    /// Pods that are counted.
    pub selector: LabelSelector,
    /// Whether a node that violates it is ruled out.
    pub hard: bool,
    /// Domains there should be.
    pub min_domains: Option<usize>,
    /// Whether nodes with taints the pod does not bear are left out of the count.
    pub honor_taints: bool,
    /// Whether nodes the pod may not run on are left out of the count.
    pub honor_affinity: bool,
}

/// A pod affinity or anti-affinity term.
#[derive(Debug, Clone)]
pub struct AffinityTerm {
    /// Node label that makes domains.
    pub topology_key: String,
    /// Pods meant.
    pub selector: LabelSelector,
    /// Their namespaces by name.
    pub namespaces: Vec<String>,
    /// Their namespaces by label.
    pub namespace_selector: Option<LabelSelector>,
}

impl PodInfo {
    /// Parses `pod`.
    pub fn new(pod: Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let affinity = spec.affinity.clone().unwrap_or_default();
        let controller =
            pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        Self {
            key: ObjectKey::of(&*pod),
            uid: pod.uid().unwrap_or_default(),
            controller: controller.map(|owner| owner.uid.as_str().into()),
            priority: spec.priority.unwrap_or(0),
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            requests: Resources::of_pod(spec),
            weight: weight(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            nodes: NodeMatcher::of(spec),
            preferred_nodes: preferred_nodes(&affinity),
            host_ports: host_ports(spec),
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|constraint| SpreadConstraint::of(constraint, &pod))
                .collect(),
            affinity: required_affinity(&affinity, &pod),
            anti_affinity: required_anti_affinity(&affinity, &pod),
            preferred_pods: preferred_pods(&affinity, &pod),
            pod: pod.clone(),
        }
    }

    /// Whether other pods may be affected by where this one is, beyond resources.
    pub fn has_pod_affinity(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty() || !self.preferred_pods.is_empty()
    }
}

fn weight(spec: &PodSpec) -> (i64, i64) {
    let mut total = (0, 0);
    for container in &spec.containers {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let asked = Resources::from_map(requests);
        total.0 += if asked.milli_cpu == 0 { UNREQUESTED_MILLI_CPU } else { asked.milli_cpu };
        total.1 += if asked.memory == 0 { UNREQUESTED_MEMORY } else { asked.memory };
    }
    total
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                ip: port.host_ip.clone().unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

fn preferred_nodes(affinity: &Affinity) -> Vec<(i64, NodeTerm)> {
    let preferred = affinity
        .node_affinity
        .as_ref()
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    let parse = |term: &PreferredSchedulingTerm| (i64::from(term.weight), NodeTerm::of(&term.preference));
    preferred.into_iter().flatten().map(parse).collect()
}

fn required_affinity(affinity: &Affinity, pod: &Pod) -> Vec<AffinityTerm> {
    let terms = affinity
        .pod_affinity
        .as_ref()
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|term| AffinityTerm::of(term, pod)).collect()
}

fn required_anti_affinity(affinity: &Affinity, pod: &Pod) -> Vec<AffinityTerm> {
    let terms = affinity
        .pod_anti_affinity
        .as_ref()
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|term| AffinityTerm::of(term, pod)).collect()
}

fn preferred_pods(affinity: &Affinity, pod: &Pod) -> Vec<(i64, AffinityTerm)> {
    let near = affinity
        .pod_affinity
        .as_ref()
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    let away = affinity
        .pod_anti_affinity
        .as_ref()
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    let parse = |sign: i64, term: &WeightedPodAffinityTerm| {
        (sign * i64::from(term.weight), AffinityTerm::of(&term.pod_affinity_term, pod))
    };
    let near = near.into_iter().flatten().map(|term| parse(1, term));
    near.chain(away.into_iter().flatten().map(|term| parse(-1, term))).collect()
}

impl SpreadConstraint {
    fn of(raw: &TopologySpreadConstraint, pod: &Pod) -> Self {
        let keys = raw.match_label_keys.iter().flatten();
        Self {
            max_skew: i64::from(raw.max_skew),
            topology_key: raw.topology_key.clone(),
            selector: selector(raw.label_selector.as_ref(), keys, [].iter(), pod),
            hard: raw.when_unsatisfiable == "DoNotSchedule",
            min_domains: raw.min_domains.and_then(|count| usize::try_from(count).ok()),
            honor_taints: raw.node_taints_policy.as_deref() == Some("Honor"),
            honor_affinity: raw.node_affinity_policy.as_deref() != Some("Ignore"),
        }
    }
}

impl AffinityTerm {
    fn of(raw: &PodAffinityTerm, pod: &Pod) -> Self {
        let mut namespaces = raw.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && raw.namespace_selector.is_none() {
            namespaces.extend(pod.namespace());
        }
        let keys = raw.match_label_keys.iter().flatten();
        let mismatch = raw.mismatch_label_keys.iter().flatten();
        Self {
            topology_key: raw.topology_key.clone(),
            selector: selector(raw.label_selector.as_ref(), keys, mismatch, pod),
            namespaces,
            namespace_selector: raw
                .namespace_selector
                .as_ref()
                .and_then(|selector| LabelSelector::from_object(selector).ok()),
        }
    }
}

/// A selector narrowed by the pod's own values of some labels. None given selects nothing, as the API defines it.
fn selector<'a>(
    raw: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    same: impl Iterator<Item = &'a String>,
    different: impl Iterator<Item = &'a String>,
    pod: &Pod,
) -> LabelSelector {
    let parsed = raw.and_then(|raw| LabelSelector::from_object(raw).ok());
    let Some(parsed) = parsed else { return nothing() };
    let own = |operator: Operator| {
        move |key: &'a String| {
            let value = pod.labels().get(key)?;
            Requirement::new(key, operator, vec![value.clone()]).ok()
        }
    };
    let mut requirements = parsed.requirements().to_vec();
    requirements.extend(same.filter_map(own(Operator::In)));
    requirements.extend(different.filter_map(own(Operator::NotIn)));
    LabelSelector::new(requirements)
}

/// A selector that no labels meet.
fn nothing() -> LabelSelector {
    let contradiction = [Operator::Exists, Operator::DoesNotExist];
    let requirement = |operator| Requirement { key: "nothing".into(), operator, values: Vec::new() };
    LabelSelector::new(contradiction.map(requirement).to_vec())
}
