//! Names of objects and programs.

use crate::event::Hook;

/// Object with the socket programs.
pub const OBJECT_SOCK: &str = "sock";
/// Object with the two programs of a pod's veth.
pub const OBJECT_POD: &str = "pod";
/// Object with the two programs of the tunnel device.
pub const OBJECT_OVERLAY: &str = "overlay";
/// Object with the program of the node-side veth pair.
pub const OBJECT_HOST: &str = "host";
/// Object with the two programs of an uplink.
pub const OBJECT_UPLINK: &str = "uplink";
/// Object with the program that sees packets of an uplink before the stack.
pub const OBJECT_XDP: &str = "xdp";

/// Every object, in the order they are loaded.
pub const OBJECTS: &[&str] =
    &[OBJECT_SOCK, OBJECT_POD, OBJECT_OVERLAY, OBJECT_HOST, OBJECT_UPLINK, OBJECT_XDP];

/// A classifier: where it is and what it is called (the kernel shows the first 15 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Classifier {
    /// Object.
    pub object: &'static str,
    /// Symbol in the object.
    pub name: &'static str,
    /// What it sees.
    pub hook: Hook,
    /// Whether it is attached to the ingress of its device (otherwise to the egress).
    pub ingress: bool,
}

/// Packets from a pod.
pub const FROM_POD: Classifier =
    Classifier { object: OBJECT_POD, name: "skep_from_pod", hook: Hook::FromPod, ingress: true };
/// Packets from the host's stack to a pod.
pub const TO_POD: Classifier =
    Classifier { object: OBJECT_POD, name: "skep_to_pod", hook: Hook::ToPod, ingress: false };
/// Packets out of the tunnel.
pub const FROM_OVERLAY: Classifier =
    Classifier { object: OBJECT_OVERLAY, name: "skep_from_vxlan", hook: Hook::FromOverlay, ingress: true };
/// Packets into the tunnel.
pub const TO_OVERLAY: Classifier =
    Classifier { object: OBJECT_OVERLAY, name: "skep_to_vxlan", hook: Hook::ToOverlay, ingress: false };
/// Packets of the node's own processes, on the programs' side of the node-side veth pair.
pub const FROM_HOST: Classifier =
    Classifier { object: OBJECT_HOST, name: "skep_from_host", hook: Hook::FromHost, ingress: true };
/// Packets from the network.
pub const FROM_UPLINK: Classifier =
    Classifier { object: OBJECT_UPLINK, name: "skep_from_uplink", hook: Hook::FromUplink, ingress: true };
/// Packets to the network.
pub const TO_UPLINK: Classifier =
    Classifier { object: OBJECT_UPLINK, name: "skep_to_uplink", hook: Hook::ToUplink, ingress: false };

/// Every classifier.
pub const CLASSIFIERS: &[Classifier] =
    &[FROM_POD, TO_POD, FROM_OVERLAY, TO_OVERLAY, FROM_HOST, FROM_UPLINK, TO_UPLINK];

/// The program of [`OBJECT_XDP`].
pub const XDP_PROGRAM: &str = "skep_xdp";

/// Socket programs: the symbol in the object, which is also the attach type's name with a prefix.
pub const SOCK_PROGRAMS: &[&str] = &[
    "skep_connect4",
    "skep_connect6",
    "skep_sendmsg4",
    "skep_sendmsg6",
    "skep_recvmsg4",
    "skep_recvmsg6",
    "skep_getpeer4",
    "skep_getpeer6",
];
