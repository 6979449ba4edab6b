//! What every part of the kubelet works with: made once by the composition root, then only read.

use std::{fs, sync::Arc};

use tokio::sync::watch;

use crate::{
    cgroup::Cgroups,
    config::Config,
    cri::Cri,
    env::fields::NodeFields,
    events::Recorder,
    objects::Objects,
    sandbox::dns::{self, Resolvers},
    session::Session,
};

/// What the runtime can do beyond the basics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// User namespaces with id-mapped mounts.
    pub(crate) user_namespaces: bool,
}

/// What the runtime last said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuntimeState {
    /// It can run containers.
    pub(crate) runtime_ready: bool,
    /// Its network plugin is set up.
    pub(crate) network_ready: bool,
    /// Why not.
    pub(crate) message: String,
}

impl Default for RuntimeState {
    fn default() -> Self {
        let message = "the container runtime has not answered yet".to_owned();
        Self { runtime_ready: false, network_ready: false, message }
    }
}

/// The parts.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The flags.
    pub(crate) config: Config,
    /// The runtime.
    pub(crate) cri: Cri,
    /// The API.
    pub(crate) session: Arc<Session>,
    /// Events.
    pub(crate) events: Recorder,
    /// Config maps, secrets, tokens, Services.
    pub(crate) objects: Objects,
    /// Pod cgroups.
    pub(crate) cgroups: Cgroups,
    /// What pods may know of the node.
    pub(crate) node_fields: NodeFields,
    /// The node's addresses.
    pub(crate) node_ips: Vec<String>,
    /// The node's memory.
    pub(crate) memory_bytes: i64,
    /// What the runtime can do.
    pub(crate) features: Features,
    /// What the runtime last said of itself.
    pub(crate) network: watch::Receiver<RuntimeState>,
}

impl Shared {
    /// The cluster's and the node's resolvers, read afresh: the node's may change.
    pub(crate) fn resolvers(&self) -> Resolvers {
        let text = fs::read_to_string(&self.config.resolv_conf).unwrap_or_default();
        Resolvers {
            cluster: self.config.cluster_dns.clone(),
            domain: self.config.cluster_domain.clone(),
            node: dns::parse(&text),
        }
    }
}
