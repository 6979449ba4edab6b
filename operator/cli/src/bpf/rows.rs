//! The rows of an agent's answers. A field that an agent does not know is empty.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A row of a dump.
pub(crate) trait Row: DeserializeOwned {
    /// The columns.
    const HEADS: &'static [&'static str];
    /// What stands in them; a cell may hold several lines.
    fn cells(&self) -> Vec<String>;
    /// `namespace/name`, or nothing.
    fn service(&self) -> &str;
    /// The addresses that can be asked for.
    fn addresses(&self) -> Vec<&str> {
        Vec::new()
    }
    /// The protocol, or nothing.
    fn protocol(&self) -> &str {
        ""
    }
}

/// A frontend with its backends.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Lb {
    /// Address, port and protocol, such as `10.96.0.1:443/TCP`.
    pub(crate) frontend: String,
    /// Whom it serves: inside, outside or local.
    pub(crate) scope: String,
    /// Where the address comes from.
    pub(crate) kind: String,
    /// `namespace/name`.
    pub(crate) service: String,
    /// The port's name.
    pub(crate) port: String,
    /// Number of the set of backends.
    pub(crate) set: u32,
    /// In words.
    pub(crate) flags: Vec<String>,
    /// Zero for none.
    pub(crate) affinity_seconds: u32,
    /// Size of the Maglev table, zero for none.
    pub(crate) maglev: u32,
    /// In the order of their slots.
    pub(crate) backends: Vec<Backend>,
}

/// A backend in a slot.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Backend {
    /// Address and port.
    pub(crate) address: String,
    /// Slot, from zero.
    pub(crate) slot: u32,
    /// The backend's node.
    pub(crate) node: Option<String>,
    /// Whether that is the node that was asked.
    pub(crate) local: bool,
}

impl Backend {
    fn describe(&self) -> String {
        let node = self.node.as_deref().unwrap_or(if self.local { "this node" } else { "" });
        if node.is_empty() { self.address.clone() } else { format!("{} on {node}", self.address) }
    }
}

impl Row for Lb {
    const HEADS: &'static [&'static str] =
        &["FRONTEND", "SCOPE", "KIND", "SERVICE", "PORT", "SET", "OPTIONS", "BACKENDS"];

    fn cells(&self) -> Vec<String> {
        let mut options = self.flags.clone();
        if self.affinity_seconds > 0 {
            options.push(format!("affinity {} s", self.affinity_seconds));
        }
        if self.maglev > 0 {
            options.push(format!("maglev {}", self.maglev));
        }
        let backends: Vec<String> = self.backends.iter().map(Backend::describe).collect();
        vec![
            self.frontend.clone(),
            self.scope.clone(),
            self.kind.clone(),
            self.service.clone(),
            self.port.clone(),
            self.set.to_string(),
            options.join(" "),
            if backends.is_empty() { "none".to_owned() } else { backends.join("\n") },
        ]
    }

    fn service(&self) -> &str {
        &self.service
    }

    fn addresses(&self) -> Vec<&str> {
        vec![&self.frontend]
    }

    fn protocol(&self) -> &str {
        self.frontend.rsplit_once('/').map_or("", |(_, protocol)| protocol)
    }
}

/// A tracked connection.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Connection {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) protocol: String,
    pub(crate) state: String,
    /// Where packets go instead of to the destination.
    pub(crate) translated: String,
    pub(crate) peer: String,
    pub(crate) idle_seconds: u32,
    pub(crate) service: Option<String>,
}

impl Row for Connection {
    const HEADS: &'static [&'static str] =
        &["PROTOCOL", "SOURCE", "DESTINATION", "TRANSLATED", "PEER", "STATE", "IDLE", "SERVICE"];

    fn cells(&self) -> Vec<String> {
        let idle = format!("{}s", self.idle_seconds);
        [
            &self.protocol,
            &self.source,
            &self.destination,
            &self.translated,
            &self.peer,
            &self.state,
            &idle,
            self.service.as_ref().unwrap_or(&String::new()),
        ]
        .map(Clone::clone)
        .to_vec()
    }

    fn service(&self) -> &str {
        self.service.as_deref().unwrap_or_default()
    }

    fn addresses(&self) -> Vec<&str> {
        vec![&self.source, &self.destination, &self.translated, &self.peer]
    }

    fn protocol(&self) -> &str {
        &self.protocol
    }
}

/// A tracked connection with another source.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Translation {
    #[serde(flatten)]
    connection: Connection,
    /// The source that the backend sees.
    snat: String,
}

impl Row for Translation {
    const HEADS: &'static [&'static str] =
        &["PROTOCOL", "CLIENT", "FRONTEND", "BACKEND", "SEEN AS", "STATE", "IDLE", "SERVICE"];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.connection.cells();
        if let Some(peer) = cells.get_mut(4) {
            peer.clone_from(&self.snat);
        }
        cells
    }

    fn service(&self) -> &str {
        self.connection.service()
    }

    fn addresses(&self) -> Vec<&str> {
        [self.connection.addresses(), vec![&self.snat]].concat()
    }

    fn protocol(&self) -> &str {
        &self.connection.protocol
    }
}

/// A Maglev table, summed up.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Maglev {
    set: u32,
    service: String,
    port: String,
    size: u32,
    backends: Vec<Share>,
}

/// A backend's share of a Maglev table.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Share {
    address: String,
    slots: u32,
}

impl Row for Maglev {
    const HEADS: &'static [&'static str] = &["SERVICE", "PORT", "SET", "SIZE", "BACKENDS"];

    fn cells(&self) -> Vec<String> {
        let percent = |slots: u32| f64::from(slots) * 100.0 / f64::from(self.size.max(1));
        let share = |share: &Share| {
            format!("{}  {} positions, {:.1} %", share.address, share.slots, percent(share.slots))
        };
        let shares: Vec<String> = self.backends.iter().map(share).collect();
        vec![
            self.service.clone(),
            self.port.clone(),
            self.set.to_string(),
            self.size.to_string(),
            shares.join("\n"),
        ]
    }

    fn service(&self) -> &str {
        &self.service
    }
}

/// A client bound to a backend.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Affinity {
    client: String,
    service: String,
    port: String,
    backend: String,
    idle_seconds: u32,
}

impl Row for Affinity {
    const HEADS: &'static [&'static str] = &["CLIENT", "SERVICE", "PORT", "BACKEND", "IDLE"];

    fn cells(&self) -> Vec<String> {
        let idle = format!("{}s", self.idle_seconds);
        [&self.client, &self.service, &self.port, &self.backend, &idle].map(Clone::clone).to_vec()
    }

    fn service(&self) -> &str {
        &self.service
    }
}
