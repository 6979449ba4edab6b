//! Choosing rows. Pure.

use thiserror::Error;

use super::rows::Row;

/// What a row must have.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filter {
    /// Its Service: `namespace/name`, or a name in any namespace.
    pub(crate) service: Option<String>,
    /// One of its addresses, with or without port.
    pub(crate) frontend: Option<String>,
    /// Its protocol.
    pub(crate) protocol: Option<String>,
    /// How many rows are shown.
    pub(crate) limit: usize,
}

/// A filter that no row could pass.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum FilterError {
    /// An unknown protocol.
    #[error("--protocol {0:?}: tcp, udp or sctp")]
    Protocol(String),
    /// No address.
    #[error("--frontend {0:?}: an address such as 10.96.0.1, 10.96.0.1:443 or [fd00::1]:443")]
    Frontend(String),
}

impl Filter {
    /// Says what is wrong before anything is asked.
    pub(crate) fn check(&self) -> Result<(), FilterError> {
        let known = |name: &&String| ["tcp", "udp", "sctp"].contains(&name.to_lowercase().as_str());
        if let Some(name) = self.protocol.as_ref().filter(|name| !known(name)) {
            return Err(FilterError::Protocol(name.clone()));
        }
        match &self.frontend {
            Some(text) if Wanted::parse(text).is_none() => Err(FilterError::Frontend(text.clone())),
            _ => Ok(()),
        }
    }

    /// Whether the row passes.
    pub(crate) fn passes(&self, row: &impl Row) -> bool {
        let service = self.service.as_ref().is_none_or(|wanted| is_service(row.service(), wanted));
        let protocol =
            self.protocol.as_ref().is_none_or(|wanted| row.protocol().eq_ignore_ascii_case(wanted));
        let address = self.frontend.as_ref().is_none_or(|wanted| {
            Wanted::parse(wanted).is_some_and(|wanted| row.addresses().iter().any(|text| wanted.is(text)))
        });
        service && protocol && address
    }
}

/// Whether `namespace/name` is the Service that was asked for.
pub(crate) fn is_service(found: &str, wanted: &str) -> bool {
    match wanted.contains('/') {
        true => found == wanted,
        false => found.rsplit('/').next() == Some(wanted),
    }
}

/// An address, perhaps with a port.
struct Wanted {
    address: std::net::IpAddr,
    port: Option<u16>,
}

impl Wanted {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(found) = text.parse::<std::net::SocketAddr>() {
            return Some(Self { address: found.ip(), port: Some(found.port()) });
        }
        Some(Self { address: text.parse().ok()?, port: None })
    }

    /// Whether `10.96.0.1:443/TCP` is it.
    fn is(&self, text: &str) -> bool {
        let text = text.split('/').next().unwrap_or_default();
        Self::parse(text).is_some_and(|found| {
            found.address == self.address && self.port.is_none_or(|port| found.port == Some(port))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Connection, Lb};
    use super::*;

    fn row() -> Lb {
        Lb { frontend: "10.96.0.1:443/TCP".into(), service: "default/kubernetes".into(), ..Lb::default() }
    }

    fn filter(service: &str, frontend: &str, protocol: &str) -> Filter {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Filter { service: given(service), frontend: given(frontend), protocol: given(protocol), limit: 9 }
    }

    #[test]
    fn a_service_is_found_with_and_without_its_namespace() {
        assert!(filter("default/kubernetes", "", "").passes(&row()));
        assert!(filter("kubernetes", "", "TCP").passes(&row()));
        assert!(!filter("other/kubernetes", "", "").passes(&row()));
        assert!(!filter("kube", "", "").passes(&row()));
    }

    #[test]
    fn an_address_is_found_with_and_without_its_port() {
        assert!(
            filter("", "10.96.0.1", "").passes(&row()) && filter("", "10.96.0.1:443", "tcp").passes(&row())
        );
        assert!(
            !filter("", "10.96.0.1:80", "").passes(&row()) && !filter("", "10.96.0.10", "").passes(&row())
        );
        let connection = Connection { translated: "[fd00::5]:80".into(), ..Connection::default() };
        assert!(filter("", "fd00::5", "").passes(&connection));
    }

    #[test]
    fn what_no_row_could_pass_is_said_at_once() {
        assert!(filter("", "", "icmp").check().unwrap_err().to_string().contains("tcp, udp or sctp"));
        assert!(filter("", "web", "").check().unwrap_err().to_string().contains("10.96.0.1:443"));
        assert_eq!(filter("web", "[fd00::1]:443", "UDP").check(), Ok(()));
    }
}
