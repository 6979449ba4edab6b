//! Which addresses this node may announce, and on which devices. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::{core::v1::Node, core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::LabelSelector as SelectorObject,
};
use kube::ResourceExt;
use regex::Regex;
use skep_api::{
    L2AnnouncementPolicy, LabelSelector,
    load_balancer_ip_pool::{CLASS, NAME_LABEL, NAMESPACE_LABEL},
};
use skep_model::{IpCidr, Labels, MacAddr, NamespacedName};

/// Nodes with this label take no traffic from load balancers.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A device that could carry announcements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Device {
    /// Interface index.
    pub(crate) index: u32,
    /// Name.
    pub(crate) name: String,
    /// Its link-layer address, which is what is answered.
    pub(crate) mac: MacAddr,
    /// Whether the outside is there.
    pub(crate) uplink: bool,
}

/// This node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) labels: Labels,
    pub(crate) ready: bool,
    /// Whether it is about to be emptied.
    pub(crate) leaving: bool,
}

impl NodeView {
    /// Reads a Node.
    pub(crate) fn of(node: &Node) -> Self {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.clone().any(|c| c.type_ == "Ready" && c.status == "True");
        let cut_off = conditions.clone().any(|c| c.type_ == "NetworkUnavailable" && c.status == "True");
        NodeView {
            labels: node.labels().clone(),
            ready: ready && !cut_off,
            leaving: node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
                || node.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// A Service of type LoadBalancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceView {
    pub(crate) class: Option<String>,
    pub(crate) labels: Labels,
    /// The addresses in its status that packets arrive for.
    pub(crate) assigned: BTreeSet<IpAddr>,
    pub(crate) external: BTreeSet<IpAddr>,
    /// Whether outside traffic stays on the node that takes it.
    pub(crate) local: bool,
}

impl ServiceView {
    /// Reads a Service.
    pub(crate) fn of(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let entries = balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
        let arriving = entries.filter(|entry| entry.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
        ServiceView {
            class: spec.load_balancer_class,
            labels: service.labels().clone(),
            assigned: arriving.filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect(),
            external: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
            local: spec.external_traffic_policy.as_deref() == Some("Local"),
        }
    }
}

/// Whether the slice has a ready endpoint on the node.
pub(crate) fn has_local(slice: &EndpointSlice, node: &str) -> bool {
    slice.endpoints.iter().flatten().any(|endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        ready && endpoint.node_name.as_deref() == Some(node)
    })
}

/// A policy that could be understood.
#[derive(Clone, Debug)]
pub(crate) struct PolicyView {
    nodes: LabelSelector,
    services: LabelSelector,
    interfaces: Vec<Regex>,
    assigned: bool,
    external: bool,
}

impl PolicyView {
    /// Reads a policy.
    ///
    /// # Errors
    /// When a selector or a pattern is malformed; the operator says so in the policy's status.
    pub(crate) fn of(policy: &L2AnnouncementPolicy) -> Result<Self, String> {
        let spec = &policy.spec;
        let selector = |object: Option<&SelectorObject>| match object {
            Some(object) => LabelSelector::from_object(object).map_err(|error| error.to_string()),
            None => Ok(LabelSelector::everything()),
        };
        let interfaces: Result<Vec<Regex>, _> = spec.interfaces.iter().map(|text| Regex::new(text)).collect();
        Ok(PolicyView {
            nodes: selector(spec.node_selector.as_ref())?,
            services: selector(spec.service_selector.as_ref())?,
            interfaces: interfaces.map_err(|error| error.to_string())?,
            assigned: spec.load_balancer_ips,
            external: spec.external_ips,
        })
    }

    fn selects(&self, name: &NamespacedName, labels: &Labels) -> bool {
        self.services.matches_with(|key| match key {
            NAMESPACE_LABEL => Some(name.namespace.as_str()),
            NAME_LABEL => Some(name.name.as_str()),
            key => labels.get(key).map(String::as_str),
        })
    }

    fn takes(&self, device: &Device) -> bool {
        if self.interfaces.is_empty() {
            return device.uplink;
        }
        self.interfaces.iter().any(|pattern| pattern.is_match(&device.name))
    }
}

/// What does not change while the agent runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Whether Services without a class are ours.
    pub(crate) default_class: bool,
    /// Where external IPs may lie; none are announced outside.
    pub(crate) external_ranges: Vec<IpCidr>,
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) node: NodeView,
    pub(crate) services: BTreeMap<NamespacedName, ServiceView>,
    /// The Services with a ready endpoint on this node, among those that need one.
    pub(crate) local: BTreeSet<NamespacedName>,
    /// Policies, with `None` for those that cannot be understood.
    pub(crate) policies: BTreeMap<String, Option<PolicyView>>,
    pub(crate) devices: Vec<Device>,
}

/// What follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Every address of a Service of ours, whoever announces it, with these Services.
    pub(crate) known: BTreeMap<IpAddr, BTreeSet<NamespacedName>>,
    /// Those that this node may announce, and where.
    pub(crate) candidates: BTreeMap<IpAddr, BTreeSet<Device>>,
}

/// Decides.
pub(crate) fn wanted(view: &View, rules: &Rules) -> Wanted {
    let mut wanted = Wanted::default();
    let mut barred = BTreeSet::new();
    let able = view.node.ready && !view.node.labels.contains_key(EXCLUDED);
    for (name, service) in view.services.iter().filter(|(_, service)| owns(service, rules)) {
        let allowed = |ip: &IpAddr| rules.external_ranges.iter().any(|range| range.contains(*ip));
        let external: BTreeSet<IpAddr> = service.external.iter().copied().filter(allowed).collect();
        for ip in service.assigned.union(&external) {
            wanted.known.entry(*ip).or_default().insert(name.clone());
        }
        // One address, one node: it must do for each Service behind the address.
        if service.local && !view.local.contains(name) {
            barred.extend(service.assigned.union(&external).copied());
        }
        if able {
            let assigned = devices(view, name, service, |policy| policy.assigned);
            let elsewhere = devices(view, name, service, |policy| policy.external);
            let both = [(&service.assigned, assigned), (&external, elsewhere)];
            for (ips, devices) in both.iter().filter(|(_, devices)| !devices.is_empty()) {
                for ip in *ips {
                    wanted.candidates.entry(*ip).or_default().extend(devices.iter().cloned());
                }
            }
        }
    }
    wanted.candidates.retain(|ip, _| !barred.contains(ip));
    wanted
}

fn owns(service: &ServiceView, rules: &Rules) -> bool {
    service.class.as_deref().map_or(rules.default_class, |class| class == CLASS)
}

/// The devices on which policies let this node announce the Service.
fn devices(
    view: &View,
    name: &NamespacedName,
    service: &ServiceView,
    concerns: fn(&PolicyView) -> bool,
) -> BTreeSet<Device> {
    if view.policies.is_empty() {
        return view.devices.iter().filter(|device| device.uplink).cloned().collect();
    }
    let policies = view.policies.values().flatten().filter(|policy| {
        concerns(policy) && policy.nodes.matches(&view.node.labels) && policy.selects(name, &service.labels)
    });
    let taken = policies.flat_map(|policy| view.devices.iter().filter(|device| policy.takes(device)));
    taken.cloned().collect()
}

#[cfg(test)]
mod tests {
    use skep_api::L2AnnouncementPolicySpec;

    use super::*;

    fn device(index: u32, name: &str, uplink: bool) -> Device {
        Device { index, name: name.into(), mac: MacAddr::default(), uplink }
    }

    fn service(ip: &str) -> ServiceView {
        ServiceView {
            class: Some(CLASS.into()),
            assigned: [ip.parse().unwrap()].into(),
            ..ServiceView::default()
        }
    }

    fn view(services: &[(&str, ServiceView)]) -> View {
        View {
            node: NodeView { ready: true, labels: [("rack".into(), "a".into())].into(), leaving: false },
            services: services.iter().map(|(n, s)| (NamespacedName::new("default", *n), s.clone())).collect(),
            devices: vec![device(1, "eth0", true), device(2, "eth1", false)],
            ..View::default()
        }
    }

    fn policy(json: serde_json::Value) -> Option<PolicyView> {
        let spec: L2AnnouncementPolicySpec = serde_json::from_value(json).unwrap();
        PolicyView::of(&L2AnnouncementPolicy::new("p", spec)).ok()
    }

    fn announced(view: &View) -> Vec<(String, Vec<String>)> {
        let all = wanted(view, &Rules::default()).candidates.into_iter();
        all.map(|(ip, devices)| (ip.to_string(), devices.into_iter().map(|d| d.name).collect())).collect()
    }

    fn on(ip: &str, devices: &[&str]) -> (String, Vec<String>) {
        (ip.into(), devices.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn without_a_policy_services_of_the_class_are_announced_on_uplinks() {
        let other = ServiceView { class: Some("example.com/x".into()), ..service("10.0.0.2") };
        let view = view(&[("a", service("10.0.0.1")), ("other", other)]);
        assert_eq!(announced(&view), [on("10.0.0.1", &["eth0"])]);
        assert_eq!(wanted(&view, &Rules::default()).known.len(), 1);
    }

    #[test]
    fn a_node_that_is_not_ready_or_excluded_announces_nothing() {
        let mut view = view(&[("a", service("10.0.0.1"))]);
        view.node.ready = false;
        assert!(announced(&view).is_empty());
        view.node.ready = true;
        view.node.labels.insert(EXCLUDED.into(), String::new());
        assert!(announced(&view).is_empty());
        assert_eq!(wanted(&view, &Rules::default()).known.len(), 1, "the address is still a Service's");
    }

    #[test]
    fn local_traffic_needs_an_endpoint_here_for_each_service_of_the_address() {
        let local = ServiceView { local: true, ..service("10.0.0.1") };
        let mut view = view(&[("a", service("10.0.0.1")), ("b", local)]);
        assert!(announced(&view).is_empty());
        view.local.insert(NamespacedName::new("default", "b"));
        assert_eq!(announced(&view), [on("10.0.0.1", &["eth0"])]);
    }

    #[test]
    fn policies_choose_nodes_services_and_devices() {
        let labelled = ServiceView { labels: [("app".into(), "web".into())].into(), ..service("10.0.0.2") };
        let mut view = view(&[("a", service("10.0.0.1")), ("b", labelled)]);
        let mine = serde_json::json!({"interfaces": ["^eth[0-9]$"], "serviceSelector": {"matchLabels": {"app": "web"}}});
        view.policies.insert("mine".into(), policy(mine));
        assert_eq!(announced(&view), [on("10.0.0.2", &["eth0", "eth1"])]);
        let elsewhere = serde_json::json!({"nodeSelector": {"matchLabels": {"rack": "b"}}});
        view.policies = [("elsewhere".into(), policy(elsewhere))].into();
        assert!(announced(&view).is_empty());
    }

    #[test]
    fn a_policy_that_cannot_be_understood_announces_nothing() {
        let mut view = view(&[("a", service("10.0.0.1"))]);
        view.policies.insert("broken".into(), policy(serde_json::json!({"interfaces": ["("]})));
        assert!(announced(&view).is_empty());
    }

    #[test]
    fn external_ips_are_announced_where_the_cluster_allows_them() {
        let facts = ServiceView {
            external: ["192.0.2.1".parse().unwrap(), "198.51.100.1".parse().unwrap()].into(),
            ..service("10.0.0.1")
        };
        let view = view(&[("a", facts)]);
        assert_eq!(announced(&view), [on("10.0.0.1", &["eth0"])]);
        let rules = Rules { external_ranges: vec!["192.0.2.0/24".parse().unwrap()], ..Rules::default() };
        let candidates: Vec<_> =
            wanted(&view, &rules).candidates.into_keys().map(|ip| ip.to_string()).collect();
        assert_eq!(candidates, ["10.0.0.1", "192.0.2.1"]);
    }

    #[test]
    fn terminating_and_foreign_endpoints_do_not_count() {
        let slice = |ready: bool, node: &str| {
            serde_json::from_value::<EndpointSlice>(serde_json::json!({"addressType": "IPv4", "endpoints": [
                {"addresses": ["10.244.0.2"], "nodeName": node, "conditions": {"ready": ready}}]}))
            .unwrap()
        };
        assert!(has_local(&slice(true, "n"), "n"));
        assert!(!has_local(&slice(false, "n"), "n") && !has_local(&slice(true, "m"), "n"));
    }
}
