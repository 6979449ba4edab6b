//! Conntrack: one entry a flow, found from either direction by the same key.
//!
//! The key is canonical: the lower of the two (address, port) sides comes first, so that a reply finds the entry of the
//! packets it answers with one lookup. The value says which side sent the first packet. A translated flow has two
//! entries: client with frontend (`DNAT`, original direction) and client, or the address that stands for it, with
//! backend (`REVNAT`, replies).
//!
//! [`legacy`] is the value as it was before source translation, for the migration of pinned maps.

use crate::{
    Plain,
    addr::{Addr, Be16, V4, V6},
};

pub mod legacy;

/// Canonical key of a flow: side `a` sorts before side `b`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CtKey<A> {
    /// Address of the lower side.
    pub a: A,
    /// Address of the upper side.
    pub b: A,
    /// Port of the lower side; ICMP echo: the identifier on the asking side, zero on the answering one.
    pub a_port: Be16,
    /// Port of the upper side.
    pub b_port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: [u8; 3],
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for CtKey<A> {}
const _: () = {
    assert!(size_of::<CtKey<V4>>() == 16);
    assert!(size_of::<CtKey<V6>>() == 40);
};

impl<A: Addr> CtKey<A> {
    /// The key of a packet, and whether the packet's source is side `b`.
    #[inline(always)]
    pub fn canonical(src: A, src_port: Be16, dst: A, dst_port: Be16, protocol: u8) -> (Self, bool) {
        let from_b = if src == dst { src_port.raw() > dst_port.raw() } else { src > dst };
        let (a, a_port, b, b_port) =
            if from_b { (dst, dst_port, src, src_port) } else { (src, src_port, dst, dst_port) };
        (Self { a, b, a_port, b_port, protocol, pad: [0; 3] }, from_b)
    }

    /// Becomes the key of a packet; says whether the packet's source is side `b`. For programs that have no stack to
    /// spare: nothing is copied twice, and the padding stays as it is, zero since the key was made.
    #[inline(always)]
    pub fn set(&mut self, (src, src_port): (&A, Be16), (dst, dst_port): (&A, Be16), protocol: u8) -> bool {
        let from_b = if *src == *dst { src_port.raw() > dst_port.raw() } else { *src > *dst };
        if from_b {
            (self.a, self.a_port) = (*dst, dst_port);
            (self.b, self.b_port) = (*src, src_port);
        } else {
            (self.a, self.a_port) = (*src, src_port);
            (self.b, self.b_port) = (*dst, dst_port);
        }
        self.protocol = protocol;
        from_b
    }
}

/// What is known about a flow.
///
/// A translated flow has two entries. The first is found by the client's packets (client, frontend): they go to `nat`,
/// and with `SNAT` come from `peer`. The second is found by the backend's replies (source as the backend sees it,
/// backend): they come from `nat`, the frontend, and with `SNAT` go to `peer`, the client.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CtValue<A> {
    /// Tick (see [`crate::TICK_SHIFT`]) of the last packet seen on this entry.
    pub last_seen: u32,
    /// Number of the set that translated the flow; zero without translation.
    pub set: u32,
    /// With `DNAT` or `FORWARDED` the backend, with `REVNAT` the frontend; otherwise zero.
    pub nat_addr: A,
    /// With `SNAT`: the source that the backend sees on the first entry, the client on the second; otherwise zero.
    pub peer_addr: A,
    /// Port that goes with `nat_addr`.
    pub nat_port: Be16,
    /// Port that goes with `peer_addr`.
    pub peer_port: Be16,
    /// What has been seen of TCP in the original direction.
    pub original: TcpSeen,
    /// What has been seen of TCP in the reply direction; any packet sets [`TcpSeen::ANY`].
    pub reply: TcpSeen,
    /// What the entry is.
    pub flags: CtFlags,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for CtValue<A> {}
const _: () = {
    assert!(size_of::<CtValue<V4>>() == 24);
    assert!(size_of::<CtValue<V6>>() == 48);
};

/// What an entry is; combinable bits. `SNAT` alone, without `DNAT` and `REVNAT`, is left for masquerading.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CtFlags(pub u16);

// SAFETY: transparent over u16.
unsafe impl Plain for CtFlags {}

impl CtFlags {
    /// Side `b` sent the first packet (otherwise side `a` did).
    pub const FROM_B: Self = Self(1);
    /// Packets of the original direction go to `nat_addr` instead of the frontend.
    pub const DNAT: Self = Self(1 << 1);
    /// Packets of the reply direction come from `nat_addr`, the frontend.
    pub const REVNAT: Self = Self(1 << 2);
    /// The source is translated, too: see [`CtValue::peer_addr`].
    pub const SNAT: Self = Self(1 << 3);
    /// Packets of the original direction go untranslated to the node of `nat_addr`, which answers the client itself.
    /// No second entry exists, and no reply passes here.
    pub const FORWARDED: Self = Self(1 << 4);

    /// Whether any of the given bits is set.
    #[inline(always)]
    pub const fn any(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    /// Both sets.
    #[inline(always)]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }
}

/// TCP flags that one direction has shown so far; combinable bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TcpSeen(pub u8);

impl TcpSeen {
    /// At least one packet, of any protocol.
    pub const ANY: Self = Self(1);
    /// A segment with SYN.
    pub const SYN: Self = Self(1 << 1);
    /// A segment with FIN.
    pub const FIN: Self = Self(1 << 2);
    /// A segment with RST.
    pub const RST: Self = Self(1 << 3);
    /// A segment without SYN: the connection is past its opening.
    pub const MORE: Self = Self(1 << 4);

    /// Whether any of the given bits is set.
    #[inline(always)]
    pub const fn any(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    /// Both sets.
    #[inline(always)]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }
}

/// State of a flow as far as its lifetime is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CtState {
    /// No reply yet.
    Opening,
    /// Both directions seen, not closing.
    Established,
    /// TCP: one side has finished.
    HalfClosed,
    /// TCP: both sides have finished, or one has reset.
    Closed,
}

impl CtState {
    /// The state that two directions' history amounts to.
    #[inline(always)]
    pub const fn of(original: TcpSeen, reply: TcpSeen) -> Self {
        if original.any(TcpSeen::RST) || reply.any(TcpSeen::RST) {
            return Self::Closed;
        }
        match (original.any(TcpSeen::FIN), reply.any(TcpSeen::FIN)) {
            (true, true) => Self::Closed,
            (false, false) if reply.any(TcpSeen::ANY) => Self::Established,
            (false, false) => Self::Opening,
            _ => Self::HalfClosed,
        }
    }
}

/// Finds the ports of later fragments: only the first one carries them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FragmentKey<A> {
    /// Source address as received.
    pub src: A,
    /// Destination address as received.
    pub dst: A,
    /// Identification field.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for FragmentKey<A> {}
const _: () = {
    assert!(size_of::<FragmentKey<V4>>() == 16);
    assert!(size_of::<FragmentKey<V6>>() == 40);
};

/// The ports of a fragmented datagram.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragmentValue {
    /// Source port as received.
    pub src_port: Be16,
    /// Destination port as received.
    pub dst_port: Be16,
}

crate::layout!(FragmentValue, size = 4, fields = [src_port: Be16, dst_port: Be16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_share_a_key_and_differ_in_side() {
        let (client, server) = (V4::new([10, 0, 0, 9]), V4::new([10, 0, 0, 2]));
        let (up, from_b) = CtKey::canonical(client, Be16::new(4000), server, Be16::new(80), 6);
        let (down, reply_from_b) = CtKey::canonical(server, Be16::new(80), client, Be16::new(4000), 6);
        assert_eq!(up, down);
        assert_ne!(from_b, reply_from_b);
    }

    #[test]
    fn a_key_that_is_set_is_the_one_that_is_made() {
        for (low, high) in [(2, 9), (9, 2), (5, 5)] {
            let (src, dst) = (V4::new([10, 0, 0, low]), V4::new([10, 0, 0, high]));
            for (up, down) in [(4000, 80), (80, 4000)] {
                let (up, down) = (Be16::new(up), Be16::new(down));
                let mut key = CtKey::default();
                let from_b = key.set((&src, up), (&dst, down), 6);
                assert_eq!((key, from_b), CtKey::canonical(src, up, dst, down, 6));
            }
        }
    }

    #[test]
    fn a_reset_closes_whatever_was_before() {
        assert_eq!(CtState::of(TcpSeen::SYN.with(TcpSeen::RST), TcpSeen::ANY), CtState::Closed);
    }

    #[test]
    fn closing_takes_a_fin_from_both_sides() {
        let any = TcpSeen::ANY;
        assert_eq!(CtState::of(any, TcpSeen::default()), CtState::Opening);
        assert_eq!(CtState::of(any, any), CtState::Established);
        assert_eq!(CtState::of(any.with(TcpSeen::FIN), any), CtState::HalfClosed);
        assert_eq!(CtState::of(any.with(TcpSeen::FIN), any.with(TcpSeen::FIN)), CtState::Closed);
    }
}
