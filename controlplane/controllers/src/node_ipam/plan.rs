//! The block allocator: which blocks of the cluster CIDR are taken, and which one comes next.
//!
//! The truth is `spec.podCIDRs` of the nodes; this table is rebuilt from it and additionally remembers blocks handed
//! out whose write has not come back through the watch yet. Generic over the family by the address width.

use std::collections::BTreeMap;
use std::net::IpAddr;

use skep_model::IpCidr;

/// Blocks of one cluster CIDR by index, with the node that holds each.
pub(crate) struct Blocks {
    cluster: IpCidr,
    node_mask: u8,
    taken: BTreeMap<u128, String>,
    cursor: u128,
}

impl Blocks {
    /// An empty table.
    pub(crate) fn new(cluster: IpCidr, node_mask: u8) -> Self {
        let node_mask = node_mask.clamp(cluster.length(), width(cluster));
        Self { cluster, node_mask, taken: BTreeMap::new(), cursor: 0 }
    }

    /// Records that `node` holds `range`; ranges outside the cluster CIDR are somebody else's business.
    /// Returns the node that already holds an overlapping block, if another one does.
    pub(crate) fn occupy(&mut self, node: &str, range: IpCidr) -> Option<String> {
        let (first, last) = self.span(range)?;
        let other = self.taken.range(first..=last).find(|(_, holder)| *holder != node);
        if let Some((_, holder)) = other {
            return Some(holder.clone());
        }
        for index in first..=last {
            self.taken.insert(index, node.to_owned());
        }
        None
    }

    /// Frees all that `node` holds.
    pub(crate) fn release(&mut self, node: &str) {
        self.taken.retain(|_, holder| holder != node);
    }

    /// The block of `node`: the one it holds, or a fresh one. None when all are taken.
    ///
    /// Fresh blocks go round, so that an address of a removed node is not reused at once.
    pub(crate) fn allocate(&mut self, node: &str) -> Option<IpCidr> {
        if let Some((index, _)) = self.taken.iter().find(|(_, holder)| *holder == node) {
            return self.block(*index);
        }
        let count = self.count();
        if u128::try_from(self.taken.len()).is_ok_and(|taken| taken >= count) {
            return None;
        }
        let index =
            (0..count).map(|step| (self.cursor + step) % count).find(|n| !self.taken.contains_key(n))?;
        self.cursor = (index + 1) % count;
        self.taken.insert(index, node.to_owned());
        self.block(index)
    }

    /// Blocks in the cluster CIDR.
    fn count(&self) -> u128 {
        1 << (self.node_mask - self.cluster.length()).min(127)
    }

    fn block(&self, index: u128) -> Option<IpCidr> {
        let offset = index << (width(self.cluster) - self.node_mask);
        IpCidr::new(from_bits(self.cluster, bits(self.cluster.network()) + offset), self.node_mask)
    }

    fn span(&self, range: IpCidr) -> Option<(u128, u128)> {
        if range.family() != self.cluster.family() || !self.cluster.contains(range.network()) {
            return None;
        }
        let shift = width(self.cluster) - self.node_mask;
        let first = (bits(range.network()) - bits(self.cluster.network())) >> shift;
        let blocks = 1u128 << self.node_mask.saturating_sub(range.length()).min(127);
        Some((first, (first + blocks - 1).min(self.count() - 1)))
    }
}

/// The blocks of every family, allocated together or not at all.
pub(crate) struct Tables(Vec<Blocks>);

impl Tables {
    /// Over the blocks of each family, the primary one first.
    pub(crate) fn new(blocks: impl IntoIterator<Item = Blocks>) -> Self {
        Self(blocks.into_iter().collect())
    }

    /// As [`Blocks::occupy`], in the family of the range.
    pub(crate) fn occupy(&mut self, node: &str, range: IpCidr) -> Option<String> {
        self.0.iter_mut().find_map(|blocks| blocks.occupy(node, range))
    }

    /// Frees all that `node` holds.
    pub(crate) fn release(&mut self, node: &str) {
        self.0.iter_mut().for_each(|blocks| blocks.release(node));
    }

    /// A block of each family for `node`. None when one family has none left; nothing is taken then.
    pub(crate) fn allocate(&mut self, node: &str) -> Option<Vec<IpCidr>> {
        let all: Vec<Option<IpCidr>> = self.0.iter_mut().map(|blocks| blocks.allocate(node)).collect();
        let all: Option<Vec<IpCidr>> = all.into_iter().collect();
        if all.is_none() {
            self.release(node);
        }
        all
    }
}

fn width(cidr: IpCidr) -> u8 {
    if cidr.network().is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_bits(like: IpCidr, bits: u128) -> IpAddr {
    match like.network() {
        IpAddr::V4(_) => IpAddr::from(u32::try_from(bits).unwrap_or(u32::MAX).to_be_bytes()),
        IpAddr::V6(_) => IpAddr::from(bits.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> IpCidr {
        text.parse().unwrap()
    }

    #[test]
    fn cuts_blocks_in_order_until_none_is_left() {
        let mut blocks = Blocks::new(cidr("10.244.0.0/22"), 24);
        for (n, expected) in
            ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"].iter().enumerate()
        {
            assert_eq!(blocks.allocate(&format!("n{n}")), Some(cidr(expected)));
        }
        assert_eq!(blocks.allocate("n9"), None);
        blocks.release("n1");
        assert_eq!(blocks.allocate("n9"), Some(cidr("10.244.1.0/24")));
    }

    #[test]
    fn same_node_gets_the_same_block() {
        let mut blocks = Blocks::new(cidr("10.244.0.0/16"), 24);
        let first = blocks.allocate("a");
        blocks.allocate("b");
        assert_eq!(blocks.allocate("a"), first);
    }

    #[test]
    fn never_hands_out_what_a_node_declares() {
        let mut blocks = Blocks::new(cidr("10.244.0.0/22"), 24);
        assert_eq!(blocks.occupy("big", cidr("10.244.0.0/23")), None);
        assert_eq!(blocks.allocate("a"), Some(cidr("10.244.2.0/24")));
        assert_eq!(blocks.occupy("thief", cidr("10.244.2.0/24")), Some("a".to_owned()));
        assert_eq!(blocks.occupy("foreign", cidr("192.168.0.0/24")), None);
    }

    #[test]
    fn a_node_gets_a_block_of_each_family_or_none() {
        let blocks = [Blocks::new(cidr("10.244.0.0/16"), 24), Blocks::new(cidr("fd00:244::/63"), 64)];
        let mut tables = Tables::new(blocks);
        assert_eq!(tables.allocate("a"), Some(vec![cidr("10.244.0.0/24"), cidr("fd00:244::/64")]));
        assert_eq!(tables.occupy("b", cidr("fd00:244:0:1::/64")), None);
        assert_eq!(tables.allocate("c"), None);
        tables.release("b");
        assert_eq!(tables.allocate("c"), Some(vec![cidr("10.244.2.0/24"), cidr("fd00:244:0:1::/64")]));
    }

    #[test]
    fn ipv6_blocks_work_alike() {
        let mut blocks = Blocks::new(cidr("fd00:10::/48"), 64);
        assert_eq!(blocks.allocate("a"), Some(cidr("fd00:10::/64")));
        assert_eq!(blocks.allocate("b"), Some(cidr("fd00:10:0:1::/64")));
    }
}
