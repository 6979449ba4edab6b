//! Which nodes a DaemonSet runs on, and the pod it makes for one.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Toleration,
};
use kube::ResourceExt;
use skep_scheduler::placement::{NodeMatcher, first_untolerated};

use crate::owner::controller_reference;
use crate::pod_control::pod_from_template;
use crate::pods;
use crate::revisions::HASH_LABEL;

const NAME_FIELD: &str = "metadata.name";

/// Taints that pods of a DaemonSet bear whatever their template says: they serve the node, so they stay on it.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const BORNE_ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What becomes of a DaemonSet's pod on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There should be one.
    Wanted,
    /// One that is there may stay, none is made.
    Tolerated,
    /// There must be none.
    Unwanted,
}

/// The rules of a DaemonSet's template about nodes, parsed once.
pub(crate) struct Rules {
    name: Option<String>,
    nodes: NodeMatcher,
    tolerations: Vec<Toleration>,
}

impl Rules {
    /// The rules of `set`.
    pub(crate) fn of(set: &DaemonSet) -> Self {
        let spec = template_spec(set);
        let name = spec.node_name.clone().filter(|name| !name.is_empty());
        Self { name, nodes: NodeMatcher::of(&spec), tolerations: tolerations(&spec) }
    }

    /// What they say about `node`.
    pub(crate) fn standing(&self, node: &Node) -> Standing {
        let name = node.name_any();
        if self.name.as_ref().is_some_and(|wanted| *wanted != name)
            || !self.nodes.matches(&name, node.labels())
        {
            return Standing::Unwanted;
        }
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let blocked = |effects: &[&str]| first_untolerated(taints, &self.tolerations, effects).is_some();
        if blocked(&["NoExecute"]) {
            Standing::Unwanted
        } else if blocked(&["NoSchedule"]) {
            Standing::Tolerated
        } else {
            Standing::Wanted
        }
    }
}

fn template_spec(set: &DaemonSet) -> PodSpec {
    set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default()
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let on_host = (spec.host_network == Some(true)).then_some(BORNE_ON_HOST_NETWORK);
    for (key, effect) in BORNE.into_iter().chain(on_host) {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    tolerations
}

/// The pod of `set` for `node`, of the revision called `hash`. The scheduler places it: its affinity names the node.
pub(crate) fn make_pod(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(&template, &set.name_any(), controller_reference(set));
    pod.metadata.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.into());
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    pin(spec.affinity.get_or_insert_default(), node);
    pod
}

/// Narrows every required node affinity term to one node.
fn pin(affinity: &mut Affinity, node: &str) {
    let field = NodeSelectorRequirement {
        key: NAME_FIELD.into(),
        operator: "In".into(),
        values: Some(vec![node.into()]),
    };
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required = node_affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector { node_selector_terms: vec![NodeSelectorTerm::default()] });
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![field.clone()]);
    }
}

/// The node of a DaemonSet's pod: where it is, or where its affinity sends it.
pub(crate) fn target_node(pod: &Pod) -> Option<&str> {
    if let Some(node) = pods::node_of(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut named = fields.filter(|field| field.key == NAME_FIELD && field.operator == "In");
    named.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
}
