//! The extension points of a scheduling cycle, and what passes between them.
//!
//! A cycle asks every [`Filter`] for what it can prepare, runs the filters that matter for this pod over the nodes,
//! asks every [`Score`] about those that are left, and picks the best. Verdicts are small and `Copy`: text is made only
//! when no node is left.

use crate::cache::Cache;
use crate::node_info::NodeInfo;
use crate::plugins::pod_affinity::AffinityState;
use crate::plugins::topology_spread::SpreadState;
use crate::pod_info::PodInfo;

/// The highest score a plugin may give; the lowest is 0.
pub const MAX_SCORE: i64 = 100;

/// What one cycle knows: the pod, the cluster, and what plugins prepared.
pub struct Cycle<'a> {
    /// The pod to place.
    pub pod: &'a PodInfo,
    /// The cluster.
    pub cache: &'a Cache,
    /// Prepared by the topology spread plugin.
    pub spread: SpreadState,
    /// Prepared by the pod affinity plugin.
    pub affinity: AffinityState,
}

impl<'a> Cycle<'a> {
    /// A cycle with nothing prepared.
    pub fn new(pod: &'a PodInfo, cache: &'a Cache) -> Self {
        Self { pod, cache, spread: SpreadState::default(), affinity: AffinityState::default() }
    }
}

/// Whether a plugin has anything to say about this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Ask it.
    Ask,
    /// It agrees with everything.
    Skip,
}

/// Rules nodes out.
pub trait Filter: Send + Sync {
    /// Prepares for one pod, once a cycle.
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Interest;

    /// Whether the pod may run on `node`.
    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection>;
}

/// Compares nodes.
pub trait Score: Send + Sync {
    /// How much it counts.
    fn weight(&self) -> i64;

    /// Prepares for one pod and the nodes left, once a cycle.
    fn pre_score(&self, cycle: &mut Cycle<'_>, feasible: &[usize]) -> Interest;

    /// A score of the plugin's own scale.
    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64;

    /// Brings scores to 0..=[`MAX_SCORE`].
    fn normalize(&self, _cycle: &Cycle<'_>, _scores: &mut [i64]) {}
}

/// The rules that may reject a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Rule {
    /// The node asked for by name.
    NodeName = 1,
    /// Cordoned nodes.
    Unschedulable = 2,
    /// Taints.
    Taints = 4,
    /// Node selector and affinity.
    NodeAffinity = 8,
    /// Ports of the node.
    Ports = 16,
    /// Resources.
    Fit = 32,
    /// Topology spread.
    Spread = 64,
    /// Pod affinity and anti-affinity.
    PodAffinity = 128,
}

/// A set of rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules(u16);

impl Rules {
    /// Adds a rule.
    pub fn insert(&mut self, rule: Rule) {
        self.0 |= rule as u16;
    }

    /// The rules of both.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the two sets share a rule.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl<const N: usize> From<[Rule; N]> for Rules {
    fn from(rules: [Rule; N]) -> Self {
        Self(rules.into_iter().fold(0, |set, rule| set | rule as u16))
    }
}

/// Why a node is ruled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Another node is asked for by name.
    NodeName,
    /// The node is cordoned.
    Unschedulable,
    /// The taint at this index of the node's is not borne.
    Taint(usize),
    /// Selector or affinity do not match.
    NodeAffinity,
    /// A port is taken.
    Ports,
    /// Not enough of something.
    Shortage(Shortage),
    /// It would make the spread too uneven.
    Spread,
    /// It lacks the label that makes domains.
    SpreadLabel,
    /// No pod that the pod wants near.
    PodAffinity,
    /// A pod that the pod does not want near.
    PodAntiAffinity,
    /// A pod that does not want the pod near.
    ExistingAntiAffinity,
}

/// What a node is short of; a bit each, scalar resources by their index in the pod's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shortage(pub u64);

impl Shortage {
    /// Pods.
    pub const PODS: u64 = 1;
    /// CPU.
    pub const CPU: u64 = 2;
    /// Memory.
    pub const MEMORY: u64 = 4;
    /// Local disk.
    pub const EPHEMERAL: u64 = 8;
    /// The first scalar resource.
    pub const SCALARS: u32 = 4;
}

impl Rejection {
    /// Whether it could go away with pods of the node.
    pub fn is_resolvable(self) -> bool {
        matches!(self, Self::Shortage(_) | Self::Ports)
    }

    /// The rule behind it.
    pub fn rule(self) -> Rule {
        match self {
            Self::NodeName => Rule::NodeName,
            Self::Unschedulable => Rule::Unschedulable,
            Self::Taint(_) => Rule::Taints,
            Self::NodeAffinity => Rule::NodeAffinity,
            Self::Ports => Rule::Ports,
            Self::Shortage(_) => Rule::Fit,
            Self::Spread | Self::SpreadLabel => Rule::Spread,
            Self::PodAffinity | Self::PodAntiAffinity | Self::ExistingAntiAffinity => Rule::PodAffinity,
        }
    }
}
