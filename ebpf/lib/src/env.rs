//! The seam to maps, clock and chance.

use skep_abi::{
    Addr, AffinityKey, AffinityValue, BackendKey, BackendValue, CtKey, CtValue, Endpoint, FragmentKey,
    FragmentValue, MaglevKey, NodeMode, Peer, ServiceKey, ServiceValue, SockKey, SockValue, SourceKey, V6,
};

/// What every program may ask about Services.
pub trait Balancer<A: Addr> {
    /// A random number.
    fn random(&mut self) -> u32;

    /// The tick that is stored in conntrack and affinity, see [`skep_abi::TICK_SHIFT`].
    fn tick(&mut self) -> u32;

    /// What a frontend leads to.
    fn service(&mut self, key: &ServiceKey<A>) -> Option<ServiceValue>;

    /// Where a slot leads.
    fn backend(&mut self, key: &BackendKey) -> Option<BackendValue<A>>;

    /// With whom a client stays.
    fn affinity(&mut self, key: &AffinityKey) -> Option<AffinityValue>;

    /// Remembers with whom a client stays.
    fn insert_affinity(&mut self, key: &AffinityKey, value: &AffinityValue);

    /// What is known about an address.
    fn peer(&mut self, addr: A) -> Option<Peer>;

    /// First and last node port, host order; zeros: there are none.
    fn node_ports(&self) -> (u16, u16);
}

/// What packet programs may ask and remember.
pub trait Env<A: Addr>: Balancer<A> {
    /// A slot from a part of a Maglev table. `index` is below [`skep_abi::MaglevChunk::SLOTS`].
    fn maglev(&mut self, key: &MaglevKey, index: u32) -> Option<u16>;

    /// Whether the client is in a source range of the set.
    fn in_source_range(&mut self, key: &SourceKey<A>) -> bool;

    /// A pod of this node.
    fn endpoint(&mut self, addr: A) -> Option<Endpoint>;

    /// What is known about an underlay address, of either family (IPv4 as a mapped address).
    fn underlay(&mut self, addr: V6) -> Option<Peer>;

    /// Whether the address is in the Service range.
    fn is_service(&self, addr: A) -> bool;

    /// Whether the address is in the range of the cluster's pods.
    fn is_cluster(&self, addr: A) -> bool;

    /// The gateway address of the node's pods: the source of flows whose source is translated.
    fn gateway(&self) -> A;

    /// First and last port that source translation may use, host order.
    fn nat_ports(&self) -> (u16, u16);

    /// Choices that hold for the whole node.
    fn mode(&self) -> NodeMode;

    /// A flow, to be changed in place.
    fn flow(&mut self, key: &CtKey<A>) -> Option<&mut CtValue<A>>;

    /// Stores a flow, over an old one if there is one; `None` when there is no room.
    fn insert_flow(&mut self, key: &CtKey<A>, value: &CtValue<A>) -> Option<()>;

    /// Stores a flow where there is none (`BPF_NOEXIST`); `None` when there is one, or no room.
    fn claim_flow(&mut self, key: &CtKey<A>, value: &CtValue<A>) -> Option<()>;

    /// The ports of a datagram whose first fragment has passed.
    fn fragment(&mut self, key: &FragmentKey<A>) -> Option<FragmentValue>;

    /// Remembers the ports of a fragmented datagram.
    fn insert_fragment(&mut self, key: &FragmentKey<A>, value: &FragmentValue);
}

/// What socket programs may ask and remember.
pub trait SockEnv<A: Addr>: Balancer<A> {
    /// What was remembered for a socket and a peer.
    fn socket(&mut self, key: &SockKey<A>) -> Option<SockValue<A>>;

    /// Remembers; `None` when there is no room.
    fn insert_socket(&mut self, key: &SockKey<A>, value: &SockValue<A>) -> Option<()>;
}
