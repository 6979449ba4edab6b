//! Host ports of this node's pods.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use skep_model::{NamespacedName, Port, Protocol};

use super::{InputError, created, name_of, protocol_of};

/// A port of a container that answers on addresses of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The only address it answers on; `None` for all of the node's.
    pub host_ip: Option<IpAddr>,
    /// Number on the node.
    pub host_port: Port,
    /// Number in the pod.
    pub port: Port,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A pod with host ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPorts {
    /// Which pod.
    pub name: NamespacedName,
    /// When it was created, in seconds.
    pub created: i64,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its host ports.
    pub ports: Vec<HostPort>,
}

impl HostPorts {
    /// The host ports of a pod that runs and has a network of its own; `None` when there are none.
    ///
    /// # Errors
    /// When the object has no name or a port is out of range.
    pub fn of(pod: &core::Pod) -> Result<Option<Self>, InputError> {
        let Some(spec) = &pod.spec else { return Ok(None) };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_over = matches!(phase, Some("Succeeded" | "Failed"));
        if is_over || spec.host_network == Some(true) {
            return Ok(None);
        }
        // An init container that restarts is a sidecar: it stays, and so do its ports.
        let stays = |container: &&core::Container| container.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.iter().flatten().filter(stays);
        let ports =
            spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        let ports = ports.filter_map(|port| host_port(port).transpose()).collect::<Result<Vec<_>, _>>()?;
        let status = pod.status.as_ref();
        let listed = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
        let addresses: Vec<IpAddr> = listed.filter_map(|ip| ip.ip.parse().ok()).collect();
        if ports.is_empty() || addresses.is_empty() {
            return Ok(None);
        }
        let name = name_of(&pod.metadata)?;
        Ok(Some(HostPorts { name, created: created(&pod.metadata), addresses, ports }))
    }
}

fn host_port(port: &core::ContainerPort) -> Result<Option<HostPort>, InputError> {
    let Some(number) = port.host_port.filter(|&number| number != 0) else { return Ok(None) };
    let host_ip = port.host_ip.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
    Ok(Some(HostPort {
        host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
        host_port: number.try_into()?,
        port: port.container_port.try_into()?,
        protocol: protocol_of(port.protocol.as_deref())?,
    }))
}
