//! What is kept of one Service, or one pod with host ports.

use std::{collections::BTreeSet, net::IpAddr};

use skep_model::{Backend, FrontendAddress, SetId};

use crate::{
    context::Context,
    frontend::{FrontendKey, Set},
    input::{HostPorts, Service, Slice},
    plan::{self, Plan, SetKey},
    problem::Problem,
};

/// The object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Subject {
    /// Gone, or not seen yet while its slices are.
    #[default]
    None,
    /// A Service.
    Service(Box<Service>),
    /// A pod.
    Pod(Box<HostPorts>),
}

/// A set with its number.
#[derive(Clone, Debug)]
pub(super) struct NumberedSet {
    pub(super) key: SetKey,
    pub(super) id: SetId,
    pub(super) set: Set,
    /// Backends that left the set but still answer: they end, with the flows that they have.
    pub(super) lingering: Vec<Backend>,
}

impl NumberedSet {
    /// Whether it holds exactly these backends.
    pub(super) fn holds(&self, backends: &BTreeSet<Backend>) -> bool {
        self.set.backends.len() == backends.len()
            && self.set.backends.iter().all(|backend| backends.contains(backend))
    }
}

/// One object, and what it has.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) subject: Subject,
    pub(super) slices: Vec<Slice>,
    pub(super) sets: Vec<NumberedSet>,
    pub(super) rows: Vec<FrontendKey>,
    /// When the object was created that the rows were claimed for.
    pub(super) claimed_at: i64,
    /// Addresses that older objects have.
    pub(super) waits: Vec<FrontendAddress>,
    pub(super) problems: BTreeSet<Problem>,
}

impl Entry {
    pub(super) fn service(&self) -> Option<&Service> {
        match &self.subject {
            Subject::Service(service) => Some(service),
            Subject::None | Subject::Pod(_) => None,
        }
    }

    /// When the object was created; one that is gone has no claim to anything.
    pub(super) fn created(&self) -> i64 {
        match &self.subject {
            Subject::Service(service) => service.created,
            Subject::Pod(pod) => pod.created,
            Subject::None => i64::MAX,
        }
    }

    pub(super) fn plan(&self, context: &Context) -> Plan {
        match &self.subject {
            Subject::Service(service) => plan::service(service, &self.slices, context),
            Subject::Pod(pod) => plan::host_ports(pod, context),
            Subject::None => Plan::default(),
        }
    }

    /// Takes in a slice; true when it is news.
    pub(super) fn put_slice(&mut self, slice: Slice) -> bool {
        match self.slices.iter_mut().find(|known| known.name == slice.name) {
            Some(known) if *known == slice => return false,
            Some(known) => *known = slice,
            None => {
                self.slices.reserve_exact(1);
                self.slices.push(slice);
            }
        }
        true
    }

    /// Whether an endpoint has one of the addresses.
    pub(super) fn leads_to_any(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let mut endpoints = self.slices.iter().flat_map(|slice| &slice.endpoints);
        !addresses.is_empty() && endpoints.any(|endpoint| addresses.contains(&endpoint.address))
    }

    /// Whether there is anything to remember.
    pub(super) fn is_needed(&self) -> bool {
        !matches!(self.subject, Subject::None) || !self.slices.is_empty()
    }
}
