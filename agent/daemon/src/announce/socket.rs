//! Raw sockets that hear ARP and neighbour discovery on every device, and nothing else: a filter in the kernel keeps
//! other packets out. They are off the data path: neighbours remember an answer.

use std::{collections::HashMap, io, net::Ipv6Addr, os::fd::AsRawFd};

use nix::{
    ifaddrs::getifaddrs,
    libc,
    sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

/// Enough for both kinds of messages with options to spare; what is longer is cut, and then not understood.
pub(crate) const LONGEST: usize = 512;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Offsets from the Ethernet header on: ARP's operation, IPv6's next header, and the type of an ICMPv6 message that
/// follows the fixed header.
const ARP_OPERATION: u32 = 20;
const NEXT_HEADER: u32 = 20;
const ICMP_TYPE: u32 = 54;
// Classic BPF (linux/filter.h): load, compare, return.
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const WHOLE: u32 = LONGEST as u32;

/// A socket of one protocol on all devices.
#[derive(Debug)]
pub(crate) struct LinkSocket(AsyncFd<Socket>);

impl LinkSocket {
    /// Hears ARP requests and replies.
    pub(crate) fn arp() -> io::Result<Self> {
        let filter = [
            SockFilter::new(LOAD_HALF, 0, 0, ARP_OPERATION),
            SockFilter::new(JUMP_EQUAL, 1, 0, 1),
            SockFilter::new(JUMP_EQUAL, 0, 1, 2),
            SockFilter::new(RETURN, 0, 0, WHOLE),
            SockFilter::new(RETURN, 0, 0, 0),
        ];
        Self::open(ETHERTYPE_ARP, &filter)
    }

    /// Hears neighbour solicitations and advertisements.
    pub(crate) fn discovery() -> io::Result<Self> {
        let filter = [
            SockFilter::new(LOAD_BYTE, 0, 0, NEXT_HEADER),
            SockFilter::new(JUMP_EQUAL, 0, 4, 58),
            SockFilter::new(LOAD_BYTE, 0, 0, ICMP_TYPE),
            SockFilter::new(JUMP_EQUAL, 1, 0, 135),
            SockFilter::new(JUMP_EQUAL, 0, 1, 136),
            SockFilter::new(RETURN, 0, 0, WHOLE),
            SockFilter::new(RETURN, 0, 0, 0),
        ];
        Self::open(ETHERTYPE_IPV6, &filter)
    }

    #[allow(deprecated, reason = "the safe way in: the socket keeps its descriptor for as long as it lives")]
    fn open(ethertype: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
        socket.attach_filter(filter)?;
        Ok(LinkSocket(AsyncFd::new(socket)?))
    }

    /// The next frame, and the device that it came by.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, LinkAddr)> {
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer)?));
            match received {
                Ok(Ok((length, Some(from)))) => return Ok((length, from)),
                Ok(Ok((_, None))) => {}
                Ok(Err(error)) => return Err(error),
                // Somebody else's turn: wait again.
                Err(_) => {}
            }
        }
    }

    /// Sends a frame by the device of `by`. A queue that is full loses it, as a wire would.
    pub(crate) fn send(&self, frame: &[u8], by: &LinkAddr) -> io::Result<()> {
        sendto(self.0.get_ref().as_raw_fd(), frame, by, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

/// What is needed to send by a device, by its index.
pub(crate) fn links() -> io::Result<HashMap<u32, LinkAddr>> {
    let links = getifaddrs()?.filter_map(|entry| {
        let link = *entry.address?.as_link_addr()?;
        Some((u32::try_from(link.ifindex()).ok()?, link))
    });
    Ok(links.collect())
}

/// Membership in multicast groups: the device must not filter out the questions, nor a switch that snoops.
#[derive(Debug)]
pub(crate) struct Groups(Socket);

impl Groups {
    /// Member of nothing.
    pub(crate) fn open() -> io::Result<Self> {
        Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP)).map(Groups)
    }

    /// Joins a group on a device.
    pub(crate) fn join(&self, group: Ipv6Addr, device: u32) -> io::Result<()> {
        self.0.join_multicast_v6(&group, device)
    }

    /// Leaves it. A device that is gone has left by itself.
    pub(crate) fn leave(&self, group: Ipv6Addr, device: u32) {
        if let Err(error) = self.0.leave_multicast_v6(&group, device) {
            tracing::debug!(%group, device, %error, "not left");
        }
    }
}
