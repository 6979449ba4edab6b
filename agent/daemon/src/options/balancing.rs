//! How Services are balanced.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use clap::{Args, ValueEnum};
use skep_loadbalancer::maglev;
use skep_model::IpCidr;

/// How a packet of an outside client reaches a backend on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// With this node's gateway address as source: the answer comes back through here.
    Snat,
    /// Unchanged, in the tunnel: the backend's node answers the client itself.
    Dsr,
}

/// How a backend is chosen for outside clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    /// By a table that is the same on every node.
    Maglev,
    /// By chance.
    Random,
}

/// Whether packets are balanced before the stack sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Xdp {
    /// Never.
    Off,
    /// On every uplink that can.
    Auto,
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bounds = text.split_once('-').and_then(|(first, last)| first.parse().ok().zip(last.parse().ok()));
        match bounds {
            Some((first, last)) if 0 < first && first <= last => Ok(PortRange { first, last }),
            _ => Err(format!("{text:?} is not of the form FIRST-LAST, as in 30000-32767")),
        }
    }
}

fn table_size(text: &str) -> Result<u16, String> {
    let size = text.parse().ok().filter(|size| maglev::SIZES.contains(size));
    size.ok_or_else(|| format!("{text:?} is not one of {:?}", maglev::SIZES))
}

/// How Services are balanced.
#[derive(Clone, Debug, Args)]
pub(crate) struct Balancing {
    /// How packets of outside clients reach backends on other nodes.
    #[arg(long, env = "SKEP_LB_MODE", value_enum, default_value = "snat")]
    pub(crate) lb_mode: Mode,
    /// How backends are chosen for outside clients.
    #[arg(long, env = "SKEP_LB_ALGORITHM", value_enum, default_value = "maglev")]
    pub(crate) lb_algorithm: Algorithm,
    /// Positions in each Service's Maglev table; a hundred a backend keep the load even.
    #[arg(long, env = "SKEP_MAGLEV_TABLE_SIZE", value_parser = table_size, default_value = "1021")]
    pub(crate) maglev_table_size: u16,
    /// Ports that the API server gives out as node ports.
    #[arg(long, env = "SKEP_NODE_PORTS", default_value = "30000-32767")]
    pub(crate) node_ports: PortRange,
    /// Ranges of the node addresses that node ports answer on; all when absent.
    #[arg(long, env = "SKEP_NODE_PORT_ADDRESSES", value_delimiter = ',')]
    pub(crate) node_port_addresses: Vec<IpCidr>,
    /// Ranges that spec.externalIPs may lie in; none when absent.
    #[arg(long, env = "SKEP_EXTERNAL_IP_RANGES", value_delimiter = ',')]
    pub(crate) external_ip_ranges: Vec<IpCidr>,
    /// Balance in the driver where a device can.
    #[arg(long, env = "SKEP_XDP", value_enum, default_value = "off")]
    pub(crate) xdp: Xdp,
    /// Devices that outside clients come in by, as names or beginnings of names with a `*`; those with a node address
    /// or the default route when absent.
    #[arg(long, env = "SKEP_DEVICES", value_delimiter = ',')]
    pub(crate) devices: Vec<String>,
    /// Where cloud load balancers ask whether the node's proxy works, as kube-proxy has it; `off` for nowhere.
    #[arg(long, env = "SKEP_KUBE_PROXY_HEALTH", value_parser = optional_address, default_value = "0.0.0.0:10256")]
    pub(crate) kube_proxy_health: OptionalAddress,
    /// Do not answer on the health check node ports of Services.
    #[arg(long, env = "SKEP_NO_HEALTH_CHECK_NODE_PORTS")]
    pub(crate) no_health_check_node_ports: bool,
}

/// An address to listen on, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OptionalAddress(pub(crate) Option<SocketAddr>);

fn optional_address(text: &str) -> Result<OptionalAddress, String> {
    if text == "off" || text.is_empty() {
        return Ok(OptionalAddress(None));
    }
    let address = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    Ok(OptionalAddress(Some(address)))
}

impl Balancing {
    /// Positions in Maglev tables; `None` when chance decides.
    pub(crate) fn maglev(&self) -> Option<u16> {
        (self.lb_algorithm == Algorithm::Maglev).then_some(self.maglev_table_size)
    }

    /// Whether node ports answer on an address of a node.
    pub(crate) fn has_node_ports(&self, address: IpAddr) -> bool {
        let chosen = &self.node_port_addresses;
        let is_chosen = chosen.is_empty() || chosen.iter().any(|range| range.contains(address));
        is_chosen && !address.is_loopback() && !address.is_unspecified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        assert!(table_size("1000").is_err() && table_size("1021").is_ok());
        assert!("30000".parse::<PortRange>().is_err() && "9-8".parse::<PortRange>().is_err());
        assert_eq!("30000-32767".parse(), Ok(PortRange { first: 30_000, last: 32_767 }));
        assert_eq!(optional_address("off"), Ok(OptionalAddress(None)));
        assert!(optional_address("10256").is_err());
    }
}
