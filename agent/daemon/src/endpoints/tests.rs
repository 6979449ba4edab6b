//! Attachments in network namespaces of their own, with the real netlink shell and fakes for programs and maps.
//! Needs root; says so and passes without.

use std::{
    process::Command as Process,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use skep_datapath::FakeTable;

use skep_routing::Uplink;

use super::*;
use crate::{
    facts::{OwnFamily, OwnNode},
    network,
};

/// A named namespace that goes away with the value.
struct Scratch(String);

impl Scratch {
    fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let scratch = Scratch(format!("skep-a{}-{number}-{role}", std::process::id()));
        ip(&["netns", "add", &scratch.0]);
        scratch
    }

    fn path(&self) -> String {
        format!("/var/run/netns/{}", self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Process::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) {
    assert!(Process::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root to make network namespaces");
    }
    root
}

#[derive(Default)]
struct FakePrograms {
    attached: Mutex<BTreeSet<u32>>,
}

impl Programs for FakePrograms {
    fn attach_pod(&self, index: u32) -> Result<(), DatapathError> {
        self.attached.lock().unwrap().insert(index);
        Ok(())
    }

    fn detach_pod(&self, index: u32) -> Result<(), DatapathError> {
        self.attached.lock().unwrap().remove(&index);
        Ok(())
    }
}

/// What stays in the kernel while agents come and go.
struct Kernel {
    programs: Arc<FakePrograms>,
    table: Arc<FakeTable<IpAddr, Endpoint>>,
    state: tempfile::TempDir,
}

impl Kernel {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        Kernel { programs: Arc::default(), table: Arc::default(), state }
    }

    /// A new agent.
    fn open(&self, netlink: Netlink) -> Endpoints {
        let own = OwnNode {
            v4: Some(OwnFamily { node_ip: [10, 89, 78, 11].into(), range: "10.244.9.0/24".parse().unwrap() }),
            v6: Some(OwnFamily {
                node_ip: "fd00:89:78::11".parse().unwrap(),
                range: "fd00:244:0:9::/64".parse().unwrap(),
            }),
        };
        let cluster = "10.244.0.0/16,fd00:244::/56".parse().unwrap();
        let service = "10.96.0.0/16,fd00:96::/112".parse().unwrap();
        let uplink = Uplink { name: "eth0".into(), index: 0, mtu: 1500, heeds_routers: false };
        let network = network::network(own, cluster, service, uplink);
        let ranges: Vec<_> = own.ranges().collect();
        let table = Arc::clone(&self.table) as Arc<dyn MapTable<IpAddr, Endpoint>>;
        Endpoints::open(self.state.path(), netlink, network, &ranges, self.programs.clone(), &table).unwrap()
    }
}

/// Runs a test inside a node's namespace, whose own devices are up.
async fn on_a_node<F: Future<Output = ()> + 'static>(test: impl FnOnce(Netlink) -> F + Send + 'static) {
    let node = Scratch::new("node");
    ip(&["-n", &node.0, "link", "set", "lo", "up"]);
    ip(&["-n", &node.0, "link", "add", "eth0", "type", "veth", "peer", "name", "far"]);
    ip(&["-n", &node.0, "addr", "add", "10.89.78.11/24", "dev", "eth0"]);
    ip(&["-n", &node.0, "addr", "add", "fd00:89:78::11/64", "dev", "eth0", "nodad"]);
    ip(&["-n", &node.0, "link", "set", "eth0", "up"]);
    let namespace = Namespace::open(&namespace_path(&node.path())).unwrap();
    let done = namespace.run(|netlink| async move {
        test(netlink).await;
        Ok(())
    });
    done.await.unwrap();
}

fn key(id: &str) -> AttachmentKey {
    AttachmentKey { container_id: id.into(), ifname: "eth0".into() }
}

fn pod(sandbox: &Scratch) -> Attachment {
    Attachment {
        netns: sandbox.path(),
        pod_namespace: "default".into(),
        pod_name: "web".into(),
        pod_uid: "u".into(),
    }
}

async fn bring_up(endpoints: &Endpoints) {
    let actual = endpoints.netlink.actual().await.unwrap();
    for command in plan(&endpoints.network.links(), &actual) {
        endpoints.netlink.execute(&command).await.unwrap();
    }
    endpoints.restore().await.unwrap();
}

#[tokio::test]
async fn an_attachment_is_made_once_checked_and_removed_for_good() {
    if !is_root() {
        return;
    }
    let sandbox = Scratch::new("pod");
    on_a_node(|netlink| async move {
        let kernel = Kernel::new();
        let endpoints = kernel.open(netlink);
        bring_up(&endpoints).await;
        let (link, first) = endpoints.add(key("c1"), pod(&sandbox)).await.unwrap();
        let (_, again) = endpoints.add(key("c1"), pod(&sandbox)).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(kernel.table.rows().len(), 2);
        assert_eq!(kernel.programs.attached.lock().unwrap().len(), 1);
        endpoints.check(&key("c1"), &sandbox.path()).await.unwrap();
        assert_eq!(endpoints.list()[0].0, NamespacedName::new("default", "web"));
        for _ in 0..2 {
            endpoints.del(&key("c1")).await.unwrap();
        }
        assert!(kernel.table.rows().is_empty() && kernel.programs.attached.lock().unwrap().is_empty());
        assert!(endpoints.netlink.link(&link.host_name).await.unwrap().is_none());
        assert!(matches!(endpoints.check(&key("c1"), &sandbox.path()).await, Err(EndpointError::Unknown(_))));
    })
    .await;
}

#[tokio::test]
async fn a_new_agent_adopts_live_pods_and_releases_those_whose_namespace_is_gone() {
    if !is_root() {
        return;
    }
    let (alive, doomed) = (Scratch::new("alive"), Scratch::new("doomed"));
    on_a_node(|netlink| async move {
        let kernel = Kernel::new();
        let old = kernel.open(netlink.clone());
        bring_up(&old).await;
        let (_, kept) = old.add(key("alive"), pod(&alive)).await.unwrap();
        let (link, lost) = old.add(key("doomed"), pod(&doomed)).await.unwrap();
        drop(old);
        drop(doomed);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while netlink.link(&link.host_name).await.unwrap().is_some() {
            assert!(std::time::Instant::now() < deadline, "the device outlived its namespace");
            tokio::task::yield_now().await;
        }
        let new = kernel.open(netlink);
        new.restore().await.unwrap();
        let rows: Vec<_> = kernel.table.rows().into_keys().collect();
        assert_eq!(rows, kept.addresses().collect::<Vec<_>>());
        new.check(&key("alive"), &alive.path()).await.unwrap();
        let fresh = Scratch::new("fresh");
        let (_, next) = new.add(key("fresh"), pod(&fresh)).await.unwrap();
        assert_ne!(next.v4, lost.v4, "a freed address rests");
    })
    .await;
}

#[tokio::test]
async fn a_failed_attachment_leaves_nothing_and_foreign_leftovers_are_cleared() {
    if !is_root() {
        return;
    }
    let sandbox = Scratch::new("pod");
    on_a_node(|netlink| async move {
        let kernel = Kernel::new();
        let endpoints = kernel.open(netlink.clone());
        bring_up(&endpoints).await;
        ip(&["-n", &sandbox.0, "link", "add", "eth0", "type", "bridge"]);
        assert!(endpoints.add(key("c1"), pod(&sandbox)).await.is_err());
        assert!(kernel.table.rows().is_empty() && endpoints.list().is_empty());
        ip(&["-n", &sandbox.0, "link", "del", "eth0"]);
        let orphan = PodLink::new("orphan", "eth0", 1450, vec![]);
        let inside = Namespace::open(&namespace_path(&sandbox.path())).unwrap();
        netlink.create_pod_pair(&orphan, inside.descriptor()).await.unwrap();
        endpoints.reconcile().await.unwrap();
        assert!(netlink.link(&orphan.host_name).await.unwrap().is_none());
        endpoints.add(key("c1"), pod(&sandbox)).await.unwrap();
        // Half an attachment, as after a crash: it is made anew, and its old device leaves no programs behind.
        ip(&["-n", &sandbox.0, "addr", "flush", "dev", "eth0"]);
        endpoints.add(key("c1"), pod(&sandbox)).await.unwrap();
        assert_eq!(kernel.programs.attached.lock().unwrap().len(), 1);
        assert_eq!(endpoints.gc(&BTreeSet::new()).await.unwrap(), 1);
        assert!(kernel.programs.attached.lock().unwrap().is_empty());
        let missing = Attachment { netns: "/run/netns/skep-none".into(), ..pod(&sandbox) };
        let error = endpoints.add(key("c2"), missing).await.unwrap_err();
        assert!(error.to_string().contains("skep-none"));
        let own = Attachment { netns: "/proc/self/ns/net".into(), ..pod(&sandbox) };
        assert!(matches!(endpoints.add(key("c3"), own).await, Err(EndpointError::OwnNamespace(_))));
    })
    .await;
}
