//! Forwards what is not the cluster's to the node's resolvers, byte for byte but for the id.
//!
//! Each query leaves from a fresh socket with a fresh id (RFC 5452), goes to the resolvers in order, and fails at
//! once when there is none.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use hickory_proto::op::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long one resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list of resolvers is gone through.
const ROUNDS: usize = 2;
const DNS_PORT: u16 = 53;

/// How a query came, and so how it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A length-prefixed stream.
    Tcp,
}

/// Why no upstream answered.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The node has no resolvers.
    #[error("the node names no resolver that is not itself: names outside the cluster cannot be answered")]
    NoResolvers,
    /// All were tried.
    #[error("no resolver of the node answered, last {resolver}: {reason}")]
    NoAnswer {
        /// The last one tried.
        resolver: SocketAddr,
        /// What it did.
        reason: String,
    },
    /// The query does not encode.
    #[error("the query cannot be passed on")]
    Encode(#[from] hickory_proto::ProtoError),
}

/// The node's resolvers.
#[derive(Debug, Clone, Default)]
pub struct Upstreams {
    resolvers: Vec<SocketAddr>,
}

impl Upstreams {
    /// Resolvers at the DNS port.
    pub fn new(resolvers: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { resolvers: resolvers.into_iter().map(|ip| SocketAddr::new(ip, DNS_PORT)).collect() }
    }

    /// Reads a resolv.conf(5). Loopback resolvers are left out, for they are the node's own stubs and may well ask
    /// us again, and so are `ours`, our addresses.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn from_file(path: &Path, ours: &[IpAddr]) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Ok(Self::new(parse_nameservers(&text).filter(|ip| !ip.is_loopback() && !ours.contains(ip))))
    }

    /// The resolvers, in order.
    pub fn resolvers(&self) -> &[SocketAddr] {
        &self.resolvers
    }

    /// Asks the resolvers in order until one answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn ask(&self, query: &Message, transport: Transport) -> Result<Message, UpstreamError> {
        let mut outgoing = query.clone();
        outgoing.metadata.id = rand::random();
        let bytes = outgoing.to_vec()?;
        let mut failure = UpstreamError::NoResolvers;
        for resolver in self.resolvers.iter().cycle().take(self.resolvers.len() * ROUNDS) {
            match exchange(*resolver, &outgoing, &bytes, transport).await {
                Ok(mut answer) => {
                    answer.metadata.id = query.metadata.id;
                    return Ok(answer);
                }
                Err(error) => {
                    failure = UpstreamError::NoAnswer { resolver: *resolver, reason: error.to_string() };
                }
            }
        }
        Err(failure)
    }
}

async fn exchange(
    to: SocketAddr,
    query: &Message,
    bytes: &[u8],
    transport: Transport,
) -> io::Result<Message> {
    let answer = async {
        match transport {
            Transport::Udp => ask_udp(to, query, bytes).await,
            Transport::Tcp => ask_tcp(to, query, bytes).await,
        }
    };
    timeout(PATIENCE, answer)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in 2 s"))?
}

async fn ask_udp(to: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 65535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not match the question is not the answer, whoever sent it.
        if let Some(answer) = matching(query, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn ask_tcp(to: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(to).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    matching(query, &answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
}

fn matching(query: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    (answer.metadata.id == query.metadata.id && answer.queries == query.queries).then_some(answer)
}

fn parse_nameservers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        address.split('%').next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{MessageType, OpCode, Query};

    use super::*;

    #[test]
    fn reads_nameservers_and_nothing_else() {
        let text = "# a comment\nsearch example.com\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver nonsense\n";
        let found: Vec<_> = parse_nameservers(text).map(|ip| ip.to_string()).collect();
        assert_eq!(found, ["192.0.2.1", "fe80::1"]);
    }

    #[tokio::test]
    async fn without_resolvers_it_fails_at_once() {
        let query = Message::new(1, MessageType::Query, OpCode::Query);
        let error = Upstreams::default().ask(&query, Transport::Udp).await.unwrap_err();
        assert!(matches!(error, UpstreamError::NoResolvers));
    }

    #[tokio::test]
    async fn an_answer_to_another_question_is_passed_over() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstreams = Upstreams { resolvers: vec![server.local_addr().unwrap()] };
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        query.add_query(Query::new());
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, client) = server.recv_from(&mut buffer).await.unwrap();
            let mut reply = Message::from_vec(&buffer[..length]).unwrap();
            reply.metadata.message_type = MessageType::Response;
            let right = reply.metadata.id;
            reply.metadata.id = right.wrapping_add(1);
            server.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
            reply.metadata.id = right;
            reply.metadata.authentic_data = true;
            server.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        });
        let answer = upstreams.ask(&query, Transport::Udp).await.unwrap();
        assert!(answer.metadata.authentic_data && answer.metadata.id == 1);
        answering.await.unwrap();
    }
}
