//! Command line and environment.

pub(crate) mod balancing;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Parser;
use skep_model::{IpFamily, NodeName, Ranges};

use self::balancing::Balancing;
use crate::{announce::AnnounceOptions, facts::Given};

/// The network agent of a node: attaches pods, balances Services, feeds the node's DNS.
#[derive(Clone, Debug, Parser)]
#[command(name = "skep-agent", version)]
pub(crate) struct Options {
    /// Name of the Node object of this machine.
    #[arg(long, env = "SKEP_NODE_NAME")]
    pub(crate) node_name: NodeName,
    /// Underlay addresses of this machine, one a family; taken from the Node object when absent.
    #[arg(long, env = "SKEP_NODE_IP", value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Address of the API server itself; never its Service IP, which this process provides.
    #[arg(long, env = "SKEP_API_SERVER")]
    pub(crate) api_server: Option<http::Uri>,
    /// Range of all pods, or one a family: 10.244.0.0/16,fd00:244::/56.
    #[arg(long, env = "SKEP_CLUSTER_CIDR", default_value = "10.244.0.0/16")]
    pub(crate) cluster_cidr: Ranges,
    /// Range of Service addresses, or one a family: 10.96.0.0/16,fd00:96::/112.
    #[arg(long, env = "SKEP_SERVICE_CIDR", default_value = "10.96.0.0/16")]
    pub(crate) service_cidr: Ranges,
    /// Folder of our pins, on a bpffs.
    #[arg(long, env = "SKEP_PIN_ROOT", default_value = "/sys/fs/bpf/skep")]
    pub(crate) pin_root: PathBuf,
    /// Folder of compiled eBPF objects to use instead of the built-in ones.
    #[arg(long, env = "SKEP_BPF_OBJECTS")]
    pub(crate) bpf_objects: Option<PathBuf>,
    /// Attach with clsact even where the kernel has TCX.
    #[arg(long, env = "SKEP_FORCE_CLSACT")]
    pub(crate) force_clsact: bool,
    /// Folder of what must survive a restart.
    #[arg(long, env = "SKEP_STATE_DIR", default_value = "/var/lib/skep/agent")]
    pub(crate) state_dir: PathBuf,
    /// Folder of the sockets.
    #[arg(long, env = "SKEP_RUN_DIR", default_value = "/run/skep")]
    pub(crate) run_dir: PathBuf,
    /// The node's cgroup file system as seen from here.
    #[arg(long, env = "SKEP_CGROUP_ROOT", default_value = "/host/cgroup")]
    pub(crate) cgroup_root: PathBuf,
    /// The plugin that is installed on the node.
    #[arg(long, env = "SKEP_CNI_BINARY", default_value = "/usr/bin/skep-cni")]
    pub(crate) cni_binary: PathBuf,
    /// The node's folder of CNI plugins as seen from here.
    #[arg(long, env = "SKEP_CNI_BIN_DIR", default_value = "/host/opt/cni/bin")]
    pub(crate) cni_bin_dir: PathBuf,
    /// The node's folder of CNI configurations as seen from here.
    #[arg(long, env = "SKEP_CNI_CONF_DIR", default_value = "/host/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,
    /// Where healthz, readyz, metrics and status are served; loopback only.
    #[arg(long, env = "SKEP_ADMIN", default_value = "127.0.0.1:9870")]
    pub(crate) admin: SocketAddr,
    /// How Services are balanced.
    #[command(flatten)]
    pub(crate) balancing: Balancing,
    /// How addresses are announced on the local network.
    #[command(flatten)]
    pub(crate) announcing: AnnounceOptions,
}

impl Options {
    /// What is given of the own node: the cluster's families are those that pods and Services both have.
    pub(crate) fn given(&self) -> Given {
        let has = |family: IpFamily| {
            [self.cluster_cidr, self.service_cidr].iter().all(|ranges| ranges.families().any(|f| f == family))
        };
        Given { node_ips: self.node_ip.clone(), v4: has(IpFamily::V4), v6: has(IpFamily::V6) }
    }

    /// Socket that skep-cni and `skep status` dial.
    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }

    /// Socket that the proxy dials.
    pub(crate) fn proxy_socket(&self) -> PathBuf {
        self.run_dir.join("proxy.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_the_clusters_when_pods_and_services_have_it() {
        let parse = |extra: &[&str]| {
            let base = ["skep-agent", "--node-name", "n"];
            Options::try_parse_from(base.iter().chain(extra)).unwrap().given()
        };
        assert!(parse(&[]).v4 && !parse(&[]).v6);
        let pods = ["--cluster-cidr", "10.244.0.0/16,fd00:244::/56"];
        assert!(!parse(&pods).v6);
        let both =
            [&pods[..], &["--service-cidr", "10.96.0.0/16,fd00:96::/112", "--node-ip", "10.0.0.1,fd00::1"]]
                .concat();
        assert!(parse(&both).v4 && parse(&both).v6);
        assert_eq!(parse(&both).node_ips.len(), 2);
    }

    #[test]
    fn a_node_name_and_nothing_else_is_required() {
        let options = Options::try_parse_from(["skep-agent", "--node-name", "node-1"]).unwrap();
        assert_eq!(options.agent_socket(), PathBuf::from("/run/skep/agent.sock"));
        assert!(Options::try_parse_from(["skep-agent", "--node-name", "Node_1"]).is_err());
        assert_eq!(options.balancing.maglev(), Some(1021));
        assert!(options.balancing.node_port_addresses.is_empty() && options.balancing.devices.is_empty());
    }
}
