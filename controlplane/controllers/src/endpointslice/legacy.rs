//! The Endpoints object: the older form of the same facts, for clients that still read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod};
use k8s_openapi::api::discovery::v1::EndpointPort as SlicePort;
use kube::ResourceExt;

use super::endpoint::{Backends, address, reference};
use super::plan::service_labels;
use crate::pods;

/// Label that says who writes an Endpoints object.
pub(crate) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Its value here.
pub(crate) const MANAGER: &str = "endpoint-controller";
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// The object as it should be; none if `existing` is right already.
pub(crate) fn plan(backends: &Backends<'_>, existing: Option<&Endpoints>) -> Option<Endpoints> {
    let mut labels = service_labels(backends.service);
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let (subsets, truncated) = subsets(backends);
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let mut wanted = existing.cloned().unwrap_or_default();
    wanted.metadata.name = backends.service.metadata.name.clone();
    wanted.metadata.namespace = backends.service.namespace();
    wanted.metadata.labels = Some(labels);
    wanted.subsets = subsets;
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        wanted.metadata.annotations = None;
    }
    (existing != Some(&wanted)).then_some(wanted)
}

type Group = (Vec<SlicePort>, Vec<EndpointAddress>, Vec<EndpointAddress>);

fn subsets(backends: &Backends<'_>) -> (Vec<EndpointSubset>, bool) {
    let Some(family) = backends.families().first().copied() else { return (Vec::new(), false) };
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut count = 0;
    let counts = |pod: &&Arc<Pod>| {
        !pods::is_finished(pod) && (backends.publish_not_ready() || !pods::is_terminating(pod))
    };
    for pod in backends.pods.iter().filter(counts) {
        let Some(ip) = address(pod, family) else { continue };
        count += 1;
        if count > CAPACITY {
            break;
        }
        let ports = backends.ports(pod);
        let group = groups.entry(format!("{ports:?}")).or_insert_with(|| (ports, Vec::new(), Vec::new()));
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: backends.hostname(pod),
            node_name: pods::node_of(pod).map(Into::into),
            target_ref: Some(reference(pod)),
        };
        let ready = backends.publish_not_ready() || pods::is_ready(pod);
        if ready { group.1.push(address) } else { group.2.push(address) }
    }
    (groups.into_values().map(subset).collect(), count > CAPACITY)
}

fn subset((ports, mut ready, mut waiting): Group) -> EndpointSubset {
    ready.sort_by(|a, b| a.ip.cmp(&b.ip));
    waiting.sort_by(|a, b| a.ip.cmp(&b.ip));
    let port = |port: SlicePort| EndpointPort {
        name: port.name.filter(|name| !name.is_empty()),
        port: port.port.unwrap_or(0),
        protocol: port.protocol,
        app_protocol: port.app_protocol,
    };
    EndpointSubset {
        addresses: (!ready.is_empty()).then_some(ready),
        not_ready_addresses: (!waiting.is_empty()).then_some(waiting),
        ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
    }
}
