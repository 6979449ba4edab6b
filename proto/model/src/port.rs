//! Transport protocols and ports.

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

/// A port number that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a port: it must be between 1 and 65535")]
pub struct PortError(pub i64);

/// A transport port in host order, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(NonZeroU16);

impl Port {
    /// A port known to be nonzero at the place of use; `None` for zero.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Port(number)),
            None => None,
        }
    }

    /// The number in host order.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<i32> for Port {
    type Error = PortError;

    fn try_from(number: i32) -> Result<Self, PortError> {
        u16::try_from(number).ok().and_then(Port::new).ok_or(PortError(number.into()))
    }
}

impl TryFrom<u32> for Port {
    type Error = PortError;

    fn try_from(number: u32) -> Result<Self, PortError> {
        u16::try_from(number).ok().and_then(Port::new).ok_or(PortError(number.into()))
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.get()
    }
}

/// A protocol name that Services cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a Service protocol: use TCP, UDP or SCTP")]
pub struct ProtocolError(pub String);

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

impl Protocol {
    /// The number in an IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The protocol of an IP header's number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// The name as Kubernetes writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        match text {
            "TCP" => Ok(Protocol::Tcp),
            "UDP" => Ok(Protocol::Udp),
            "SCTP" => Ok(Protocol::Sctp),
            _ => Err(ProtocolError(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_too_large_ports_are_refused() {
        assert_eq!(Port::try_from(0), Err(PortError(0)));
        assert_eq!(Port::try_from(65_536), Err(PortError(65_536)));
        assert_eq!(Port::try_from(-1), Err(PortError(-1)));
        assert_eq!(Port::try_from(65_535).map(Port::get), Ok(65_535));
    }

    #[test]
    fn every_protocol_round_trips_by_name_and_number() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(protocol.name().parse(), Ok(protocol));
            assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
        }
        assert_eq!("tcp".parse::<Protocol>(), Err(ProtocolError("tcp".into())));
    }
}
