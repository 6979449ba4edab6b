//! Our bed: a node with the data path as the agent sets it up.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use skep_abi::{DropReason, Hook};
use skep_datapath::{
    BackendAddress, BackendSlot, Frontend, FrontendFlags, FrontendKey, Peer, PeerKind, Tables,
};
use skep_model::{FrontendAddress, IpCidr, Port, Protocol};
use skep_test_programs::{Attach, Cluster, cluster::Node, netns::Netns};

use super::{
    bed::{self, FRONTEND, NODE, NODE_PORT},
    rules,
    worker::Worker,
};

/// The set of the measured Service.
const MEASURED: u32 = 1;

/// The node, its pods, and the client beyond its uplink.
pub(super) struct Ours {
    cluster: Cluster,
    outside: Netns,
    server: Worker,
    installed: u32,
}

impl Ours {
    /// Makes the namespaces, attaches everything and starts the server.
    pub(super) fn new() -> Result<Self> {
        let cluster = Cluster::new(2, Attach::Best)?;
        let node = cluster.nodes.first().context("no node")?;
        let outside = bed::add_outside(&node.netns, "ours")?;
        let uplink = node.netns.ifindex("eth1")?;
        node.netns.within(|| Ok(node.datapath().attach_uplink(uplink)?))?;
        let peer = Peer::new(PeerKind::Host).with_node_port(true);
        node.datapath().tables().ipcache.update(&IpCidr::host(NODE.into()), &peer)?;
        let server_pod = node.pods.get(1).context("no second pod")?;
        let addresses = bed::backends();
        ensure!(addresses.iter().all(|address| *address.ip() == server_pod.ip), "the beds differ");
        let mut server = Worker::start(&server_pod.netns, None)?;
        server.serve(&addresses.into_iter().map(SocketAddr::V4).collect::<Vec<_>>())?;
        Ok(Self { cluster, outside, server, installed: 0 })
    }

    /// A client in the pod, whose sockets are balanced or not.
    pub(super) fn pod_client(&self, balanced: bool) -> Result<Worker> {
        let node = self.node()?;
        let pod = node.pods.first().context("no pod")?;
        Worker::start(&pod.netns, balanced.then(|| node.cgroup.path()))
    }

    /// A client beyond the uplink.
    pub(super) fn outside_client(&self) -> Result<Worker> {
        Worker::start(&self.outside, None)
    }

    /// The server.
    pub(super) fn server(&self) -> &Worker {
        &self.server
    }

    /// Installs so many Services, beside those that are there.
    pub(super) fn install(&mut self, services: u32) -> Result<()> {
        let tables = self.node()?.datapath().tables().clone();
        if self.installed == 0 {
            install_measured(&tables)?;
            self.installed = 1;
        }
        let more = (MEASURED + 1..).zip(rules::fillers(services)).skip(self.installed as usize - 1);
        for (set, (frontend, backend)) in more {
            put_backend(&tables, set, 0, backend)?;
            tables.frontends.update(&key(frontend.into())?, &Frontend::new(set, 1))?;
        }
        self.installed = self.installed.max(services);
        Ok(())
    }

    /// Fails when the programs on the way dropped anything but what is no IP: the numbers would not mean what they say.
    pub(super) fn check_no_drops(&self) -> Result<()> {
        for row in self.node()?.datapath().counters()? {
            // What devices of the node say of themselves to their neighbours is not on the way.
            let beside = matches!(row.hook, Hook::FromOverlay | Hook::ToOverlay | Hook::FromHost);
            let noise = beside || matches!(row.reason, None | Some(DropReason::UnsupportedProtocol));
            ensure!(noise, "{} packets were dropped at {}: {:?}", row.packets, row.hook, row.reason);
        }
        Ok(())
    }

    fn node(&self) -> Result<&Node> {
        self.cluster.nodes.first().context("no node")
    }
}

/// The cluster address and the node port, on one set.
fn install_measured(tables: &Tables) -> Result<()> {
    let backends = bed::backends();
    for (slot, backend) in (0..).zip(&backends) {
        put_backend(tables, MEASURED, slot, *backend)?;
    }
    let frontend = Frontend::new(MEASURED, u16::try_from(backends.len())?);
    tables.frontends.update(&key(FRONTEND.into())?, &frontend)?;
    let anywhere = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), NODE_PORT);
    let flags = FrontendFlags { external: true, node_port: true, ..FrontendFlags::default() };
    tables.frontends.update(&key(anywhere)?, &Frontend { flags, ..frontend })?;
    Ok(())
}

fn key(frontend: SocketAddr) -> Result<FrontendKey> {
    let port = Port::new(frontend.port()).context("port zero")?;
    let (ip, protocol) = (frontend.ip(), Protocol::Tcp);
    Ok(FrontendKey::inside(FrontendAddress { ip, port, protocol }))
}

fn put_backend(tables: &Tables, set: u32, slot: u16, backend: SocketAddrV4) -> Result<()> {
    let address = BackendAddress { ip: (*backend.ip()).into(), port: backend.port() };
    Ok(tables.backends.update(&BackendSlot { set, slot }, &address)?)
}
