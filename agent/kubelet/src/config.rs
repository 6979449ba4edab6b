//! The kubelet's flags, parsed into what the parts need.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use clap::Parser;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// skep-kubelet: runs this node's pods through the container runtime interface.
#[derive(Debug, Clone, Parser)]
#[command(name = "skep-kubelet", version)]
pub(crate) struct Config {
    /// The node's name; it must stay the same over restarts.
    #[arg(long, env = "SKEP_NODE_NAME")]
    pub(crate) node_name: String,
    /// The node's address, given several times for two families (the first is preferred).
    #[arg(long, env = "SKEP_NODE_IP", required = true, value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Kubeconfig with the bootstrap token, for the first certificate.
    #[arg(long, default_value = "/etc/skep/bootstrap.kubeconfig")]
    pub(crate) bootstrap_kubeconfig: PathBuf,
    /// Where certificates and pod directories are kept.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub(crate) root_dir: PathBuf,
    /// Where logs go: `pods/` and `containers/` below it.
    #[arg(long, default_value = "/var/log")]
    pub(crate) log_dir: PathBuf,
    /// The container runtime's socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    pub(crate) cri: PathBuf,
    /// Addresses of the cluster DNS.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cluster_dns: Vec<String>,
    /// The cluster domain.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// The resolv.conf that host-network pods and upstream lookups use.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub(crate) resolv_conf: PathBuf,
    /// What the node offers, e.g. `cpu=2,memory=4Gi,pods=110`; the rest is read from the machine.
    #[arg(long, value_delimiter = ',', value_parser = pair)]
    pub(crate) capacity: Vec<(String, String)>,
    /// What is kept for the system, e.g. `cpu=100m,memory=200Mi`.
    #[arg(long, value_delimiter = ',', value_parser = pair)]
    pub(crate) reserved: Vec<(String, String)>,
    /// Labels to register with, `k=v,..`.
    #[arg(long, value_delimiter = ',', value_parser = pair)]
    pub(crate) node_labels: Vec<(String, String)>,
    /// Port of the kubelet API.
    #[arg(long, default_value_t = 10250)]
    pub(crate) port: u16,
    /// Port of /healthz and /metrics, on loopback.
    #[arg(long, default_value_t = 10248)]
    pub(crate) healthz_port: u16,
    /// The most processes of one pod.
    #[arg(long)]
    pub(crate) pod_max_pids: Option<i64>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("{text:?} is not key=value")),
    }
}

impl Config {
    /// The node's addresses as text.
    pub(crate) fn node_ips(&self) -> Vec<String> {
        self.node_ip.iter().map(ToString::to_string).collect()
    }

    /// The unspecified address on which a listener serves all of the node's families.
    pub(crate) fn listen_ip(&self) -> IpAddr {
        match self.node_ip.iter().any(IpAddr::is_ipv6) {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// The capacity flags as quantities.
    pub(crate) fn capacity(&self) -> BTreeMap<String, Quantity> {
        self.capacity.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect()
    }

    /// Where seccomp profiles are looked for.
    pub(crate) fn seccomp_root(&self) -> PathBuf {
        self.root_dir.join("seccomp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_of_pairs() {
        let config = Config::parse_from([
            "skep-kubelet",
            "--node-name",
            "n",
            "--node-ip",
            "10.0.0.1",
            "--capacity",
            "cpu=2,memory=4Gi",
        ]);
        assert_eq!(config.capacity()["memory"], Quantity("4Gi".into()));
        assert!(pair("nonsense").is_err());
        assert!(config.listen_ip().is_ipv4());
    }

    #[test]
    fn a_node_of_two_families_is_listened_for_in_both() {
        let config =
            Config::parse_from(["skep-kubelet", "--node-name", "n", "--node-ip", "10.0.0.1,fd00::1"]);
        assert_eq!(config.node_ips(), ["10.0.0.1", "fd00::1"]);
        assert!(config.listen_ip().is_ipv6());
    }
}
