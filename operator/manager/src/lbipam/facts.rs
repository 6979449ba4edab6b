//! What matters of Services, pools and nodes, read once where they enter.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::core::v1::{Node, Service},
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector as SelectorObject},
    jiff::Timestamp,
};
use kube::ResourceExt;
use skep_api::{
    LabelSelector, LoadBalancerIPPool,
    load_balancer_ip_pool::{
        LoadBalancerIPPoolSpec, LoadBalancerIPPoolStatus, NAME_LABEL, NAMESPACE_LABEL, SHARING_KEY,
        SHARING_NAMESPACES, WANTED_IPS,
    },
};
use skep_model::{IpFamily, Labels, NamespacedName};

/// A Service, of any type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceFacts {
    /// Identity, for events and for the guard of writes.
    pub(crate) uid: String,
    /// Version that was read.
    pub(crate) version: String,
    /// When it was created: the elder wins a dispute.
    pub(crate) created: Timestamp,
    /// Whether it is being deleted.
    pub(crate) deleting: bool,
    /// Whether its type is LoadBalancer.
    pub(crate) balanced: bool,
    /// Its load balancer class.
    pub(crate) class: Option<String>,
    /// Its labels.
    pub(crate) labels: Labels,
    /// The families that it wants an address of.
    pub(crate) families: Vec<IpFamily>,
    /// Whether it is content with one family of two.
    pub(crate) partial: bool,
    /// The addresses that it asks for by name.
    pub(crate) wanted: BTreeSet<IpAddr>,
    /// A text among them that is no address.
    pub(crate) malformed: Option<String>,
    /// With whom it shares.
    pub(crate) sharing: Option<Sharing>,
    /// Its ports: protocol and number.
    pub(crate) ports: BTreeSet<(String, i32)>,
    /// Whether outside traffic stays on the node that took it.
    pub(crate) local: bool,
    /// The pods behind it.
    pub(crate) selector: Labels,
    /// The addresses in its status.
    pub(crate) ingress: Vec<IpAddr>,
    /// Whether the status says them as we would.
    pub(crate) ingress_ours: bool,
    /// Its external IPs.
    pub(crate) external: Vec<IpAddr>,
    /// All its conditions.
    pub(crate) conditions: Vec<Condition>,
}

/// How a Service shares its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// Equal among those that share.
    pub(crate) key: String,
    /// The other namespaces it shares with; `*` is every one.
    pub(crate) namespaces: BTreeSet<String>,
}

impl ServiceFacts {
    /// Reads a Service.
    pub(crate) fn of(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let status = service.status.clone().unwrap_or_default();
        let annotation = |name: &str| service.annotations().get(name).map(String::as_str);
        let entries = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
        let ingress: Vec<IpAddr> =
            entries.iter().filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect();
        let plain = |entry: &k8s_openapi::api::core::v1::LoadBalancerIngress| {
            entry.hostname.is_none() && entry.ip_mode.as_deref() == Some("VIP")
        };
        let families: Vec<IpFamily> = spec.ip_families.iter().flatten().filter_map(|f| family(f)).collect();
        let (wanted, malformed) = wanted(annotation(WANTED_IPS), spec.load_balancer_ip.as_deref());
        ServiceFacts {
            uid: service.uid().unwrap_or_default(),
            version: service.resource_version().unwrap_or_default(),
            created: service.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting: service.metadata.deletion_timestamp.is_some(),
            balanced: spec.type_.as_deref() == Some("LoadBalancer"),
            class: spec.load_balancer_class,
            labels: service.labels().clone(),
            families: if families.is_empty() { vec![IpFamily::V4] } else { families },
            partial: spec.ip_family_policy.as_deref() == Some("PreferDualStack"),
            wanted,
            malformed,
            sharing: annotation(SHARING_KEY).map(str::trim).filter(|key| !key.is_empty()).map(|key| {
                Sharing {
                    key: key.to_owned(),
                    namespaces: listed(annotation(SHARING_NAMESPACES)).map(str::to_owned).collect(),
                }
            }),
            ports: spec
                .ports
                .iter()
                .flatten()
                .map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".into()), port.port))
                .collect(),
            local: spec.external_traffic_policy.as_deref() == Some("Local"),
            selector: spec.selector.unwrap_or_default(),
            ingress_ours: ingress.len() == entries.len() && entries.iter().all(plain),
            ingress,
            external: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
            conditions: status.conditions.unwrap_or_default(),
        }
    }

    /// Its condition of this type.
    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind)
    }
}

fn family(text: &str) -> Option<IpFamily> {
    IpFamily::ALL.into_iter().find(|family| family.to_string() == text)
}

fn listed(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn wanted(annotation: Option<&str>, field: Option<&str>) -> (BTreeSet<IpAddr>, Option<String>) {
    let all = || listed(annotation).chain(listed(field));
    let malformed = all().find(|text| text.parse::<IpAddr>().is_err());
    (all().filter_map(|text| text.parse().ok()).collect(), malformed.map(str::to_owned))
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PoolFacts {
    /// When it was created: the elder wins a dispute.
    pub(crate) created: Timestamp,
    /// Its generation.
    pub(crate) generation: i64,
    /// What it says.
    pub(crate) spec: LoadBalancerIPPoolSpec,
    /// What it said of itself when it was read.
    pub(crate) status: Option<LoadBalancerIPPoolStatus>,
}

impl PoolFacts {
    /// Reads a pool.
    pub(crate) fn of(pool: &LoadBalancerIPPool) -> Self {
        PoolFacts {
            created: pool.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            generation: pool.metadata.generation.unwrap_or_default(),
            spec: pool.spec.clone(),
            status: pool.status.clone(),
        }
    }
}

/// A node's addresses of all types.
pub(crate) fn node_addresses(node: &Node) -> BTreeSet<IpAddr> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter_map(|address| address.address.parse().ok()).collect()
}

/// A selector as it is matched; one that is absent selects everything.
pub(crate) fn selector(object: Option<&SelectorObject>) -> Result<LabelSelector, String> {
    let parsed = object.map(LabelSelector::from_object);
    parsed.unwrap_or_else(|| Ok(LabelSelector::everything())).map_err(|error| error.to_string())
}

/// Whether the selector matches the Service by labels, namespace and name.
pub(crate) fn selects(selector: &LabelSelector, name: &NamespacedName, labels: &Labels) -> bool {
    selector.matches_with(|key| match key {
        NAMESPACE_LABEL => Some(name.namespace.as_str()),
        NAME_LABEL => Some(name.name.as_str()),
        key => labels.get(key).map(String::as_str),
    })
}

/// Everything that a plan is made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Services of every type.
    pub(crate) services: BTreeMap<NamespacedName, ServiceFacts>,
    /// Pools.
    pub(crate) pools: BTreeMap<String, PoolFacts>,
    /// Addresses of each node, which nobody else may have.
    pub(crate) nodes: BTreeMap<String, BTreeSet<IpAddr>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(json: serde_json::Value) -> ServiceFacts {
        ServiceFacts::of(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn requests_come_from_the_annotation_and_the_field() {
        let facts = service(serde_json::json!({
            "metadata": {"name": "a", "annotations": {
                WANTED_IPS: "10.0.0.1, fd00::1", SHARING_KEY: "k", SHARING_NAMESPACES: "x,y"}},
            "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.0.0.2", "ipFamilies": ["IPv6", "IPv4"],
                "externalTrafficPolicy": "Local", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]}},
        }));
        assert_eq!(facts.wanted.len(), 3);
        assert_eq!(facts.sharing.unwrap().namespaces.len(), 2);
        assert_eq!(facts.families, [IpFamily::V6, IpFamily::V4]);
        assert!(facts.balanced && facts.local && facts.ingress_ours);
        assert!(facts.ports.contains(&("TCP".into(), 80)));
    }

    #[test]
    fn a_request_that_is_no_address_is_kept_for_the_complaint() {
        let facts = service(serde_json::json!({
            "metadata": {"name": "a", "annotations": {WANTED_IPS: "10.0.0.1,web"}},
            "status": {"loadBalancer": {"ingress": [{"hostname": "elsewhere"}]}},
        }));
        assert_eq!((facts.wanted.len(), facts.malformed.as_deref()), (1, Some("web")));
        assert!(!facts.ingress_ours && facts.families == [IpFamily::V4]);
    }

    #[test]
    fn selectors_may_name_the_namespace_and_the_name() {
        let object: SelectorObject = serde_json::from_value(serde_json::json!({
            "matchLabels": {NAMESPACE_LABEL: "shop"},
            "matchExpressions": [{"key": NAME_LABEL, "operator": "NotIn", "values": ["db"]}],
        }))
        .unwrap();
        let selector = selector(Some(&object)).unwrap();
        let matches = |namespace: &str, name: &str| {
            selects(&selector, &NamespacedName::new(namespace, name), &Labels::new())
        };
        assert!(matches("shop", "web") && !matches("shop", "db") && !matches("default", "web"));
    }
}
