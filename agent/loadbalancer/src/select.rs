//! Which endpoints a Service port uses now.
//!
//! The order of preference is Kubernetes': ready endpoints; if there are none, those that still serve while they
//! terminate (KEP-1669). Hints narrow the choice to the node's or its zone's (KEP-2433, KEP-3015), but only if every
//! ready endpoint has one and the narrowed choice is not empty. With a policy of `Local` the choice is made among this
//! node's endpoints only, and an empty choice stays empty (KEP-2086).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use skep_model::{Backend, IpFamily, NamespacedName};

use crate::{
    context::Context,
    input::{Endpoint, ServicePort, Slice},
    problem::Problem,
    safety,
};

/// The endpoints of one port and family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// For clients that may use any node's.
    pub all: BTreeSet<Backend>,
    /// For clients that may use this node's only.
    pub local: BTreeSet<Backend>,
    /// Everything that could be used, be it elsewhere or later.
    pub usable: BTreeSet<Backend>,
}

/// What an endpoint is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    /// New connections, when nobody is ready.
    Terminating,
    /// New connections.
    Ready,
}

impl Condition {
    /// `None` when it is good for nothing.
    fn of(endpoint: &Endpoint) -> Option<Self> {
        match (endpoint.ready, endpoint.serving && endpoint.terminating) {
            (true, _) => Some(Condition::Ready),
            (false, true) => Some(Condition::Terminating),
            (false, false) => None,
        }
    }
}

/// Chooses among the endpoints of one port and family; what is refused is added to `problems`.
#[must_use]
pub fn choose<'a>(
    service: &NamespacedName,
    port: &ServicePort,
    family: IpFamily,
    slices: impl Iterator<Item = &'a Slice>,
    context: &Context,
    problems: &mut BTreeSet<Problem>,
) -> Choice {
    let mut usable: BTreeMap<Backend, (Condition, &Endpoint)> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.family == Some(family) && !slice.excluded) {
        let targets = slice.ports.iter();
        for target in targets.filter(|target| *target.name == *port.name && target.protocol == port.protocol)
        {
            for endpoint in &slice.endpoints {
                let Some(condition) = Condition::of(endpoint) else { continue };
                if let Some(why) = safety::endpoint(endpoint, service, context) {
                    problems.insert(Problem::Endpoint(endpoint.address, why));
                    continue;
                }
                let backend = Backend { ip: endpoint.address, port: target.port, protocol: target.protocol };
                // While an endpoint moves between slices it is in both.
                let known = usable.entry(backend).or_insert((condition, endpoint));
                if known.0 < condition {
                    *known = (condition, endpoint);
                }
            }
        }
    }
    Candidates(usable).choose(context)
}

/// Addresses of this node's ready endpoints, over all ports: what load balancers ask for.
pub fn local_ready<'a>(slices: impl Iterator<Item = &'a Slice>, node: &str) -> usize {
    let here = |endpoint: &&Endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node);
    let endpoints = slices.filter(|slice| !slice.excluded).flat_map(|slice| &slice.endpoints);
    let addresses: BTreeSet<IpAddr> = endpoints.filter(here).map(|endpoint| endpoint.address).collect();
    addresses.len()
}

struct Candidates<'a>(BTreeMap<Backend, (Condition, &'a Endpoint)>);

impl Candidates<'_> {
    fn choose(&self, context: &Context) -> Choice {
        let here = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(context.node.as_str());
        let meant = self.hinted(context);
        let all =
            self.pick(|condition, endpoint| condition == Condition::Ready && meant.admits(endpoint, context));
        let local = self.pick(|condition, endpoint| condition == Condition::Ready && here(endpoint));
        let terminating = |admit: &dyn Fn(&Endpoint) -> bool| {
            self.pick(|condition, endpoint| condition == Condition::Terminating && admit(endpoint))
        };
        Choice {
            all: if all.is_empty() { terminating(&|_| true) } else { all },
            local: if local.is_empty() { terminating(&here) } else { local },
            usable: self.0.keys().copied().collect(),
        }
    }

    fn pick(&self, admit: impl Fn(Condition, &Endpoint) -> bool) -> BTreeSet<Backend> {
        let picked = self.0.iter().filter(|(_, (condition, endpoint))| admit(*condition, endpoint));
        picked.map(|(backend, _)| *backend).collect()
    }

    /// How far hints narrow the choice.
    fn hinted(&self, context: &Context) -> Meant {
        let ready: Vec<&Endpoint> = self
            .0
            .values()
            .filter(|(condition, _)| *condition == Condition::Ready)
            .map(|(_, endpoint)| *endpoint)
            .collect();
        let narrows = |meant: Meant| {
            ready.iter().all(|endpoint| meant.is_hinted(endpoint))
                && ready.iter().any(|endpoint| meant.admits(endpoint, context))
        };
        [Meant::Node, Meant::Zone].into_iter().find(|meant| narrows(*meant)).unwrap_or(Meant::Everybody)
    }
}

/// Whose endpoints are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meant {
    /// Those meant for this node.
    Node,
    /// Those meant for its zone.
    Zone,
    /// All.
    Everybody,
}

impl Meant {
    fn is_hinted(self, endpoint: &Endpoint) -> bool {
        let Some(hints) = &endpoint.hints else { return false };
        match self {
            Meant::Node => !hints.nodes.is_empty(),
            Meant::Zone => !hints.zones.is_empty(),
            Meant::Everybody => true,
        }
    }

    fn admits(self, endpoint: &Endpoint, context: &Context) -> bool {
        let names = |list: &[Box<str>], name: &str| list.iter().any(|one| **one == *name);
        let hints = endpoint.hints.as_deref();
        match self {
            Meant::Node => hints.is_some_and(|hints| names(&hints.nodes, &context.node)),
            Meant::Zone => {
                let zone = context.zone.as_deref();
                zone.is_some_and(|zone| hints.is_some_and(|hints| names(&hints.zones, zone)))
            }
            Meant::Everybody => true,
        }
    }
}
