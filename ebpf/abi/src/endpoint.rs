//! Endpoints: the pods attached to this node, by address.

use crate::{addr::Mac, layout};

/// Where a pod of this node is. Key: its address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Endpoint {
    /// Interface index of the host side of its veth pair.
    pub ifindex: u32,
    /// Link-layer address of the pod's side.
    pub mac: Mac,
    /// Link-layer address of the host side: what the pod takes for its gateway.
    pub host_mac: Mac,
}

layout!(Endpoint, size = 16, fields = [ifindex: u32, mac: Mac, host_mac: Mac]);
