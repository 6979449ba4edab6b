//! sock_diag(7): finds connected UDP sockets by their peer and destroys them, in the calling thread's namespace.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
    },
};

use crate::nlmsg::{Messages, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, message};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_UDP: u8 = 17;
/// A connected socket, as TCP calls it and UDP does too.
const ESTABLISHED: u32 = 1 << 1;
/// Length of inet_diag_sockid, and where it lies in an inet_diag_msg.
const SOCKET_ID: usize = 48;
const ID_IN_MESSAGE: usize = 4;

/// A socket as the kernel names it, and its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    family: u8,
    id: [u8; SOCKET_ID],
}

impl Found {
    /// The peer; an IPv4 one also of a socket of the other family.
    fn peer(&self) -> SocketAddr {
        let port = u16::from_be_bytes([self.id[2], self.id[3]]);
        let address: &[u8] = &self.id[20..36];
        let ip = if self.family == AF_INET {
            IpAddr::from([address[0], address[1], address[2], address[3]])
        } else {
            let mut octets = [0; 16];
            octets.copy_from_slice(address);
            Ipv6Addr::from(octets).to_canonical()
        };
        SocketAddr::new(ip, port)
    }
}

/// Destroys every UDP socket that is connected to one of the peers; says how many.
pub(super) fn destroy(peers: &BTreeSet<SocketAddr>) -> io::Result<usize> {
    let diag = Diag::open()?;
    let mut count = 0;
    for family in [AF_INET, AF_INET6] {
        for found in diag.connected(family)?.into_iter().filter(|found| peers.contains(&found.peer())) {
            count += usize::from(diag.destroy(&found)?);
        }
    }
    Ok(count)
}

struct Diag(OwnedFd);

impl Diag {
    fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Diag(fd))
    }

    fn connected(&self, family: u8) -> io::Result<Vec<Found>> {
        self.send(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family, &[0; SOCKET_ID])?;
        let mut found = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, body) in Messages(buffer.get(..length).unwrap_or_default()) {
                match kind {
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => return Err(refusal(body).unwrap_or(Errno::EIO).into()),
                    _ => found.extend(parse(body)),
                }
            }
        }
    }

    /// True when it went by this; false when it was gone.
    fn destroy(&self, found: &Found) -> io::Result<bool> {
        self.send(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, found.family, &found.id)?;
        let mut buffer = [0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let answer = Messages(buffer.get(..length).unwrap_or_default()).next();
        match answer.map(|(_, body)| refusal(body)) {
            Some(None) => Ok(true),
            Some(Some(Errno::ENOENT)) => Ok(false),
            Some(Some(errno)) => Err(errno.into()),
            None => Err(Errno::EIO.into()),
        }
    }

    fn send(&self, kind: u16, flags: u16, family: u8, id: &[u8; SOCKET_ID]) -> io::Result<()> {
        let mut body = vec![family, IPPROTO_UDP, 0, 0];
        body.extend(ESTABLISHED.to_ne_bytes());
        body.extend(id);
        let message = message(kind, flags, &body);
        sendto(self.0.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }
}

fn parse(body: &[u8]) -> Option<Found> {
    let id = body.get(ID_IN_MESSAGE..ID_IN_MESSAGE + SOCKET_ID)?;
    Some(Found { family: *body.first()?, id: id.try_into().ok()? })
}

/// The error in an acknowledgement; `None` when it is one of success.
fn refusal(body: &[u8]) -> Option<Errno> {
    let code: [u8; 4] = body.get(..4)?.try_into().ok()?;
    match i32::from_ne_bytes(code) {
        0 => None,
        code => Some(Errno::from_raw(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_peer_reads_the_same_from_sockets_of_both_families() {
        let mut id = [0; SOCKET_ID];
        id[2..4].copy_from_slice(&53u16.to_be_bytes());
        id[20..24].copy_from_slice(&[10, 0, 0, 1]);
        let v4 = Found { family: AF_INET, id };
        id[20..36].copy_from_slice(&"::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets());
        let v6 = Found { family: AF_INET6, id };
        assert_eq!(v4.peer(), "10.0.0.1:53".parse().unwrap());
        assert_eq!(v6.peer(), v4.peer());
    }

    #[test]
    fn truncated_answers_end_the_walk() {
        assert!(parse(&[0; 20]).is_none() && refusal(&[]).is_none());
    }

    /// Loopback only. Without the privilege or the kernel's option it is told, as it would be on a node.
    #[test]
    fn a_socket_connected_to_a_dead_peer_hears_of_it() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (doomed, spared) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        doomed.connect(peer.local_addr().unwrap()).unwrap();
        spared.connect("127.0.0.1:9").unwrap();
        match destroy(&[peer.local_addr().unwrap()].into()) {
            Ok(count) => {
                assert_eq!(count, 1);
                assert_eq!(
                    doomed.recv(&mut [0]).unwrap_err().raw_os_error(),
                    Some(Errno::ECONNABORTED as i32)
                );
                assert_eq!(spared.peer_addr().unwrap(), "127.0.0.1:9".parse().unwrap());
            }
            Err(error) => {
                let known = [Errno::EOPNOTSUPP, Errno::EPERM, Errno::ENOENT].map(|errno| Some(errno as i32));
                assert!(known.contains(&error.raw_os_error()), "{error}");
                eprintln!("this machine cannot destroy sockets: {error}");
            }
        }
    }
}
