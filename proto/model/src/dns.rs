//! What the node's DNS answers from: Services as names, not as frontends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    name::NamespacedName,
    port::{Port, Protocol},
};

/// Everything that cluster names can resolve to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsView {
    /// Services by name.
    pub services: BTreeMap<NamespacedName, DnsTarget>,
    /// Namespaces that exist; their names answer even when they hold no Service.
    pub namespaces: BTreeSet<String>,
}

/// What a Service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsTarget {
    /// Cluster IPs, one a family.
    Cluster {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// Ports of the Service.
        ports: Vec<DnsPort>,
    },
    /// The endpoints themselves.
    Headless(Vec<HeadlessSubset>),
    /// Another name.
    External(String),
}

/// Endpoints with the same ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeadlessSubset {
    /// Ports of the endpoints (not of the Service).
    pub ports: Vec<DnsPort>,
    /// The endpoints that may be published.
    pub endpoints: Vec<HeadlessEndpoint>,
}

/// One address of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeadlessEndpoint {
    /// Address of the pod.
    pub address: IpAddr,
    /// The pod's hostname, when it has asked for one.
    pub hostname: Option<String>,
}

/// A port that SRV records name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsPort {
    /// Name; an unnamed port has no SRV record.
    pub name: Option<String>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: Port,
}

/// The difference between two views.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsChange {
    /// Services that are new or different.
    pub services: BTreeMap<NamespacedName, DnsTarget>,
    /// Services that are gone.
    pub removed_services: BTreeSet<NamespacedName>,
    /// Namespaces that are new.
    pub namespaces: BTreeSet<String>,
    /// Namespaces that are gone.
    pub removed_namespaces: BTreeSet<String>,
}

impl DnsChange {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == DnsChange::default()
    }
}

impl DnsView {
    /// What turns `self` into `next`.
    #[must_use]
    pub fn change_to(&self, next: &DnsView) -> DnsChange {
        DnsChange {
            services: next
                .services
                .iter()
                .filter(|(name, target)| self.services.get(*name) != Some(target))
                .map(|(name, target)| (name.clone(), target.clone()))
                .collect(),
            removed_services: self
                .services
                .keys()
                .filter(|name| !next.services.contains_key(*name))
                .cloned()
                .collect(),
            namespaces: next.namespaces.difference(&self.namespaces).cloned().collect(),
            removed_namespaces: self.namespaces.difference(&next.namespaces).cloned().collect(),
        }
    }

    /// Applies a change; applying one twice is the same as once.
    pub fn apply(&mut self, change: DnsChange) {
        for name in &change.removed_services {
            self.services.remove(name);
        }
        self.services.extend(change.services);
        for name in &change.removed_namespaces {
            self.namespaces.remove(name);
        }
        self.namespaces.extend(change.namespaces);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(names: BTreeMap<u8, u8>, namespaces: BTreeSet<u8>) -> DnsView {
        DnsView {
            services: names
                .into_iter()
                .map(|(name, target)| {
                    (NamespacedName::new("ns", name.to_string()), DnsTarget::External(target.to_string()))
                })
                .collect(),
            namespaces: namespaces.into_iter().map(|name| name.to_string()).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_change_turns_one_view_into_the_other(
            old: BTreeMap<u8, u8>, new: BTreeMap<u8, u8>, before: BTreeSet<u8>, after: BTreeSet<u8>,
        ) {
            let (mut old, new) = (view(old, before), view(new, after));
            let change = old.change_to(&new);
            prop_assert_eq!(change.is_empty(), old == new);
            old.apply(change.clone());
            prop_assert_eq!(&old, &new);
            old.apply(change);
            prop_assert_eq!(&old, &new);
        }
    }
}
