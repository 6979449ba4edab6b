//! Links, addresses, routes, neighbours and sysctls of a node and its pods.
//!
//! What should be is computed purely and compared with what is; the difference is a list of commands. The shell that
//! carries them out is the only user of rtnetlink in Skep.
//!
//! Map: [`plan`] is desired against actual, [`node`] says what a node with these pods needs, [`pod`] what one pod
//! needs; [`netlink`] reads and executes, [`changes`] notices what others do, [`namespace`] does so inside a pod's namespace, [`sysctl`] writes settings.

pub mod changes;
pub mod namespace;
pub mod netlink;
pub mod node;
pub mod plan;
pub mod pod;
pub mod sysctl;

use std::{io, net::IpAddr, path::PathBuf};

pub use changes::Changes;
pub use netlink::{Netlink, Uplink};
pub use node::{FamilyNetwork, HOST_LINK, NET_LINK, NodeNetwork, TUNNEL_LINK};
pub use plan::{Actual, Command, Desired, plan};
pub use pod::{PodAddress, PodLink};

/// Why the network could not be brought to what it should be.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error("cannot {action}")]
    Netlink {
        /// What was tried.
        action: String,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// A device that should exist does not.
    #[error("there is no device {0:?}")]
    NoDevice(String),
    /// The node's address is on no device.
    #[error("no device of this node holds the node's address {0}: check --node-ip")]
    NoUplink(IpAddr),
    /// A network namespace cannot be entered.
    #[error("cannot enter the network namespace {path}: is it mounted into the agent's container?")]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A setting cannot be written.
    #[error("cannot write {value:?} to the setting {key}")]
    Sysctl {
        /// Which, as a path below /proc/sys.
        key: String,
        /// What should be in it.
        value: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The thread that works in a namespace ended without a result.
    #[error("the thread in the network namespace {0} ended early")]
    ThreadLost(PathBuf),
}
