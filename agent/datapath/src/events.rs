//! Sampled drops from the ring buffer.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::Path,
};

use aya::maps::{Map, MapData, RingBuf};
use skep_abi::{DropReason, FlowEvent, Hook};

use crate::error::DatapathError;

/// A sampled drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropEvent {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Where.
    pub hook: Hook,
    /// Why.
    pub reason: DropReason,
    /// Source as received; `None` when the packet is not IP.
    pub src: Option<SocketAddr>,
    /// Destination as received; `None` when the packet is not IP.
    pub dst: Option<SocketAddr>,
    /// IP protocol number.
    pub protocol: u8,
    /// Interface that the program is attached to.
    pub ifindex: u32,
    /// Length of the packet in bytes.
    pub length: u32,
}

impl DropEvent {
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<FlowEvent>() {
            return None;
        }
        // SAFETY: the length was checked; any bytes are a valid event.
        let event = unsafe { bytes.as_ptr().cast::<FlowEvent>().read_unaligned() };
        let address = |octets: [u8; 16], port: u16| match event.ethertype.get() {
            0x0800 => Some(SocketAddr::new(IpAddr::from([octets[0], octets[1], octets[2], octets[3]]), port)),
            0x86dd => Some(SocketAddr::new(IpAddr::from(octets), port)),
            _ => None,
        };
        Some(Self {
            time: event.time,
            hook: Hook::from_number(event.hook)?,
            reason: DropReason::from_number(event.reason)?,
            src: address(event.src, event.src_port.get()),
            dst: address(event.dst, event.dst_port.get()),
            protocol: event.protocol,
            ifindex: event.ifindex,
            length: event.length,
        })
    }
}

/// Reads events; wait for its descriptor to become readable (`AsyncFd`), then call [`EventReader::next`] until `None`.
/// Only one reader may exist at a time.
pub struct EventReader {
    ring: RingBuf<MapData>,
}

impl EventReader {
    pub(crate) fn open(pin: &Path) -> Result<Self, DatapathError> {
        let failed = |source| DatapathError::Map { name: "EVENTS".into(), source: Box::new(source) };
        let map = Map::from_map_data(MapData::from_pin(pin).map_err(failed)?).map_err(failed)?;
        Ok(Self { ring: RingBuf::try_from(map).map_err(failed)? })
    }

    /// The next event; `None` when there is none now. Records of another version are skipped.
    #[allow(clippy::should_implement_trait, reason = "an iterator that ends and goes on later would mislead")]
    pub fn next(&mut self) -> Option<DropEvent> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = DropEvent::parse(&item) {
                return Some(event);
            }
        }
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_fd().as_raw_fd()
    }
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventReader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use skep_abi::Be16;

    use super::*;

    #[test]
    fn an_ipv4_drop_reads_like_sockets() {
        let mut event =
            FlowEvent { ethertype: Be16::new(0x0800), src_port: Be16::new(99), ..FlowEvent::default() };
        event.src[..4].copy_from_slice(&[10, 0, 0, 1]);
        event.reason = DropReason::NoBackend as u8;
        // SAFETY: the event is plain data of that size.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(&event).cast::<u8>(), size_of::<FlowEvent>())
        };
        let parsed = DropEvent::parse(bytes).unwrap();
        assert_eq!(parsed.src.unwrap().to_string(), "10.0.0.1:99");
        assert_eq!(parsed.reason, DropReason::NoBackend);
        assert_eq!(DropEvent::parse(&bytes[1..]), None);
    }
}
