//! The tables, kept up to date Service by Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use skep_model::{
    Backend, DnsChange, DnsView, Frontend, FrontendAddress, FrontendId, FrontendKind, IpFamily,
    NamespacedName,
};

use crate::{
    ids::Ids,
    input::{Service, ServicePort, ServiceTarget, Slice},
    names, select,
};

/// What changed since the last refresh. An address that moved between Services is in both tables: apply removals first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New or different frontends.
    pub frontends: BTreeMap<FrontendAddress, Frontend>,
    /// Frontends that are gone, and the number each had.
    pub removed_frontends: BTreeMap<FrontendAddress, FrontendId>,
    /// What DNS answers differently.
    pub names: DnsChange,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// Everything known of Services on this node, and what was computed from it.
#[derive(Debug)]
pub struct LoadBalancer {
    node: String,
    services: BTreeMap<NamespacedName, Service>,
    slices: BTreeMap<NamespacedName, BTreeMap<NamespacedName, Slice>>,
    owners: BTreeMap<NamespacedName, NamespacedName>,
    dirty: BTreeSet<NamespacedName>,
    frontends: BTreeMap<FrontendAddress, Frontend>,
    by_service: BTreeMap<NamespacedName, BTreeSet<FrontendAddress>>,
    ids: Ids<FrontendAddress>,
    names: DnsView,
    settled: bool,
}

impl LoadBalancer {
    /// An empty load balancer for the node of this name.
    #[must_use]
    pub fn new(node: &str) -> Self {
        LoadBalancer {
            node: node.into(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            owners: BTreeMap::new(),
            dirty: BTreeSet::new(),
            frontends: BTreeMap::new(),
            by_service: BTreeMap::new(),
            ids: Ids::default(),
            names: DnsView::default(),
            settled: false,
        }
    }

    /// Takes over the numbers found in pinned maps. To be called before the first event.
    pub fn adopt(&mut self, frontends: impl IntoIterator<Item = (FrontendAddress, FrontendId)>) {
        for (address, id) in frontends {
            self.ids.adopt(address, id.0);
        }
    }

    /// A Service appeared or changed.
    pub fn upsert_service(&mut self, service: Service) {
        if self.services.get(&service.name) != Some(&service) {
            self.dirty.insert(service.name.clone());
            self.services.insert(service.name.clone(), service);
        }
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, name: &NamespacedName) {
        if self.services.remove(name).is_some() {
            self.dirty.insert(name.clone());
        }
    }

    /// A slice appeared or changed, perhaps its owner too.
    pub fn upsert_slice(&mut self, slice: Slice) {
        if self.owners.get(&slice.name).is_some_and(|owner| *owner != slice.service) {
            self.remove_slice(&slice.name);
        }
        let siblings = self.slices.entry(slice.service.clone()).or_default();
        if siblings.get(&slice.name) != Some(&slice) {
            self.dirty.insert(slice.service.clone());
            self.owners.insert(slice.name.clone(), slice.service.clone());
            siblings.insert(slice.name.clone(), slice);
        }
    }

    /// A slice is gone.
    pub fn remove_slice(&mut self, name: &NamespacedName) {
        let Some(owner) = self.owners.remove(name) else { return };
        if let Some(siblings) = self.slices.get_mut(&owner) {
            siblings.remove(name);
            if siblings.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.dirty.insert(owner);
    }

    /// Names of all Services, for re-lists.
    pub fn services(&self) -> impl Iterator<Item = &NamespacedName> {
        self.services.keys()
    }

    /// Names of all slices, for re-lists.
    pub fn slices(&self) -> impl Iterator<Item = &NamespacedName> {
        self.owners.keys()
    }

    /// The namespaces that exist now.
    pub fn set_namespaces(&mut self, namespaces: BTreeSet<String>) -> DnsChange {
        let mut next = self.names.clone();
        next.namespaces = namespaces;
        let change = self.names.change_to(&next);
        self.names = next;
        change
    }

    /// Current frontends.
    #[must_use]
    pub fn frontends(&self) -> &BTreeMap<FrontendAddress, Frontend> {
        &self.frontends
    }

    /// What DNS answers now.
    #[must_use]
    pub fn names(&self) -> &DnsView {
        &self.names
    }

    /// Recomputes what the events since the last call touch.
    pub fn refresh(&mut self) -> Changes {
        let mut changes = Changes::default();
        let names_before: BTreeMap<_, _> =
            self.dirty.iter().map(|name| (name.clone(), self.names.services.get(name).cloned())).collect();
        let dirty = std::mem::take(&mut self.dirty);
        let wanted: Vec<_> = dirty.into_iter().map(|name| (self.refresh_names(&name), name)).collect();
        // Removals first: an address may move from one Service to another within one refresh.
        for (wanted, name) in &wanted {
            self.remove_unwanted(name, wanted, &mut changes);
        }
        for (wanted, name) in wanted {
            for (address, wish) in wanted {
                self.write_frontend(&name, address, wish, &mut changes);
            }
        }
        for (name, before) in names_before {
            match (self.names.services.get(&name), before) {
                (None, Some(_)) => {
                    changes.names.removed_services.insert(name);
                }
                (Some(target), before) if before.as_ref() != Some(target) => {
                    changes.names.services.insert(name, target.clone());
                }
                _ => {}
            }
        }
        changes
    }

    /// Says that Services and slices were listed in full: adopted numbers that nobody uses become free.
    pub fn settle(&mut self) {
        if !self.settled {
            self.settled = true;
            let frontends = &self.frontends;
            self.ids.retain(|address| frontends.contains_key(address));
        }
    }

    /// Updates what DNS answers for a Service, and says which frontends it should have.
    fn refresh_names(&mut self, name: &NamespacedName) -> BTreeMap<FrontendAddress, Wish> {
        match self.services.get(name).and_then(|service| names::target(service, self.slices_of(name))) {
            Some(target) => self.names.services.insert(name.clone(), target),
            None => self.names.services.remove(name),
        };
        self.services.get(name).map(|service| self.wanted(service)).unwrap_or_default()
    }

    fn remove_unwanted(
        &mut self,
        name: &NamespacedName,
        wanted: &BTreeMap<FrontendAddress, Wish>,
        changes: &mut Changes,
    ) {
        let before = self.by_service.get(name).cloned().unwrap_or_default();
        for address in before.iter().filter(|address| !wanted.contains_key(address)) {
            self.remove_frontend(address, changes);
        }
    }

    fn slices_of(&self, name: &NamespacedName) -> impl Iterator<Item = &Slice> {
        self.slices.get(name).into_iter().flat_map(BTreeMap::values)
    }

    fn wanted(&self, service: &Service) -> BTreeMap<FrontendAddress, Wish> {
        let ServiceTarget::Cluster(addresses) = &service.target else { return BTreeMap::new() };
        if service.foreign {
            return BTreeMap::new();
        }
        let ports = |ip: IpAddr| service.ports.iter().map(move |port| (ip, port));
        addresses.iter().flat_map(|&ip| ports(ip)).map(|(ip, port)| self.wish(service, ip, port)).collect()
    }

    fn wish(&self, service: &Service, ip: IpAddr, port: &ServicePort) -> (FrontendAddress, Wish) {
        let slices = self.slices_of(&service.name);
        let wish = Wish {
            port_name: port.name.clone(),
            affinity_seconds: service.affinity_seconds,
            backends: select::backends(service, port, IpFamily::of(ip), slices, &self.node),
        };
        (FrontendAddress { ip, port: port.port, protocol: port.protocol }, wish)
    }

    fn write_frontend(
        &mut self,
        name: &NamespacedName,
        address: FrontendAddress,
        wish: Wish,
        changes: &mut Changes,
    ) {
        let held_by_other = self.frontends.get(&address).is_some_and(|frontend| frontend.service != *name);
        if held_by_other {
            // Two Services cannot share a cluster IP; the holder stays until it is gone.
            self.dirty.insert(name.clone());
            return;
        }
        let Some(id) = self.ids.number(&address) else { return };
        let next = Frontend {
            id: FrontendId(id),
            address,
            kind: FrontendKind::ClusterIp,
            service: name.clone(),
            port_name: wish.port_name,
            backends: wish.backends,
            affinity_seconds: wish.affinity_seconds,
        };
        self.by_service.entry(name.clone()).or_default().insert(address);
        if self.frontends.get(&address) != Some(&next) {
            changes.frontends.insert(address, next.clone());
            self.frontends.insert(address, next);
        }
    }

    fn remove_frontend(&mut self, address: &FrontendAddress, changes: &mut Changes) {
        let Some(frontend) = self.frontends.remove(address) else { return };
        self.ids.release(address);
        if let Some(addresses) = self.by_service.get_mut(&frontend.service) {
            addresses.remove(address);
            if addresses.is_empty() {
                self.by_service.remove(&frontend.service);
            }
        }
        changes.removed_frontends.insert(*address, frontend.id);
    }
}

/// A frontend before it has a number.
struct Wish {
    port_name: String,
    affinity_seconds: Option<u32>,
    backends: Vec<Backend>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skep_model::{Port, Protocol};

    use super::*;
    use crate::input::{Endpoint, InternalPolicy, SlicePort};

    fn name(n: u8) -> NamespacedName {
        NamespacedName::new("ns", format!("s{n}"))
    }

    fn port(n: u16) -> Port {
        Port::new(n).unwrap()
    }

    fn service(n: u8, address: u8, local: bool) -> Service {
        let ports = vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: port(80) }];
        Service {
            name: name(n),
            target: ServiceTarget::Cluster(vec![[10, 96, 0, address].into()]),
            ports,
            internal_policy: if local { InternalPolicy::Local } else { InternalPolicy::Cluster },
            affinity_seconds: None,
            foreign: false,
        }
    }

    fn slice(n: u8, owner: u8, endpoints: &[(u8, u8)]) -> Slice {
        let endpoint = |&(address, flags): &(u8, u8)| Endpoint {
            addresses: vec![[10, 244, 0, address].into()],
            ready: flags & 1 == 0,
            serving: flags & 2 == 0,
            terminating: flags & 4 == 0,
            node: Some(if flags & 8 == 0 { "here".into() } else { "there".into() }),
            hostname: None,
        };
        Slice {
            name: NamespacedName::new("ns", format!("slice{n}")),
            service: name(owner),
            family: Some(IpFamily::V4),
            ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: port(8080) }],
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Service(u8, bool),
        RemoveService(u8),
        Slice(u8, u8, Vec<(u8, u8)>),
        RemoveSlice(u8),
        Refresh,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let endpoints = proptest::collection::vec((0u8..6, 0u8..16), 0..4);
        prop_oneof![
            (0u8..4, any::<bool>()).prop_map(|(n, local)| Step::Service(n, local)),
            (0u8..4).prop_map(Step::RemoveService),
            (0u8..6, 0u8..4, endpoints).prop_map(|(n, owner, endpoints)| Step::Slice(n, owner, endpoints)),
            (0u8..6).prop_map(Step::RemoveSlice),
            Just(Step::Refresh),
            Just(Step::Restart),
        ]
    }

    /// The naive model: for each Service, walk all slices and all endpoints.
    fn naive(
        services: &BTreeMap<u8, Service>,
        slices: &BTreeMap<u8, Slice>,
    ) -> BTreeMap<IpAddr, BTreeSet<IpAddr>> {
        let mut result = BTreeMap::new();
        for service in services.values() {
            let all = || {
                slices
                    .values()
                    .filter(|slice| slice.service == service.name)
                    .flat_map(|slice| &slice.endpoints)
                    .filter(|endpoint| {
                        service.internal_policy == InternalPolicy::Cluster
                            || endpoint.node.as_deref() == Some("here")
                    })
            };
            let mut chosen: BTreeSet<IpAddr> = all().filter(|e| e.ready).map(|e| e.addresses[0]).collect();
            if chosen.is_empty() {
                chosen = all().filter(|e| e.serving && e.terminating).map(|e| e.addresses[0]).collect();
            }
            let ServiceTarget::Cluster(addresses) = &service.target else { continue };
            result.insert(addresses[0], chosen);
        }
        result
    }

    proptest! {
        #[test]
        fn equals_the_naive_model_and_keeps_numbers(steps in proptest::collection::vec(step(), 0..60)) {
            let mut balancer = LoadBalancer::new("here");
            let (mut services, mut slices) = (BTreeMap::new(), BTreeMap::new());
            let mut numbers: BTreeMap<FrontendAddress, FrontendId> = BTreeMap::new();
            for step in steps.into_iter().chain([Step::Refresh]) {
                match step {
                    Step::Service(n, local) => {
                        services.insert(n, service(n, n, local));
                        balancer.upsert_service(service(n, n, local));
                    }
                    Step::RemoveService(n) => {
                        services.remove(&n);
                        balancer.remove_service(&name(n));
                    }
                    Step::Slice(n, owner, endpoints) => {
                        slices.insert(n, slice(n, owner, &endpoints));
                        balancer.upsert_slice(slice(n, owner, &endpoints));
                    }
                    Step::RemoveSlice(n) => {
                        slices.remove(&n);
                        balancer.remove_slice(&NamespacedName::new("ns", format!("slice{n}")));
                    }
                    Step::Restart => {
                        balancer = LoadBalancer::new("here");
                        balancer.adopt(numbers.clone());
                        services.values().for_each(|service| balancer.upsert_service(service.clone()));
                        slices.values().for_each(|slice| balancer.upsert_slice(slice.clone()));
                        balancer.refresh();
                        balancer.settle();
                        // What nobody wants any more is pruned from the maps.
                        numbers.retain(|address, _| balancer.frontends().contains_key(address));
                    }
                    Step::Refresh => {
                        let changes = balancer.refresh();
                        for address in changes.removed_frontends.keys() {
                            numbers.remove(address);
                        }
                        for (address, frontend) in &changes.frontends {
                            let known = numbers.insert(*address, frontend.id);
                            prop_assert!(known.is_none_or(|id| id == frontend.id));
                        }
                        let seen: BTreeMap<_, _> = balancer.frontends().values().map(|frontend| {
                            (frontend.address.ip, frontend.backends.iter().map(|backend| backend.ip).collect())
                        }).collect();
                        prop_assert_eq!(seen, naive(&services, &slices));
                        let ids: BTreeSet<_> = balancer.frontends().values().map(|frontend| frontend.id).collect();
                        prop_assert_eq!(ids.len(), balancer.frontends().len());
                        prop_assert!(balancer.refresh().is_empty());
                    }
                }
                for (address, id) in &numbers {
                    prop_assert!(balancer.frontends().get(address).is_none_or(|frontend| frontend.id == *id));
                }
            }
        }
    }

    #[test]
    fn an_address_moves_from_one_service_to_another_in_one_refresh() {
        let mut balancer = LoadBalancer::new("here");
        balancer.upsert_service(service(2, 9, false));
        balancer.refresh();
        balancer.remove_service(&name(2));
        balancer.upsert_service(service(1, 9, false));
        let changes = balancer.refresh();
        assert_eq!((changes.removed_frontends.len(), changes.frontends.len()), (1, 1));
        assert_eq!(balancer.frontends().values().next().unwrap().service, name(1));
    }

    #[test]
    fn a_stolen_address_stays_with_its_holder_until_that_is_gone() {
        let mut balancer = LoadBalancer::new("here");
        balancer.upsert_service(service(2, 9, false));
        balancer.refresh();
        balancer.upsert_service(service(1, 9, false));
        balancer.refresh();
        assert_eq!(balancer.frontends().values().next().unwrap().service, name(2));
        balancer.remove_service(&name(2));
        balancer.refresh();
        assert_eq!(balancer.frontends().values().next().unwrap().service, name(1));
    }
}
