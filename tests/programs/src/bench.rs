//! A data path of its own below a private pin folder, with one node's worth of tables.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Mutex, Once, PoisonError},
};

use anyhow::{Context, bail};
use skep_abi::{DropReason, Hook, programs::Classifier};
use skep_datapath::{
    BackendAddress, BackendSlot, Datapath, DatapathConfig, Endpoint, FamilySettings, Frontend, FrontendKey,
    MapSizes, NodeSettings, Peer, PeerKind, Scope, TestOutcome, TestPacket,
    config::{NAT_PORTS, NODE_PORTS},
};
use skep_model::{FrontendAddress, IpCidr, MacAddr, Port, Protocol};

use crate::{
    craft::{Crafted, Ip, Mac},
    reset,
};

/// Underlay address of the node under test.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 11);
/// Underlay address of the other node.
pub const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 12);
/// Gateway of the node's pods.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The pod that sends: its device is loopback, the device of test runs.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);
/// Another pod of the node.
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 6);
/// A pod of the other node.
pub const REMOTE_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 7);
/// A Service address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);
/// An address outside the cluster.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);

/// [`NODE`] in IPv6.
pub const NODE6: Ipv6Addr = v6(0x89, 0x11);
/// [`OTHER_NODE`] in IPv6.
pub const OTHER_NODE6: Ipv6Addr = v6(0x89, 0x12);
/// [`GATEWAY`] in IPv6.
pub const GATEWAY6: Ipv6Addr = v6(0x244, 1);
/// [`POD`] in IPv6.
pub const POD6: Ipv6Addr = v6(0x244, 5);
/// [`NEIGHBOUR`] in IPv6.
pub const NEIGHBOUR6: Ipv6Addr = v6(0x244, 6);
/// [`REMOTE_POD`] in IPv6.
pub const REMOTE_POD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 0, 1, 0, 0, 0, 7);
/// [`VIP`] in IPv6.
pub const VIP6: Ipv6Addr = v6(0x96, 0x50);
/// [`WORLD`] in IPv6.
pub const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x33);

const fn v6(area: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, area, 0, 0, 0, 0, 0, last)
}

/// Link-layer address of [`POD`].
pub const POD_MAC: Mac = [2, 0, 0, 0, 0, 5];
/// Host side of [`POD`]'s veth.
pub const POD_HOST_MAC: Mac = [2, 0, 0, 0, 1, 5];
/// Link-layer address of [`NEIGHBOUR`].
pub const NEIGHBOUR_MAC: Mac = [2, 0, 0, 0, 0, 6];
/// Host side of [`NEIGHBOUR`]'s veth.
pub const NEIGHBOUR_HOST_MAC: Mac = [2, 0, 0, 0, 1, 6];
/// Link-layer address of `skep_host`.
pub const HOST_MAC: Mac = [2, 0, 0, 0, 2, 1];
/// Link-layer address of `skep_net`.
pub const NET_MAC: Mac = [2, 0, 0, 0, 2, 2];

/// Interface index of loopback: what packets of test runs are seen on.
pub const LOOPBACK: u32 = 1;
/// An interface index for [`NEIGHBOUR`] that nothing is ever sent to.
pub const NEIGHBOUR_IFINDEX: u32 = 4_000_000;

/// Pass.
pub const PASS: u32 = 0;
/// Drop.
pub const DROP: u32 = 2;
/// Redirect.
pub const REDIRECT: u32 = 7;

/// A data path to run packets through. One that nobody configured otherwise is emptied and used again by the next test of the
/// process; its pins vanish with the process, those of the others with the value.
#[derive(Debug)]
pub struct Bench {
    datapath: Option<Datapath>,
    pins: Option<BpfFs>,
    /// Whether it is as [`config`] says.
    usual: bool,
}

/// The data path that waits for the next test.
static SPARE: Mutex<Option<(Datapath, BpfFs)>> = Mutex::new(None);
static AT_EXIT: Once = Once::new();

fn spare() -> std::sync::MutexGuard<'static, Option<(Datapath, BpfFs)>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Statics are never dropped, but this one holds a mount.
extern "C" fn drop_spare() {
    drop(spare().take());
}

/// A bpffs of our own: pins in it are invisible to others and vanish with it.
#[derive(Debug)]
pub struct BpfFs {
    folder: tempfile::TempDir,
}

impl BpfFs {
    /// Mounts one.
    ///
    /// # Errors
    /// Without root.
    pub fn mount() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("skep-bpffs-").tempdir()?;
        nix::mount::mount(
            Some("bpf"),
            folder.path(),
            Some("bpf"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .context("mounting a bpffs needs root")?;
        Ok(Self { folder })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _best_effort = nix::mount::umount2(self.folder.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

impl Bench {
    /// Opens a data path with the tables of one node.
    ///
    /// # Errors
    /// Without root or compiled objects, with what to do about it.
    pub fn new() -> anyhow::Result<Self> {
        require_root()?;
        let taken = spare().take();
        let (datapath, pins) = match taken {
            Some((datapath, pins)) => {
                reset::empty(&pins.path().join("maps")).context("cannot empty the maps")?;
                let mut events = datapath.events()?;
                while events.next().is_some() {}
                (datapath, pins)
            }
            None => {
                let pins = BpfFs::mount()?;
                (Datapath::open(config(pins.path()))?, pins)
            }
        };
        let bench = Self { datapath: Some(datapath), pins: Some(pins), usual: true };
        bench.fill()?;
        Ok(bench)
    }

    /// Closes the data path and opens it again on the same pins.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn reopen(&mut self, sizes: MapSizes) -> anyhow::Result<()> {
        (self.datapath, self.usual) = (None, false);
        self.datapath = Some(Datapath::open(DatapathConfig { sizes, ..config(self.pins()) })?);
        Ok(())
    }

    /// The data path.
    ///
    /// # Panics
    /// Never: it is there until the value is dropped.
    #[must_use]
    #[allow(clippy::expect_used, reason = "present from construction to drop")]
    pub fn datapath(&self) -> &Datapath {
        self.datapath.as_ref().expect("present until drop")
    }

    fn fill(&self) -> anyhow::Result<()> {
        let tables = self.datapath().tables();
        let endpoint =
            |ifindex, mac, host_mac| Endpoint { ifindex, mac: MacAddr(mac), host_mac: MacAddr(host_mac) };
        tables.endpoints.update(&POD.into(), &endpoint(LOOPBACK, POD_MAC, POD_HOST_MAC))?;
        let neighbour = endpoint(NEIGHBOUR_IFINDEX, NEIGHBOUR_MAC, NEIGHBOUR_HOST_MAC);
        tables.endpoints.update(&NEIGHBOUR.into(), &neighbour)?;
        tables.endpoints.update(&POD6.into(), &endpoint(LOOPBACK, POD_MAC, POD_HOST_MAC))?;
        tables.endpoints.update(&NEIGHBOUR6.into(), &neighbour)?;
        for (prefix, kind) in [
            ("fd00:89::11/128", PeerKind::Host),
            ("fd00:244::1/128", PeerKind::Host),
            ("fd00:244::/64", PeerKind::LocalPods),
            ("fd00:89::12/128", PeerKind::RemoteNode(OTHER_NODE.into())),
            ("fd00:244:0:1::1/128", PeerKind::RemoteNode(OTHER_NODE.into())),
            ("fd00:244:0:1::/64", PeerKind::RemotePods(OTHER_NODE.into())),
            ("10.89.0.11/32", PeerKind::Host),
            ("10.244.0.1/32", PeerKind::Host),
            ("10.244.0.0/24", PeerKind::LocalPods),
            ("10.89.0.12/32", PeerKind::RemoteNode(OTHER_NODE.into())),
            ("10.244.1.1/32", PeerKind::RemoteNode(OTHER_NODE.into())),
            ("10.244.1.0/24", PeerKind::RemotePods(OTHER_NODE.into())),
        ] {
            let prefix: IpCidr = prefix.parse()?;
            let is_node =
                prefix.to_string().starts_with("10.89.") || prefix.to_string().starts_with("fd00:89:");
            tables.ipcache.update(&prefix, &Peer::new(kind).with_node_port(is_node))?;
        }
        Ok(())
    }

    /// Makes packets to [`NEIGHBOUR`] leave a run as they entered it, so that benchmarks can repeat them.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn loop_neighbour(&self) -> anyhow::Result<()> {
        let endpoint =
            Endpoint { ifindex: NEIGHBOUR_IFINDEX, mac: MacAddr(NEIGHBOUR_MAC), host_mac: MacAddr(POD_MAC) };
        Ok(self.datapath().tables().endpoints.update(&NEIGHBOUR.into(), &endpoint)?)
    }

    /// Adds a frontend with these backends.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn frontend(
        &self,
        (ip, port, protocol): (IpAddr, u16, Protocol),
        scope: Scope,
        frontend: Frontend,
        backends: &[(IpAddr, u16)],
    ) -> anyhow::Result<()> {
        let tables = self.datapath().tables();
        for (slot, (ip, port)) in backends.iter().enumerate() {
            let key = BackendSlot { set: frontend.set, slot: u16::try_from(slot)? };
            tables.backends.update(&key, &BackendAddress { ip: *ip, port: *port })?;
        }
        let port = Port::new(port).context("port zero")?;
        let key = FrontendKey { address: FrontendAddress { ip, port, protocol }, scope };
        let count = u16::try_from(backends.len())?;
        Ok(tables.frontends.update(&key, &Frontend { count, ..frontend })?)
    }

    /// Opens another data path on the same pins, with other facts about the node.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut NodeSettings)) -> anyhow::Result<()> {
        (self.datapath, self.usual) = (None, false);
        let mut config = config(self.pins());
        change(&mut config.node);
        self.datapath = Some(Datapath::open(config)?);
        Ok(())
    }

    /// Where the data path is pinned.
    ///
    /// # Panics
    /// Never: it is there until the value is dropped.
    #[must_use]
    #[allow(clippy::expect_used, reason = "present from construction to drop")]
    pub fn pins(&self) -> &Path {
        self.pins.as_ref().expect("present until drop").path()
    }

    /// Adds a Service on [`VIP`] with these backends.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn service(
        &self,
        id: u32,
        protocol: Protocol,
        port: u16,
        backends: &[(Ipv4Addr, u16)],
    ) -> anyhow::Result<()> {
        let tables = self.datapath().tables();
        for (slot, (ip, port)) in backends.iter().enumerate() {
            let key = BackendSlot { set: id, slot: u16::try_from(slot)? };
            tables.backends.update(&key, &BackendAddress { ip: (*ip).into(), port: *port })?;
        }
        let port = Port::new(port).context("port zero")?;
        let frontend = Frontend::new(id, u16::try_from(backends.len())?);
        let key = FrontendKey::inside(FrontendAddress { ip: VIP.into(), port, protocol });
        tables.frontends.update(&key, &frontend)?;
        Ok(())
    }

    /// Runs a program on bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn run(&self, program: &Classifier, bytes: &[u8]) -> anyhow::Result<TestOutcome> {
        let packet = TestPacket { bytes, ifindex: LOOPBACK, ..TestPacket::default() };
        Ok(self.datapath().test_run(program, &packet)?)
    }

    /// Runs a program on a packet and reads what comes out, checksums verified.
    ///
    /// # Errors
    /// When the kernel refuses or the result is not well-formed.
    pub fn pass<A: Ip>(
        &self,
        program: &Classifier,
        packet: &Crafted<A>,
    ) -> anyhow::Result<(u32, Crafted<A>)> {
        let outcome = self.run(program, &packet.bytes())?;
        Ok((outcome.verdict, Crafted::parse(&outcome.bytes)?))
    }

    /// Packets counted under a reason at a hook.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn counted(&self, hook: Hook, reason: Option<DropReason>) -> anyhow::Result<u64> {
        let rows = self.datapath().counters()?;
        Ok(rows.iter().filter(|row| row.hook == hook && row.reason == reason).map(|row| row.packets).sum())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let (Some(datapath), Some(pins)) = (self.datapath.take(), self.pins.take())
            && self.usual
            && !std::thread::panicking()
        {
            AT_EXIT.call_once(|| {
                // SAFETY: the function takes nothing and outlives the process.
                let _left_mounted_otherwise = unsafe { libc::atexit(drop_spare) };
            });
            *spare() = Some((datapath, pins));
        }
    }
}

/// The configuration of a test's data path.
#[must_use]
#[allow(clippy::expect_used, reason = "constants")]
pub fn config(root: &Path) -> DatapathConfig {
    DatapathConfig {
        pin_root: root.into(),
        object_dir: std::env::var_os("SKEP_BPF_DIR").map(PathBuf::from),
        node: NodeSettings {
            v4: Some(FamilySettings {
                node_ip: NODE,
                gateway: GATEWAY,
                service_cidr: "10.96.0.0/16".parse().expect("constant"),
                cluster_cidr: "10.244.0.0/16".parse().expect("constant"),
            }),
            v6: Some(FamilySettings {
                node_ip: NODE6,
                gateway: GATEWAY6,
                service_cidr: "fd00:96::/112".parse().expect("constant"),
                cluster_cidr: "fd00:244::/56".parse().expect("constant"),
            }),
            uplink_ifindex: LOOPBACK,
            vxlan_ifindex: 4_000_001,
            host_ifindex: 4_000_002,
            host_mac: MacAddr(HOST_MAC),
            net_ifindex: 4_000_003,
            net_mac: MacAddr(NET_MAC),
            node_ports: NODE_PORTS,
            nat_ports: NAT_PORTS,
            dsr: false,
        },
        sizes: MapSizes { conntrack: 16_384, sockets: 8192 },
        force_clsact: false,
    }
}

/// Says what is missing, and how to get it.
///
/// # Errors
/// Without root.
pub fn require_root() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "loading eBPF programs needs root (CAP_BPF, CAP_NET_ADMIN): run `sudo -E cargo xtask test programs`"
        );
    }
    Ok(())
}
