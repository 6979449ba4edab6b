//! Frontends, Maglev tables and affinity, as the maps have them, with the names that the load balancer knows.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use serde::Serialize;
use skep_datapath::{
    AffinityClient, AffinityEntry, FrontendKey as RowKey, MAGLEV_CHUNK, Scope, TableError, Tables,
};
use skep_loadbalancer::LoadBalancer;
use skep_model::SetId;

/// A row of the frontend map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LbRow {
    pub(super) frontend: String,
    scope: &'static str,
    kind: String,
    service: String,
    port: String,
    set: u32,
    flags: Vec<&'static str>,
    affinity_seconds: u32,
    maglev: u16,
    backends: Vec<BackendRow>,
}

/// A slot of its set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct BackendRow {
    address: String,
    slot: u16,
    node: Option<String>,
    local: bool,
}

/// A Maglev table, summed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct MaglevRow {
    set: u32,
    service: String,
    port: String,
    size: u16,
    backends: Vec<Share>,
}

/// How many positions lead to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Share {
    address: String,
    slots: usize,
}

/// A client that stays with a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AffinityRow {
    client: String,
    service: String,
    port: String,
    backend: String,
    idle_seconds: u32,
}

/// What is known of frontends and sets by those who gave them out.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    kinds: HashMap<RowKey, String>,
    sets: HashMap<u32, (String, String)>,
    nodes: HashMap<(u32, SocketAddr), String>,
    own: String,
}

impl Names {
    /// Of everything that is wanted now.
    pub(super) fn of(balancer: &LoadBalancer) -> Self {
        let mut names = Names { own: balancer.context().node.clone(), ..Names::default() };
        for (key, frontend) in balancer.frontends() {
            names.kinds.insert(crate::tables::row_key(key), frontend.kind.to_string());
            let SetId(set) = frontend.set;
            let known = (frontend.owner.to_string(), frontend.port_name.to_string());
            if names.sets.insert(set, known).is_some() {
                continue;
            }
            for backend in frontend.backends.iter() {
                if let Some(node) = balancer.node_of(&frontend.owner, backend.ip) {
                    let address = SocketAddr::new(backend.ip, backend.port.get());
                    names.nodes.insert((set, address), node.to_owned());
                }
            }
        }
        names
    }

    /// The Service and port of a set; empty when nobody wants it any more.
    pub(super) fn set(&self, set: u32) -> (String, String) {
        self.sets.get(&set).cloned().unwrap_or_default()
    }
}

/// Slots of every set.
fn slots(tables: &Tables) -> Result<HashMap<u32, BTreeMap<u16, SocketAddr>>, TableError> {
    let mut slots: HashMap<u32, BTreeMap<u16, SocketAddr>> = HashMap::new();
    for (slot, address) in tables.backends.entries()? {
        slots.entry(slot.set).or_default().insert(slot.slot, SocketAddr::new(address.ip, address.port));
    }
    Ok(slots)
}

/// Every frontend.
pub(super) fn frontends(tables: &Tables, names: &Names) -> Result<Vec<LbRow>, TableError> {
    let slots = slots(tables)?;
    let mut entries = tables.frontends.entries()?;
    entries.sort_by_key(|(key, _)| *key);
    let row = |(key, row): (RowKey, skep_datapath::Frontend)| {
        let (service, port) = names.set(row.set);
        let backend = |(slot, address): (&u16, &SocketAddr)| {
            let node = names.nodes.get(&(row.set, *address)).cloned();
            let local = node.as_deref() == Some(&names.own);
            BackendRow { address: address.to_string(), slot: *slot, node, local }
        };
        let flags = [
            (row.flags.external, "external"),
            (row.flags.split, "split"),
            (row.flags.source_ranges, "sourceRanges"),
            (row.flags.silent, "silent"),
            (row.flags.node_port, "nodePort"),
        ];
        LbRow {
            frontend: key.address.to_string(),
            scope: match key.scope {
                Scope::Inside => "inside",
                Scope::Outside => "outside",
                Scope::Local => "local",
            },
            kind: names.kinds.get(&key).cloned().unwrap_or_default(),
            service,
            port,
            set: row.set,
            flags: flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect(),
            affinity_seconds: row.affinity_seconds,
            maglev: row.maglev,
            backends: slots.get(&row.set).into_iter().flatten().map(backend).collect(),
        }
    };
    Ok(entries.into_iter().map(row).collect())
}

/// Every Maglev table.
pub(super) fn maglev(tables: &Tables, names: &Names) -> Result<Vec<MaglevRow>, TableError> {
    let slots = slots(tables)?;
    let rows = tables.frontends.entries()?;
    let sizes: BTreeMap<u32, u16> =
        rows.iter().filter(|(_, row)| row.maglev > 0).map(|(_, row)| (row.set, row.maglev)).collect();
    let mut counts: HashMap<u32, BTreeMap<u16, usize>> = HashMap::new();
    for (key, chunk) in tables.maglev.entries()? {
        let size = usize::from(sizes.get(&key.set).copied().unwrap_or(0));
        let first = key.chunk as usize * MAGLEV_CHUNK;
        for slot in chunk.iter().take(size.saturating_sub(first)) {
            *counts.entry(key.set).or_default().entry(*slot).or_default() += 1;
        }
    }
    let row = |(set, size): (u32, u16)| {
        let (service, port) = names.set(set);
        let share = |(slot, slots_held): (&u16, &usize)| {
            let address = slots.get(&set).and_then(|slots| slots.get(slot));
            Share { address: address.map(ToString::to_string).unwrap_or_default(), slots: *slots_held }
        };
        let backends = counts.get(&set).into_iter().flatten().map(share).collect();
        MaglevRow { set, service, port, size, backends }
    };
    Ok(sizes.into_iter().map(row).collect())
}

/// Every client that stays with a backend.
pub(super) fn affinity(entries: &[AffinityEntry], names: &Names) -> Vec<AffinityRow> {
    let row = |entry: &AffinityEntry| {
        let (service, port) = names.set(entry.set);
        AffinityRow {
            client: match entry.client {
                AffinityClient::Address(address) => address.to_string(),
                AffinityClient::Netns(cookie) => format!("netns {cookie}"),
            },
            service,
            port,
            backend: entry.backend.to_string(),
            idle_seconds: entry.idle,
        }
    };
    entries.iter().map(row).collect()
}
