//! Services as this node carries them out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use skep_loadbalancer::{
    LoadBalancer, Owner,
    input::{Service, TrafficPolicy},
};
use skep_model::{Backend, IpFamily, NamespacedName};

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceRow {
    service: String,
    #[serde(rename = "type")]
    kind: &'static str,
    families: Vec<String>,
    frontends: usize,
    backends: usize,
    local_backends: usize,
    internal_policy: &'static str,
    external_policy: &'static str,
    affinity_seconds: u32,
    health_check_node_port: Option<u16>,
    problems: Vec<String>,
}

#[derive(Default)]
struct Found {
    frontends: usize,
    families: BTreeSet<IpFamily>,
    backends: BTreeSet<Backend>,
}

fn name_of(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}

/// Every Service that is balanced here, or should be.
pub(super) fn services(balancer: &LoadBalancer) -> Vec<ServiceRow> {
    let mut found: BTreeMap<&NamespacedName, Found> = BTreeMap::new();
    for (key, frontend) in balancer.frontends() {
        if let Owner::Service(name) = &*frontend.owner {
            let found = found.entry(name).or_default();
            found.frontends += 1;
            found.families.insert(IpFamily::of(key.address.ip));
            found.backends.extend(frontend.backends.iter());
        }
    }
    let mut problems: BTreeMap<&NamespacedName, Vec<String>> = BTreeMap::new();
    for (owner, problem) in balancer.problems() {
        if let Owner::Service(name) = owner {
            problems.entry(name).or_default().push(problem.to_string());
        }
    }
    let names: BTreeSet<&NamespacedName> = found.keys().chain(problems.keys()).copied().collect();
    let row = |name: &NamespacedName| {
        let found = found.get(name);
        let service = balancer.service(name);
        let external = service.and_then(|service| service.external.as_deref());
        let owner = Owner::Service(name.clone());
        let is_local = |backend: &&Backend| {
            balancer.node_of(&owner, backend.ip) == Some(balancer.context().node.as_str())
        };
        ServiceRow {
            service: name.to_string(),
            kind: service.map_or("", |service: &Service| service.kind.name()),
            families: found.iter().flat_map(|found| &found.families).map(ToString::to_string).collect(),
            frontends: found.map_or(0, |found| found.frontends),
            backends: found.map_or(0, |found| found.backends.len()),
            local_backends: found.map_or(0, |found| found.backends.iter().filter(is_local).count()),
            internal_policy: service.map_or("", |service| name_of(service.internal_policy)),
            external_policy: external.map_or("", |external| name_of(external.policy)),
            affinity_seconds: service.and_then(|service| service.affinity_seconds).unwrap_or(0),
            health_check_node_port: external.and_then(|external| external.health_check_port).map(Into::into),
            problems: problems.get(name).cloned().unwrap_or_default(),
        }
    };
    names.into_iter().map(row).collect()
}
