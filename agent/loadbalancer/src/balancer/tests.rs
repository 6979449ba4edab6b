//! The load balancer against a naive model, over steps in any order.

use proptest::prelude::*;
use skep_model::{FrontendKind, IpFamily, Port, Protocol};

use super::*;
use crate::input::{
    Endpoint, External, HostPort, ServiceKind, ServicePort, ServiceTarget, SlicePort, TrafficPolicy,
};

fn name(n: u8) -> NamespacedName {
    NamespacedName::new("ns", format!("s{n}"))
}

fn port(n: u16) -> Port {
    Port::new(n).unwrap()
}

/// What a Service of the tests may be: its address, policies, an external IP that it shares, a node port.
#[derive(Clone, Copy, Debug)]
struct Shape {
    address: u8,
    local: bool,
    external_local: bool,
    external_ip: Option<u8>,
    node_port: bool,
    created: u8,
}

fn service(n: u8, shape: Shape) -> Service {
    let node_port = shape.node_port.then(|| port(30_000 + u16::from(n)));
    let policy = |local| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    let is_external = shape.node_port || shape.external_ip.is_some();
    Service {
        name: name(n),
        kind: ServiceKind::ClusterIp,
        created: shape.created.into(),
        target: ServiceTarget::Cluster(vec![[10, 96, 0, shape.address].into()]),
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: port(80), node_port }],
        internal_policy: policy(shape.local),
        affinity_seconds: None,
        excluded: false,
        external: is_external.then(|| {
            Box::new(External {
                policy: policy(shape.external_local),
                families: vec![IpFamily::V4],
                external_ips: shape.external_ip.map(|ip| [192, 0, 2, ip].into()).into_iter().collect(),
                balancer_ips: Vec::new(),
                source_ranges: None,
                health_check_port: None,
            })
        }),
        faults: Vec::new(),
    }
}

fn slice(n: u8, owner: u8, endpoints: &[(u8, u8)]) -> Slice {
    let endpoint = |&(address, flags): &(u8, u8)| Endpoint {
        address: [10, 244, 0, address].into(),
        ready: flags & 1 == 0,
        serving: flags & 2 == 0,
        terminating: flags & 4 == 0,
        is_pod: true,
        node: Some(if address % 2 == 0 { "here".into() } else { "there".into() }),
        hostname: None,
        hints: None,
    };
    Slice {
        name: NamespacedName::new("ns", format!("slice{n}")),
        service: name(owner),
        family: Some(IpFamily::V4),
        excluded: false,
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: port(8080) }],
        endpoints: endpoints.iter().map(endpoint).collect(),
        faults: Vec::new(),
    }
}

fn context() -> Context {
    let settings = crate::Settings {
        maglev: Some(251),
        external_ranges: vec!["192.0.2.0/24".parse().unwrap()],
        ..crate::Settings::default()
    };
    Context { node: "here".into(), addresses: [[10, 0, 0, 1].into()].into(), settings, ..Context::default() }
}

#[derive(Clone, Debug)]
enum Step {
    Service(u8, Shape),
    RemoveService(u8),
    Slice(u8, u8, Vec<(u8, u8)>),
    RemoveSlice(u8),
    Refresh,
    Restart,
}

fn shape() -> impl Strategy<Value = Shape> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (0u8..3, flags, proptest::option::of(0u8..2), 0u8..4).prop_map(
        |(address, flags, external_ip, created)| {
            let (local, external_local, node_port) = flags;
            Shape { address, local, external_local, external_ip, node_port, created }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let endpoints = proptest::collection::vec((0u8..6, 0u8..8), 0..4);
    prop_oneof![
        (0u8..4, shape()).prop_map(|(n, shape)| Step::Service(n, shape)),
        (0u8..4).prop_map(Step::RemoveService),
        (0u8..6, 0u8..4, endpoints).prop_map(|(n, owner, endpoints)| Step::Slice(n, owner, endpoints)),
        (0u8..6).prop_map(Step::RemoveSlice),
        Just(Step::Refresh),
        Just(Step::Restart),
    ]
}

/// A row as the model has it: whose it is, where it leads.
type Row = (NamespacedName, BTreeSet<IpAddr>);

/// The naive model: Services from the oldest, each takes what nobody has; endpoints by walking all of them.
fn naive(
    services: &BTreeMap<u8, Service>,
    slices: &BTreeMap<u8, Slice>,
) -> BTreeMap<(IpAddr, u16, Scope), Row> {
    let mut oldest: Vec<&Service> = services.values().collect();
    oldest.sort_by_key(|service| (service.created, service.name.clone()));
    let mut rows: BTreeMap<(IpAddr, u16, Scope), Row> = BTreeMap::new();
    for service in oldest {
        let all: Vec<&Endpoint> = slices
            .values()
            .filter(|slice| slice.service == service.name)
            .flat_map(|slice| &slice.endpoints)
            .collect();
        let ready: BTreeSet<IpAddr> = all.iter().filter(|e| e.ready).map(|e| e.address).collect();
        let choose = |local: bool| {
            let here = |e: &&&Endpoint| !local || e.node.as_deref() == Some("here");
            let mut chosen: BTreeSet<IpAddr> =
                all.iter().filter(here).filter(|e| e.ready).map(|e| e.address).collect();
            if chosen.is_empty() {
                let ending = |e: &&&Endpoint| e.serving && e.terminating && !ready.contains(&e.address);
                chosen = all.iter().filter(here).filter(ending).map(|e| e.address).collect();
            }
            chosen
        };
        let ServiceTarget::Cluster(addresses) = &service.target else { continue };
        let mut wants = vec![(addresses[0], 80, service.internal_policy == TrafficPolicy::Local, false)];
        if let Some(external) = &service.external {
            let split = external.policy == TrafficPolicy::Local;
            wants.extend(external.external_ips.iter().map(|ip| (*ip, 80, false, split)));
            wants.extend(
                service.ports[0].node_port.map(|port| ([0, 0, 0, 0].into(), port.get(), false, split)),
            );
        }
        for (ip, port, local, split) in wants {
            if rows.get(&(ip, port, Scope::Inside)).is_some_and(|row| row.0 != service.name) {
                continue;
            }
            rows.insert((ip, port, Scope::Inside), (service.name.clone(), choose(local)));
            if split {
                rows.insert((ip, port, Scope::Outside), (service.name.clone(), choose(true)));
            }
        }
    }
    rows
}

/// What whoever applies every change would have.
#[derive(Default)]
struct Shadow {
    frontends: BTreeMap<FrontendKey, Frontend>,
    sets: BTreeMap<SetId, Set>,
}

impl Shadow {
    fn apply(&mut self, changes: &Changes) {
        for key in &changes.removed_frontends {
            self.frontends.remove(key);
        }
        for id in &changes.removed_sets {
            self.sets.remove(id);
        }
        self.frontends.extend(changes.frontends.clone());
        self.sets.extend(changes.sets.clone());
    }

    fn pinned(&self) -> Pinned {
        Pinned {
            rows: self.frontends.iter().map(|(key, frontend)| (*key, frontend.set)).collect(),
            slots: self.sets.iter().map(|(id, set)| (*id, set.backends.to_vec())).collect(),
        }
    }

    fn check(&self, balancer: &LoadBalancer) {
        assert_eq!(&self.frontends, balancer.frontends());
        for frontend in self.frontends.values() {
            let set = &self.sets[&frontend.set];
            assert_eq!((&set.backends, set.maglev), (&frontend.backends, frontend.maglev));
        }
        let used: BTreeSet<SetId> = self.frontends.values().map(|frontend| frontend.set).collect();
        assert_eq!(used, self.sets.keys().copied().collect());
        let owners: BTreeSet<_> = self.frontends.values().map(|f| (f.set, &f.owner)).collect();
        assert_eq!(owners.len(), used.len(), "two Services share a set");
    }
}

fn seen(balancer: &LoadBalancer) -> BTreeMap<(IpAddr, u16, Scope), Row> {
    let row = |(key, frontend): (&FrontendKey, &Frontend)| {
        let backends = frontend.backends.iter().map(|backend| backend.ip).collect();
        let at = (key.address.ip, key.address.port.get(), key.scope);
        (at, (frontend.owner.name().clone(), backends))
    };
    balancer.frontends().iter().map(row).collect()
}

proptest! {
    #[test]
    fn equals_the_naive_model_and_keeps_numbers(steps in proptest::collection::vec(step(), 0..60)) {
        let mut balancer = LoadBalancer::new(context());
        let mut shadow = Shadow::default();
        let (mut services, mut slices) = (BTreeMap::new(), BTreeMap::new());
        // Numbers are known by their rows: an object that claims an old one's row while nobody looks gets its number.
        let mut unseen = false;
        for step in steps.into_iter().chain([Step::Refresh]) {
            let saw_all = !unseen;
            unseen = !matches!(step, Step::Refresh | Step::Restart);
            match step {
                Step::Service(n, shape) => {
                    services.insert(n, service(n, shape));
                    balancer.upsert_service(service(n, shape));
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
                    let before = shadow.frontends.clone();
                    balancer = LoadBalancer::new(context());
                    balancer.adopt(shadow.pinned());
                    slices.values().rev().for_each(|slice| balancer.upsert_slice(slice.clone()));
                    services.values().rev().for_each(|service| balancer.upsert_service(service.clone()));
                    // What nobody wants any more is pruned from the maps.
                    shadow = Shadow::default();
                    shadow.apply(&balancer.refresh());
                    balancer.settle();
                    for (key, frontend) in balancer.frontends() {
                        let Some(known) = before.get(key).filter(|known| known.owner == frontend.owner) else { continue };
                        if saw_all && known.backends.iter().collect::<BTreeSet<_>>() == frontend.backends.iter().collect() {
                            prop_assert_eq!(&known.backends, &frontend.backends, "slots moved for nothing");
                        }
                    }
                }
                Step::Refresh => {
                    shadow.apply(&balancer.refresh());
                    shadow.check(&balancer);
                    prop_assert_eq!(seen(&balancer), naive(&services, &slices));
                    prop_assert!(balancer.refresh().is_empty());
                }
            }
        }
    }
}

const PLAIN: Shape = Shape {
    address: 9,
    local: false,
    external_local: false,
    external_ip: None,
    node_port: false,
    created: 0,
};

#[test]
fn an_address_moves_from_one_service_to_another_in_one_refresh() {
    let mut balancer = LoadBalancer::new(context());
    balancer.upsert_service(service(2, PLAIN));
    balancer.refresh();
    balancer.remove_service(&name(2));
    balancer.upsert_service(service(1, PLAIN));
    let changes = balancer.refresh();
    assert_eq!((changes.removed_frontends.len(), changes.frontends.len()), (0, 1));
    assert_eq!(balancer.frontends().values().next().unwrap().owner.name(), &name(1));
}

#[test]
fn the_older_service_gets_the_address_whoever_came_first_and_the_other_is_told() {
    let mut balancer = LoadBalancer::new(context());
    balancer.upsert_service(service(1, Shape { created: 5, ..PLAIN }));
    balancer.refresh();
    balancer.upsert_service(service(2, Shape { created: 4, ..PLAIN }));
    let changes = balancer.refresh();
    assert_eq!(balancer.frontends().values().next().unwrap().owner.name(), &name(2));
    assert_eq!(changes.reports.len(), 1);
    assert_eq!(changes.reports[0].owner.name(), &name(1));
    assert_eq!(
        changes.reports[0].problem.to_string(),
        "10.96.0.9:80/TCP is not served for this Service: the older Service ns/s2 has it"
    );
    balancer.remove_service(&name(2));
    balancer.refresh();
    assert_eq!(balancer.frontends().values().next().unwrap().owner.name(), &name(1));
    assert_eq!(balancer.problems().count(), 0);
}

#[test]
fn a_backend_that_goes_is_named_once_for_each_set_it_was_in() {
    let mut balancer = LoadBalancer::new(context());
    balancer.upsert_service(service(1, Shape { external_local: true, node_port: true, ..PLAIN }));
    balancer.upsert_slice(slice(1, 1, &[(2, 0), (1, 0)]));
    balancer.refresh();
    balancer.upsert_slice(slice(1, 1, &[(1, 0)]));
    let lost = balancer.refresh().lost;
    assert_eq!(
        lost.iter().map(|lost| lost.backend.ip).collect::<Vec<_>>(),
        vec![IpAddr::from([10, 244, 0, 2]); 2]
    );
}

#[test]
fn host_ports_are_on_the_addresses_of_the_node_and_follow_them() {
    let mut balancer = LoadBalancer::new(context());
    let ports = vec![
        HostPort { host_ip: None, host_port: port(8080), port: port(80), protocol: Protocol::Tcp },
        HostPort {
            host_ip: Some([10, 0, 0, 2].into()),
            host_port: port(53),
            port: port(53),
            protocol: Protocol::Udp,
        },
    ];
    let pod = HostPorts { name: name(7), created: 0, addresses: vec![[10, 244, 0, 9].into()], ports };
    balancer.upsert_pod(pod);
    balancer.refresh();
    let shown = |balancer: &LoadBalancer| -> Vec<String> {
        balancer
            .frontends()
            .iter()
            .map(|(key, f)| format!("{} {} {}", key.address, f.kind, f.backends[0]))
            .collect()
    };
    assert_eq!(shown(&balancer), ["10.0.0.1:8080/TCP HostPort 10.244.0.9:80/TCP"]);
    balancer.set_context(Context { addresses: [[10, 0, 0, 2].into()].into(), ..context() });
    balancer.refresh();
    assert_eq!(
        shown(&balancer),
        ["10.0.0.2:53/UDP HostPort 10.244.0.9:53/UDP", "10.0.0.2:8080/TCP HostPort 10.244.0.9:80/TCP"]
    );
    assert!(balancer.frontends().values().all(|f| f.kind == FrontendKind::HostPort && f.flags.external));
    balancer.remove_pod(&name(7));
    balancer.refresh();
    assert!(balancer.frontends().is_empty());
}

#[test]
fn one_slice_touches_one_service_however_many_there_are() {
    let mut balancer = LoadBalancer::new(context());
    for n in 0..200 {
        balancer.upsert_service(service(n, Shape { address: n, ..PLAIN }));
        balancer.upsert_slice(slice(n, n, &[(n, 0)]));
    }
    balancer.refresh();
    balancer.upsert_slice(slice(7, 7, &[(7, 0), (8, 0)]));
    let changes = balancer.refresh();
    assert_eq!((changes.sets.len(), changes.frontends.len(), changes.names.services.len()), (1, 1, 1));
    balancer.upsert_slice(slice(7, 7, &[(7, 0), (8, 0)]));
    assert_eq!(balancer.refresh(), Changes::default());
}
