//! The seam to maps, clock and chance.

use skep_abi::{
    Addr, BackendKey, BackendValue, CtKey, CtValue, Endpoint, FragmentKey, FragmentValue, Peer, ServiceKey,
    ServiceValue, SockKey, SockValue,
};

/// What every program may ask about Services.
pub trait Balancer<A: Addr> {
    /// A random number.
    fn random(&mut self) -> u32;

    /// What a frontend leads to.
    fn service(&mut self, key: &ServiceKey<A>) -> Option<ServiceValue>;

    /// Where a slot leads.
    fn backend(&mut self, key: &BackendKey) -> Option<BackendValue<A>>;
}

/// What packet programs may ask and remember.
pub trait Env<A: Addr>: Balancer<A> {
    /// The tick that is stored in conntrack, see [`skep_abi::TICK_SHIFT`].
    fn tick(&mut self) -> u32;

    /// A pod of this node.
    fn endpoint(&mut self, addr: A) -> Option<Endpoint>;

    /// What is known about an address.
    fn peer(&mut self, addr: A) -> Option<Peer>;

    /// Whether the address is in the Service range.
    fn is_service(&self, addr: A) -> bool;

    /// Whether the address is in the range of the cluster's pods.
    fn is_cluster(&self, addr: A) -> bool;

    /// A flow, to be changed in place.
    fn flow(&mut self, key: &CtKey<A>) -> Option<&mut CtValue<A>>;

    /// Stores a flow; `None` when there is no room.
    fn insert_flow(&mut self, key: &CtKey<A>, value: &CtValue<A>) -> Option<()>;

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
