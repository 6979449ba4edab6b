//! Command line and environment.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::Parser;
use skep_model::{Cidr4, NodeName};

/// The network agent of a node: attaches pods, balances Services, feeds the node's DNS.
#[derive(Clone, Debug, Parser)]
#[command(name = "skep-agent", version)]
pub(crate) struct Options {
    /// Name of the Node object of this machine.
    #[arg(long, env = "SKEP_NODE_NAME")]
    pub(crate) node_name: NodeName,
    /// Underlay address of this machine; taken from the Node object when absent.
    #[arg(long, env = "SKEP_NODE_IP")]
    pub(crate) node_ip: Option<Ipv4Addr>,
    /// Address of the API server itself; never its Service IP, which this process provides.
    #[arg(long, env = "SKEP_API_SERVER")]
    pub(crate) api_server: Option<http::Uri>,
    /// Range of all pods.
    #[arg(long, env = "SKEP_CLUSTER_CIDR", default_value = "10.244.0.0/16")]
    pub(crate) cluster_cidr: Cidr4,
    /// Range of Service addresses.
    #[arg(long, env = "SKEP_SERVICE_CIDR", default_value = "10.96.0.0/16")]
    pub(crate) service_cidr: Cidr4,
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
}

impl Options {
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
    fn a_node_name_and_nothing_else_is_required() {
        let options = Options::try_parse_from(["skep-agent", "--node-name", "node-1"]).unwrap();
        assert_eq!(options.agent_socket(), PathBuf::from("/run/skep/agent.sock"));
        assert!(Options::try_parse_from(["skep-agent", "--node-name", "Node_1"]).is_err());
    }
}
