//! Which node owns which address. Pure.
//!
//! A Node's addresses are written by its own kubelet, and they become tunnel ends: who claims an address gets its
//! traffic. So an address is believed only when no older node has it and when it lies in no node's pod range but the
//! claimant's own; a pod range only when it overlaps none that an older node has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use skep_datapath::{Peer, PeerKind};
use skep_model::IpCidr;

use crate::facts::NodeFacts;

/// A claim that is not believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Refusal {
    /// Who claims.
    pub(crate) node: String,
    /// What.
    pub(crate) claim: IpCidr,
    /// Whose it is.
    pub(crate) owner: String,
}

/// What is believed of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Believed {
    /// The rows of the other nodes.
    pub(crate) rows: BTreeMap<IpCidr, Peer>,
    /// Whose each address is, gateways included.
    pub(crate) owners: BTreeMap<IpAddr, String>,
    /// What was refused.
    pub(crate) refused: BTreeSet<Refusal>,
}

/// Decides on all claims; node ports answer on the addresses of other nodes that `node_ports` chooses.
pub(crate) fn believe(
    nodes: &BTreeMap<String, NodeFacts>,
    own: &str,
    node_ports: impl Fn(IpAddr) -> bool,
) -> Believed {
    let mut by_age: Vec<(&String, &NodeFacts)> = nodes.iter().collect();
    // The own node is believed before all others; equal ages (one second is the API's resolution) go by name.
    by_age.sort_by_key(|(name, facts)| (name.as_str() != own, facts.created, name.as_str()));
    let mut claims = Claims::default();
    for (name, facts) in &by_age {
        claims.take_ranges(name, facts);
    }
    for (name, facts) in &by_age {
        claims.take_addresses(name, facts, name.as_str() == own, &node_ports);
    }
    let owners = claims.owners.into_iter().map(|(ip, owner)| (ip, owner.to_owned())).collect();
    Believed { rows: claims.rows, owners, refused: claims.refused }
}

fn overlap(one: IpCidr, other: IpCidr) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

/// The gateway's address: first of the node's pod range.
fn gateway(range: IpCidr) -> Option<IpAddr> {
    match range {
        IpCidr::V4(range) => range.nth(1).map(IpAddr::V4),
        IpCidr::V6(range) => range.nth(1).map(IpAddr::V6),
    }
}

#[derive(Default)]
struct Claims<'a> {
    ranges: Vec<(IpCidr, &'a str)>,
    owners: BTreeMap<IpAddr, &'a str>,
    rows: BTreeMap<IpCidr, Peer>,
    refused: BTreeSet<Refusal>,
}

impl<'a> Claims<'a> {
    fn take_ranges(&mut self, name: &'a str, facts: &NodeFacts) {
        for &range in &facts.ranges {
            match self.ranges.iter().find(|(taken, _)| overlap(*taken, range)) {
                Some((_, owner)) if *owner == name => {}
                Some((_, owner)) => self.refuse(name, range, owner),
                None => self.ranges.push((range, name)),
            }
        }
    }

    /// The first address that is believed is the node's tunnel end, an IPv4 one if there is; a node without one has no
    /// rows.
    fn take_addresses(
        &mut self,
        name: &'a str,
        facts: &NodeFacts,
        own: bool,
        node_ports: impl Fn(IpAddr) -> bool,
    ) {
        let mut believed = Vec::new();
        for &address in &facts.addresses {
            let range = self.ranges.iter().find(|(range, _)| range.contains(address));
            let owner = self.owners.get(&address).copied().or(range.map(|(_, owner)| *owner));
            if let Some(owner) = owner.filter(|owner| *owner != name) {
                self.refuse(name, IpCidr::host(address), owner);
                continue;
            }
            self.owners.insert(address, name);
            believed.push(address);
        }
        let first = believed.iter().find(|address| address.is_ipv4()).or(believed.first()).copied();
        let Some(end) = first else { return };
        if !own {
            for &address in &believed {
                let peer = Peer::new(PeerKind::RemoteNode(end)).with_node_port(node_ports(address));
                self.rows.insert(IpCidr::host(address), peer);
            }
        }
        let ranges: Vec<IpCidr> =
            self.ranges.iter().filter(|(_, owner)| *owner == name).map(|(range, _)| *range).collect();
        for range in ranges {
            if !own {
                self.rows.insert(range, Peer::new(PeerKind::RemotePods(end)));
            }
            let Some(gateway) = gateway(range) else { continue };
            self.owners.insert(gateway, name);
            if !own {
                self.rows.insert(IpCidr::host(gateway), Peer::new(PeerKind::RemoteNode(end)));
            }
        }
    }

    fn refuse(&mut self, node: &str, claim: IpCidr, owner: &str) {
        self.refused.insert(Refusal { node: node.into(), claim, owner: owner.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(created: i64, addresses: &[&str], range: &str) -> NodeFacts {
        NodeFacts {
            created,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ranges: vec![range.parse().unwrap()],
        }
    }

    fn refusals(refused: &BTreeSet<Refusal>) -> Vec<(String, String)> {
        refused.iter().map(|refusal| (refusal.node.clone(), refusal.claim.to_string())).collect()
    }

    #[test]
    fn an_address_stays_with_the_oldest_node_that_has_it() {
        let nodes = BTreeMap::from([
            ("here".to_owned(), facts(5, &["10.89.0.11"], "10.244.0.0/24")),
            ("old".to_owned(), facts(1, &["10.89.0.12"], "10.244.1.0/24")),
            // Takes this node's address, another node's, another node's pod's, and has one of its own.
            (
                "a-thief".to_owned(),
                facts(9, &["10.89.0.11", "10.89.0.12", "10.244.1.7", "10.89.0.13"], "10.244.2.0/24"),
            ),
        ]);
        let Believed { rows, refused, .. } = believe(&nodes, "here", |_| true);
        let refused = refusals(&refused);
        let claims: Vec<&str> = refused.iter().map(|(_, claim)| claim.as_str()).collect();
        assert!(refused.iter().all(|(node, _)| node == "a-thief"));
        assert_eq!(claims, ["10.89.0.11/32", "10.89.0.12/32", "10.244.1.7/32"]);
        let kind = |text: &str| rows.get(&text.parse().unwrap()).map(|peer: &Peer| peer.kind);
        assert_eq!(kind("10.89.0.11/32"), None);
        assert_eq!(kind("10.244.1.7/32"), None);
        assert_eq!(kind("10.89.0.12/32"), Some(PeerKind::RemoteNode([10, 89, 0, 12].into())));
        let node_port = |text: &str| rows[&text.parse().unwrap()].node_port;
        assert!(node_port("10.89.0.12/32") && !node_port("10.244.1.1/32") && !node_port("10.244.1.0/24"));
        assert_eq!(kind("10.244.2.0/24"), Some(PeerKind::RemotePods([10, 89, 0, 13].into())));
    }

    #[test]
    fn a_range_that_overlaps_an_older_nodes_is_refused() {
        let nodes = BTreeMap::from([
            ("a-late".to_owned(), facts(9, &["10.89.0.13"], "10.244.0.0/16")),
            ("old".to_owned(), facts(1, &["10.89.0.12"], "10.244.1.0/24")),
        ]);
        let Believed { rows, refused, .. } = believe(&nodes, "here", |_| true);
        assert_eq!(refusals(&refused), [("a-late".to_owned(), "10.244.0.0/16".to_owned())]);
        assert!(!rows.contains_key(&"10.244.0.0/16".parse().unwrap()));
        assert!(rows.contains_key(&"10.89.0.13/32".parse().unwrap()));
    }

    #[test]
    fn a_node_whose_every_address_is_refused_has_no_rows() {
        let nodes = BTreeMap::from([
            ("old".to_owned(), facts(1, &["10.89.0.12"], "10.244.1.0/24")),
            ("thief".to_owned(), facts(2, &["10.89.0.12"], "10.244.2.0/24")),
        ]);
        let rows = believe(&nodes, "here", |_| true).rows;
        assert!(!rows.contains_key(&"10.244.2.0/24".parse().unwrap()));
    }
}
