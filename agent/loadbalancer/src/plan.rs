//! What one Service, or one pod with host ports, should have: sets of backends and the rows that lead to them.
//!
//! Every port has at most two sets a family: the endpoints of all nodes, and those of this node. Inside clients of
//! external addresses use the former whatever `externalTrafficPolicy` says, as if they had used the cluster IP; outside
//! clients use the latter where it says `Local`, through a row of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use skep_model::{Backend, FrontendAddress, FrontendKind, IpCidr, IpFamily, Port, Protocol, Scope};

use crate::{
    context::Context,
    frontend::{FrontendFlags, FrontendKey, HealthCheck, any_address},
    input::{External, HostPorts, Service, ServicePort, ServiceTarget, Slice, TrafficPolicy},
    problem::Problem,
    safety,
    select::{self, Choice},
};

/// Which endpoints a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Those of all nodes.
    All,
    /// Those of this node.
    Local,
}

/// Names a set within its Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetKey {
    /// Name of the port.
    pub(crate) port: Arc<str>,
    /// Protocol of the port.
    pub(crate) protocol: Protocol,
    /// Family of the backends.
    pub(crate) family: IpFamily,
    /// Which endpoints.
    pub(crate) reach: Reach,
}

/// A set before it has a number and slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WantedSet {
    pub(crate) backends: BTreeSet<Backend>,
    /// What still answers, be it chosen or not.
    pub(crate) usable: BTreeSet<Backend>,
    pub(crate) maglev: bool,
    pub(crate) sources: Vec<IpCidr>,
}

/// A row before its set has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedRow {
    pub(crate) set: SetKey,
    pub(crate) kind: FrontendKind,
    pub(crate) flags: FrontendFlags,
    pub(crate) affinity_seconds: u32,
}

/// Everything that one object should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) sets: BTreeMap<SetKey, WantedSet>,
    pub(crate) rows: BTreeMap<FrontendKey, WantedRow>,
    pub(crate) problems: BTreeSet<Problem>,
    pub(crate) health: Option<HealthCheck>,
}

/// What a Service should have.
pub(crate) fn service(service: &Service, slices: &[Slice], context: &Context) -> Plan {
    let mut plan = Plan::default();
    let faults = service.faults.iter().chain(slices.iter().flat_map(|slice| &slice.faults));
    plan.problems.extend(faults.cloned().map(Problem::Malformed));
    let ServiceTarget::Cluster(cluster_ips) = &service.target else { return plan };
    if service.excluded {
        return plan;
    }
    let allowed = service.external.as_deref().map(|external| allow(external, context, &mut plan.problems));
    let mut families: BTreeSet<IpFamily> = cluster_ips.iter().map(|ip| IpFamily::of(*ip)).collect();
    families.extend(service.external.iter().flat_map(|external| external.families.iter().copied()));
    families.extend(allowed.iter().flatten().map(|(ip, _)| IpFamily::of(*ip)));
    for port in &service.ports {
        for &family in &families {
            let choice =
                select::choose(&service.name, port, family, slices.iter(), context, &mut plan.problems);
            note_sctp(port, &choice, &mut plan.problems);
            let mut rows = Rows { plan: &mut plan, service, port, family, choice: &choice, context };
            cluster_ips.iter().filter(|ip| IpFamily::of(**ip) == family).for_each(|ip| rows.cluster_ip(*ip));
            if let (Some(external), Some(allowed)) = (&service.external, &allowed) {
                rows.external(external, allowed);
            }
        }
    }
    plan.health = health(service, slices, context);
    plan
}

/// What a pod with host ports should have.
pub(crate) fn host_ports(pod: &HostPorts, context: &Context) -> Plan {
    let mut plan = Plan::default();
    for port in &pod.ports {
        for &ip in &pod.addresses {
            let family = IpFamily::of(ip);
            let set = SetKey {
                port: Arc::from(port.host_port.to_string()),
                protocol: port.protocol,
                family,
                reach: Reach::Local,
            };
            let on = context.addresses.iter().filter(|own| {
                IpFamily::of(**own) == family && port.host_ip.is_none_or(|chosen| chosen == **own)
            });
            for &own in on {
                let address = FrontendAddress { ip: own, port: port.host_port, protocol: port.protocol };
                let flags = FrontendFlags { external: true, ..FrontendFlags::default() };
                let row =
                    WantedRow { set: set.clone(), kind: FrontendKind::HostPort, flags, affinity_seconds: 0 };
                plan.rows.entry(FrontendKey { address, scope: Scope::Inside }).or_insert(row);
                let backend = Backend { ip, port: port.port, protocol: port.protocol };
                plan.sets.entry(set.clone()).or_default().backends.insert(backend);
            }
        }
    }
    plan
}

/// The Service's external addresses that it may have.
fn allow(
    external: &External,
    context: &Context,
    problems: &mut BTreeSet<Problem>,
) -> Vec<(IpAddr, FrontendKind)> {
    let mut allowed = Vec::new();
    let listed = external.balancer_ips.iter().map(|ip| (*ip, FrontendKind::LoadBalancer));
    for (ip, kind) in listed.chain(external.external_ips.iter().map(|ip| (*ip, FrontendKind::ExternalIp))) {
        let ranges = &context.settings.external_ranges;
        if kind == FrontendKind::ExternalIp && !ranges.iter().any(|range| range.contains(ip)) {
            problems.insert(Problem::ExternalIp(ip));
        } else if let Some(why) = safety::frontend(ip, context) {
            problems.insert(Problem::Address(ip, why));
        } else {
            allowed.push((ip, kind));
        }
    }
    allowed
}

/// The checksum of SCTP covers the ports, which the data path therefore leaves alone.
fn note_sctp(port: &ServicePort, choice: &Choice, problems: &mut BTreeSet<Problem>) {
    if port.protocol == Protocol::Sctp {
        let other = choice.all.iter().chain(&choice.local).find(|backend| backend.port != port.port);
        problems.extend(other.map(|backend| Problem::SctpPort { port: port.port, target: backend.port }));
    }
}

fn health(service: &Service, slices: &[Slice], context: &Context) -> Option<HealthCheck> {
    let external = service.external.as_deref().filter(|external| external.policy == TrafficPolicy::Local)?;
    let local_endpoints = select::local_ready(slices.iter(), &context.node);
    Some(HealthCheck { port: external.health_check_port?.get(), local_endpoints })
}

/// Adds the rows of one port and family.
struct Rows<'a> {
    plan: &'a mut Plan,
    service: &'a Service,
    port: &'a ServicePort,
    family: IpFamily,
    choice: &'a Choice,
    context: &'a Context,
}

impl Rows<'_> {
    fn cluster_ip(&mut self, ip: IpAddr) {
        let reach = reach_of(self.service.internal_policy);
        self.row(
            FrontendKind::ClusterIp,
            (ip, self.port.port),
            Scope::Inside,
            reach,
            FrontendFlags::default(),
        );
    }

    fn external(&mut self, external: &External, allowed: &[(IpAddr, FrontendKind)]) {
        let family = self.family;
        for &(ip, kind) in allowed.iter().filter(|(ip, _)| IpFamily::of(*ip) == family) {
            self.outside(kind, (ip, self.port.port), external);
        }
        if let Some(port) = self.port.node_port.filter(|_| external.families.contains(&self.family)) {
            self.outside(FrontendKind::NodePort, (any_address(self.family), port), external);
        }
    }

    /// The rows of an address that outside clients may use.
    fn outside(&mut self, kind: FrontendKind, at: (IpAddr, Port), external: &External) {
        let sources = external.source_ranges.as_ref().filter(|_| kind == FrontendKind::LoadBalancer);
        let is_local = external.policy == TrafficPolicy::Local;
        let flags =
            FrontendFlags { external: true, source_ranges: sources.is_some(), ..FrontendFlags::default() };
        let inside = FrontendFlags { split: is_local, ..flags };
        let mut rows = vec![(Scope::Inside, Reach::All, inside)];
        if is_local {
            rows.push((Scope::Outside, Reach::Local, flags));
        }
        if self.context.settings.direct_return {
            // The node that passed the packet on has applied the source ranges.
            rows.push((Scope::Local, Reach::Local, FrontendFlags { source_ranges: false, ..flags }));
        }
        let family = self.family;
        for (scope, reach, flags) in rows {
            let set = self.row(kind, at, scope, reach, flags);
            set.maglev = true;
            if let Some(sources) = sources.filter(|_| flags.source_ranges) {
                let of_family = sources.iter().filter(|range| range.family() == family);
                set.sources = of_family.copied().collect();
            }
        }
    }

    fn row(
        &mut self,
        kind: FrontendKind,
        (ip, port): (IpAddr, Port),
        scope: Scope,
        reach: Reach,
        flags: FrontendFlags,
    ) -> &mut WantedSet {
        let protocol = self.port.protocol;
        let set = SetKey { port: Arc::clone(&self.port.name), protocol, family: self.family, reach };
        let backends = if reach == Reach::All { &self.choice.all } else { &self.choice.local };
        let silent = reach == Reach::Local && backends.is_empty() && !self.choice.usable.is_empty();
        let row = WantedRow {
            set: set.clone(),
            kind,
            flags: FrontendFlags { silent, ..flags },
            affinity_seconds: self.service.affinity_seconds.unwrap_or(0),
        };
        let address = FrontendAddress { ip, port, protocol };
        // An address that a Service has twice is what it was first.
        self.plan.rows.entry(FrontendKey { address, scope }).or_insert(row);
        let fresh = || WantedSet {
            backends: backends.clone(),
            usable: self.choice.usable.clone(),
            ..WantedSet::default()
        };
        self.plan.sets.entry(set).or_insert_with(fresh)
    }
}

fn reach_of(policy: TrafficPolicy) -> Reach {
    match policy {
        TrafficPolicy::Cluster => Reach::All,
        TrafficPolicy::Local => Reach::Local,
    }
}
