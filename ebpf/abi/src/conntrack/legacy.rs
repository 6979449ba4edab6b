//! The value of a conntrack entry before source translation existed: 20 bytes, IPv4 only. Kept so that pinned flows of
//! an older agent can be carried over; nothing writes it any more.

use crate::{
    addr::{Be16, V4},
    conntrack::{CtFlags, CtValue, TcpSeen},
    layout,
};

/// The old value; its key is today's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LegacyCtValue {
    /// As today.
    pub last_seen: u32,
    /// Number of the frontend: today's set, as far as a running flow is concerned.
    pub service: u32,
    /// As today.
    pub nat_addr: V4,
    /// As today.
    pub nat_port: Be16,
    /// As today.
    pub original: TcpSeen,
    /// As today.
    pub reply: TcpSeen,
    /// The low byte of today's flags.
    pub flags: u8,
    /// Always zero.
    pub pad: [u8; 3],
}

layout!(LegacyCtValue, size = 20, fields = [
    last_seen: u32, service: u32, nat_addr: V4, nat_port: Be16, original: TcpSeen, reply: TcpSeen, flags: u8,
    pad: [u8; 3],
]);

impl From<LegacyCtValue> for CtValue<V4> {
    fn from(old: LegacyCtValue) -> Self {
        Self {
            last_seen: old.last_seen,
            set: old.service,
            nat_addr: old.nat_addr,
            nat_port: old.nat_port,
            original: old.original,
            reply: old.reply,
            flags: CtFlags(u16::from(old.flags)),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carried_flow_keeps_its_translation() {
        let old = LegacyCtValue {
            last_seen: 9,
            service: 3,
            nat_addr: V4::new([10, 0, 0, 1]),
            nat_port: Be16::new(80),
            original: TcpSeen::SYN,
            flags: 0b10,
            ..LegacyCtValue::default()
        };
        let new = CtValue::from(old);
        assert!(new.flags.any(CtFlags::DNAT) && !new.flags.any(CtFlags::SNAT.with(CtFlags::FROM_B)));
        assert_eq!((new.last_seen, new.set, new.nat_addr, new.nat_port), (9, 3, old.nat_addr, old.nat_port));
        assert_eq!(new.peer_addr, V4::default());
    }
}
