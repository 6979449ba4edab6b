//! What a lab cluster consists of: names, addresses and what runs on each node. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::address::{Families, join};
use crate::init::node_file::{Machine, NodeFile, Service};

/// The API server's port on its node.
pub(crate) const API_PORT: u16 = 6443;
/// Where the bootstrap credential lies on a node.
pub(crate) const BOOTSTRAP: &str = "/etc/skep/bootstrap.kubeconfig";
/// The control plane's folder on its node.
pub(crate) const CONTROL_PLANE_DIR: &str = "/var/lib/skep/controlplane";
/// containerd's socket on a node.
pub(crate) const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Where the binaries are shown on a node.
pub(crate) const BIN_DIR: &str = "/opt/skep/bin";
/// Where pid 1 says what it is doing, on a node.
pub(crate) const INIT_STATUS: &str = "/run/skep/init.json";
/// Logs of the node's services.
pub(crate) const LOG_DIR: &str = "/var/log/skep";
/// The last address of the /24 is the 244th node: enough for one machine.
pub(crate) const MAX_NODES: u8 = 200;

/// Where the cluster's state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// In the control plane's own file.
    Embedded,
    /// In an etcd beside it.
    Etcd,
}

impl Store {
    fn argument(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd=http://127.0.0.1:2379",
        }
    }
}

/// A lab cluster as asked for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Plan {
    /// Starts every name on the machine, so that two clusters can live side by side.
    pub(crate) prefix: String,
    /// How many nodes.
    pub(crate) nodes: u8,
    /// Where the state is kept.
    pub(crate) store: Store,
    /// The API server's port on the host's loopback.
    pub(crate) api_port: u16,
    /// The address families.
    #[serde(default)]
    pub(crate) families: Families,
    /// The cluster's folder.
    pub(crate) dir: PathBuf,
}

/// A node of the lab, counted from 1. The first one carries the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeNumber(pub u8);

impl NodeNumber {
    /// The node's name in the cluster.
    pub(crate) fn name(self) -> String {
        format!("node-{}", self.0)
    }

    /// The number in a node's name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        name.strip_prefix("node-")?.parse().ok().filter(|number| (1..=MAX_NODES).contains(number)).map(Self)
    }

    /// Whether the control plane runs here.
    pub(crate) fn is_first(self) -> bool {
        self.0 == 1
    }
}

impl Plan {
    /// The nodes, first one first.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = NodeNumber> + use<> {
        (1..=self.nodes).map(NodeNumber)
    }

    /// The router's network namespace.
    pub(crate) fn router(&self) -> String {
        format!("{}-router", self.prefix)
    }

    /// Name of a node's network namespace and cgroup.
    pub(crate) fn machine_name(&self, node: NodeNumber) -> String {
        format!("{}-{}", self.prefix, node.name())
    }

    /// A node's folder on the host.
    pub(crate) fn node_dir(&self, node: NodeNumber) -> PathBuf {
        self.dir.join("nodes").join(node.name())
    }

    /// A node's disk on the host.
    pub(crate) fn root(&self, node: NodeNumber) -> PathBuf {
        self.node_dir(node).join("root")
    }

    /// The folder with the copies of the binaries that the nodes run.
    pub(crate) fn bin_dir(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// What the node's pid 1 gets told.
    pub(crate) fn node_file(&self, node: NodeNumber) -> NodeFile {
        let mut services = vec![containerd()];
        if node.is_first() {
            if self.store == Store::Etcd {
                services.push(etcd());
            }
            services.push(control_plane(node, self.store, self.families));
        }
        services.push(kubelet(node, self.families));
        NodeFile {
            name: node.name(),
            machine: Some(self.machine(node)),
            log_dir: LOG_DIR.into(),
            status_file: INIT_STATUS.into(),
            services,
        }
    }

    fn machine(&self, node: NodeNumber) -> Machine {
        let read_only = BTreeMap::from([(self.bin_dir(), PathBuf::from(BIN_DIR))]);
        Machine {
            netns: Path::new("/run/netns").join(self.machine_name(node)),
            cgroup: self.machine_name(node),
            root: self.root(node),
            read_only,
            listen: node.is_first().then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, self.api_port))),
        }
    }
}

fn service(name: &str, command: Vec<String>) -> Service {
    Service {
        name: name.into(),
        command,
        needs: Vec::new(),
        listener: false,
        stop_seconds: 10,
        env: BTreeMap::from([("RUST_LOG".into(), "info".into())]),
    }
}

fn command(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn containerd() -> Service {
    service("containerd", command("containerd --config /etc/containerd/config.toml"))
}

fn etcd() -> Service {
    let client = "http://127.0.0.1:2379";
    let line = format!(
        "etcd --name skep --data-dir /var/lib/etcd --listen-client-urls {client} --advertise-client-urls {client} \
         --listen-peer-urls http://127.0.0.1:2380"
    );
    service("etcd", command(&line))
}

fn control_plane(node: NodeNumber, store: Store, families: Families) -> Service {
    // Clients of the second family, which is not advertised, reach it as well.
    let others = families.node(node).into_iter().skip(1).map(|(ip, _)| format!(" --extra-san {ip}"));
    let line = format!(
        "{BIN_DIR}/skep-controlplane --data-dir {CONTROL_PLANE_DIR} --store {} --bind {} \
         --listen-fd 0 --advertise-address {} --service-cidr {} --cluster-cidr {} \
         --roles apiserver,scheduler,controllers --extra-san 127.0.0.1{}",
        store.argument(),
        SocketAddr::new(families.any(), API_PORT),
        families.primary(node),
        families.service_cidr(),
        families.cluster_cidr(),
        others.collect::<String>(),
    );
    Service { listener: true, ..service("controlplane", command(&line)) }
}

fn kubelet(node: NodeNumber, families: Families) -> Service {
    let line = format!(
        "{BIN_DIR}/skep-kubelet --node-name {} --node-ip {} --bootstrap-kubeconfig {BOOTSTRAP} \
         --root-dir /var/lib/kubelet --cri {CONTAINERD} --cluster-dns {} --cluster-domain cluster.local \
         --capacity cpu=2,memory=4Gi,pods=110",
        node.name(),
        join(families.node(node).into_iter().map(|(ip, _)| ip)),
        join(families.dns()),
    );
    Service { needs: vec![BOOTSTRAP.into()], ..service("kubelet", command(&line)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(store: Store) -> Plan {
        let families = Families::Ipv4;
        Plan { prefix: "skep".into(), nodes: 3, store, api_port: 7443, families, dir: "/lab".into() }
    }

    fn names(file: &NodeFile) -> Vec<&str> {
        file.services.iter().map(|service| service.name.as_str()).collect()
    }

    #[test]
    fn the_control_plane_runs_on_the_first_node_only() {
        let plan = plan(Store::Embedded);
        assert_eq!(names(&plan.node_file(NodeNumber(1))), ["containerd", "controlplane", "kubelet"]);
        assert_eq!(names(&plan.node_file(NodeNumber(2))), ["containerd", "kubelet"]);
    }

    #[test]
    fn etcd_starts_before_the_control_plane_that_uses_it() {
        let file = plan(Store::Etcd).node_file(NodeNumber(1));
        assert_eq!(names(&file), ["containerd", "etcd", "controlplane", "kubelet"]);
        assert!(file.services[2].command.contains(&"etcd=http://127.0.0.1:2379".to_owned()));
    }

    #[test]
    fn the_host_reaches_the_api_on_its_loopback_only() {
        let machine = plan(Store::Embedded).node_file(NodeNumber(1)).machine.unwrap();
        assert_eq!(machine.listen.unwrap().to_string(), "127.0.0.1:7443");
        assert!(plan(Store::Embedded).node_file(NodeNumber(3)).machine.unwrap().listen.is_none());
    }

    #[test]
    fn node_names_and_numbers_are_one() {
        assert_eq!(NodeNumber::parse("node-3"), Some(NodeNumber(3)));
        assert!(["node-0", "node-x", "3", "node-201"].iter().all(|name| NodeNumber::parse(name).is_none()));
    }

    #[test]
    fn every_part_is_told_of_both_families() {
        let file = Plan { families: Families::Dual, ..plan(Store::Embedded) }.node_file(NodeNumber(1));
        let holds = |service: usize, word: &str| file.services[service].command.contains(&word.to_owned());
        for word in ["[::]:6443", "10.89.0.11", "fd00:89::11", "10.96.0.0/16,fd00:96::/112"] {
            assert!(holds(1, word), "{word}: {:?}", file.services[1].command);
        }
        assert!(holds(2, "10.89.0.11,fd00:89::11") && holds(2, "10.96.0.10,fd00:96::a"));
    }
}
