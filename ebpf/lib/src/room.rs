//! What is known of the packet in hand, in one place outside of the stack.
//!
//! A program and all it calls share 512 bytes of stack, which IPv6 addresses fill quickly; and whatever the verifier knows
//! about registers and stack, it follows through every branch that comes after. So hooks work in steps that are functions
//! of their own and leave their results here: in a map value, where results cost no stack and are nobody's history.

use skep_abi::{Addr, CtKey, CtValue, Endpoint, ServiceValue, V6};

use crate::{
    flow::{Fresh, Handled, Plan},
    frame::Frame,
    hooks::Action,
};

/// The working state of a hook. Bytes that are all zero are a valid one.
#[derive(Clone, Copy, Debug)]
pub struct Room<A> {
    /// The packet.
    pub frame: Frame<A>,
    /// The packet that an ICMP error quotes.
    pub quoted: Frame<A>,
    /// What is to be done with the packet.
    pub plan: Plan<A>,
    /// The frontend that it is for.
    pub service: ServiceValue,
    /// The key of an entry.
    pub key: CtKey<A>,
    /// The entry that is being made for its flow.
    pub flow: CtValue<A>,
    /// The client is outside the cluster. Meaningful at uplinks.
    pub outside: bool,
    /// The underlay address of the node that it goes to (IPv4 as a mapped address).
    pub node: V6,
    /// The pod that it goes to.
    pub endpoint: Endpoint,
    /// Where it goes: the result of a hook.
    pub action: Action,
}

const _: () = {
    assert!(size_of::<Room<V6>>() <= skep_abi::maps::ROOM.value as usize);
    assert!(align_of::<Room<V6>>() <= 8);
};

impl<A: Addr> Room<A> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let nowhere = Frame::new(A::default(), A::default(), 0, 0);
        Self {
            frame: nowhere,
            quoted: nowhere,
            plan: Plan {
                source: nowhere.destination(),
                to: nowhere.destination(),
                handled: Handled::Plain,
                fresh: Fresh::Known,
                set: 0,
                new_source: false,
                closes: false,
            },
            service: ServiceValue::default(),
            key: CtKey::default(),
            flow: CtValue::default(),
            outside: false,
            node: V6::default(),
            endpoint: Endpoint::default(),
            action: Action::Pass,
        }
    }
}

impl<A: Addr> Default for Room<A> {
    fn default() -> Self {
        Self::new()
    }
}
