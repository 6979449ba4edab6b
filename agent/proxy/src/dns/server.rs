//! The listeners: UDP and TCP at the node's address.
//!
//! Cluster names are answered where the packet is read; only forwarding costs a task, and those are bounded, so a
//! slow resolver cannot eat the memory that the cluster's names need.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use parking_lot::RwLock;
use skep_runtime::Drain;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use super::{
    respond::{Reaction, Reply, complete_chase, refusal, respond},
    upstream::{Transport, UpstreamError, Upstreams},
    zone::Zone,
};
use crate::metrics::{Metrics, Source};

/// Forwarded queries in flight; more are refused.
const FORWARDING: usize = 1024;
/// Open TCP connections; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long a TCP client may stay silent (RFC 7766 leaves it to the server).
const IDLE: Duration = Duration::from_secs(10);
const MAX_DATAGRAM: usize = 4096;

/// What answers come from; shared by all listeners.
#[derive(Debug, Clone)]
pub struct Resolver {
    zone: Arc<RwLock<Zone>>,
    upstreams: Arc<Upstreams>,
    forwarding: Arc<Semaphore>,
    metrics: Metrics,
}

/// The bound sockets.
#[derive(Debug)]
pub struct Listeners {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Listeners {
    /// Binds both transports.
    ///
    /// # Errors
    /// When the address is not the machine's, or the port is taken.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Self { udp: Arc::new(udp), tcp })
    }

    /// Where they listen.
    #[cfg(test)]
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until the drain begins.
    pub fn serve(self, resolver: Resolver, workers: usize, drain: &Drain) {
        for _ in 0..workers.max(1) {
            drain.spawn_until_drained(serve_udp(self.udp.clone(), resolver.clone()));
        }
        drain.spawn_until_drained(serve_tcp(self.tcp, resolver));
    }
}

impl Resolver {
    /// A resolver over a zone that somebody else keeps current.
    pub fn new(zone: Arc<RwLock<Zone>>, upstreams: Upstreams, metrics: Metrics) -> Self {
        let forwarding = Arc::new(Semaphore::new(FORWARDING));
        Self { zone, upstreams: Arc::new(upstreams), forwarding, metrics }
    }

    fn react(&self, bytes: &[u8]) -> Reaction {
        let reaction = respond(&self.zone.read(), bytes);
        if let Reaction::Reply(reply) = &reaction {
            self.metrics.answered(Source::Cluster, reply.message.metadata.response_code);
        }
        reaction
    }

    /// Finishes what needs an upstream.
    async fn finish(&self, reaction: Reaction, transport: Transport) -> Option<Reply> {
        let reply = match reaction {
            Reaction::Ignore => return None,
            Reaction::Reply(reply) => return Some(reply),
            Reaction::Forward(query) => self.forward(&query, transport).await,
            Reaction::Chase { reply, target, kind } => {
                let mut query = Message::new(0, MessageType::Query, OpCode::Query);
                query.metadata.recursion_desired = true;
                query.add_query(Query::query(target, kind));
                let answer = self.upstreams.ask(&query, Transport::Tcp).await;
                complete_chase(reply, answer.ok())
            }
        };
        self.metrics.answered(Source::Upstream, reply.message.metadata.response_code);
        Some(reply)
    }

    async fn forward(&self, query: &Message, transport: Transport) -> Reply {
        match self.upstreams.ask(query, transport).await {
            Ok(message) => {
                let udp_payload = refusal(query, ResponseCode::NoError).udp_payload;
                Reply { message, udp_payload }
            }
            Err(error) => {
                tracing::debug!(%error, "a name outside the cluster was not answered");
                let code = match error {
                    UpstreamError::NoResolvers => ResponseCode::Refused,
                    _ => ResponseCode::ServFail,
                };
                refusal(query, code)
            }
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Resolver) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about an earlier reply; the socket stays good.
            Err(error) => {
                tracing::debug!(%error, "receiving a datagram");
                continue;
            }
        };
        match resolver.react(&buffer[..length]) {
            Reaction::Ignore => {}
            Reaction::Reply(reply) => send(&socket, client, &reply).await,
            reaction => forward_udp(&socket, client, &resolver, reaction).await,
        }
    }
}

async fn forward_udp(socket: &Arc<UdpSocket>, client: SocketAddr, resolver: &Resolver, reaction: Reaction) {
    let Ok(permit) = resolver.forwarding.clone().try_acquire_owned() else {
        resolver.metrics.overloaded();
        if let Reaction::Forward(query) = reaction {
            send(socket, client, &refusal(&query, ResponseCode::ServFail)).await;
        }
        return;
    };
    let (socket, resolver) = (socket.clone(), resolver.clone());
    tokio::spawn(async move {
        if let Some(reply) = resolver.finish(reaction, Transport::Udp).await {
            send(&socket, client, &reply).await;
        }
        drop(permit);
    });
}

async fn send(socket: &UdpSocket, client: SocketAddr, reply: &Reply) {
    if let Some(bytes) = reply.to_datagram()
        && let Err(error) = socket.send_to(&bytes, client).await
    {
        tracing::debug!(%client, %error, "sending a reply");
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Resolver) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let resolver = resolver.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_stream(stream, resolver).await {
                        tracing::debug!(%error, "a TCP client");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a TCP client; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_stream(mut stream: TcpStream, resolver: Resolver) -> io::Result<()> {
    while let Ok(length) = timeout(IDLE, stream.read_u16()).await {
        let length = match length {
            Ok(length) => usize::from(length),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut query = vec![0; length];
        timeout(IDLE, stream.read_exact(&mut query)).await??;
        let reaction = resolver.react(&query);
        let Some(reply) = resolver.finish(reaction, Transport::Tcp).await else { return Ok(()) };
        let Some(bytes) = reply.to_stream() else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RecordType};
    use skep_model::{DnsTarget, DnsView, HeadlessEndpoint, HeadlessSubset, NamespacedName};

    use super::*;

    async fn start() -> (SocketAddr, skep_runtime::DrainTrigger) {
        let endpoints = (0..200)
            .map(|last| HeadlessEndpoint { address: [10, 244, 1, last].into(), hostname: None })
            .collect();
        let target = DnsTarget::Headless(vec![HeadlessSubset { ports: vec![], endpoints }]);
        let mut zone = Zone::new("cluster.local", Vec::new()).unwrap();
        zone.replace(DnsView {
            services: [(NamespacedName::new("a", "many"), target)].into(),
            namespaces: ["a".to_owned()].into(),
        });
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let resolver = Resolver::new(Arc::new(RwLock::new(zone)), Upstreams::default(), metrics);
        let listeners = Listeners::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listeners.address().unwrap();
        let (trigger, drain) = Drain::new();
        listeners.serve(resolver, 2, &drain);
        (address, trigger)
    }

    fn query(name: &str) -> Vec<u8> {
        let mut message = Message::new(9, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    async fn ask_udp(server: SocketAddr, name: &str) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&query(name), server).await.unwrap();
        let mut buffer = [0; 4096];
        let (length, _) = timeout(IDLE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    #[tokio::test]
    async fn what_does_not_fit_a_datagram_comes_over_tcp() {
        let (server, trigger) = start().await;
        assert!(ask_udp(server, "many.a.svc.cluster.local.").await.metadata.truncation);
        let mut stream = TcpStream::connect(server).await.unwrap();
        let bytes = query("many.a.svc.cluster.local.");
        for _ in 0..2 {
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut reply).await.unwrap();
            assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 200);
        }
        assert!(trigger.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_foreign_name_is_refused_at_once_where_the_node_has_no_resolver() {
        let (server, _trigger) = start().await;
        let reply = ask_udp(server, "example.com.").await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    }
}
