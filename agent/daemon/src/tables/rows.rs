//! The load balancer's rows as those of the data path, and back.

use std::collections::BTreeMap;

use skep_datapath::{
    Frontend as FrontendRow, FrontendFlags as RowFlags, FrontendKey as RowKey, Scope as RowScope, TableError,
    Tables,
};
use skep_loadbalancer::{Frontend, FrontendKey, Pinned};
use skep_model::{Backend, FrontendKind, Port, Protocol, Scope, SetId};

/// The key of a row.
pub(crate) fn key(key: &FrontendKey) -> RowKey {
    let scope = match key.scope {
        Scope::Inside => RowScope::Inside,
        Scope::Outside => RowScope::Outside,
        Scope::Local => RowScope::Local,
    };
    RowKey { address: key.address, scope }
}

fn key_back(key: RowKey) -> FrontendKey {
    let scope = match key.scope {
        RowScope::Inside => Scope::Inside,
        RowScope::Outside => Scope::Outside,
        RowScope::Local => Scope::Local,
    };
    FrontendKey { address: key.address, scope }
}

pub(super) fn count(backends: &[Backend]) -> u16 {
    u16::try_from(backends.len()).unwrap_or(u16::MAX)
}

pub(super) fn frontend(frontend: &Frontend) -> FrontendRow {
    FrontendRow {
        set: frontend.set.0,
        count: count(&frontend.backends),
        flags: RowFlags {
            external: frontend.flags.external,
            split: frontend.flags.split,
            source_ranges: frontend.flags.source_ranges,
            silent: frontend.flags.silent,
            node_port: frontend.kind == FrontendKind::NodePort,
        },
        affinity_seconds: frontend.affinity_seconds,
        maglev: frontend.maglev,
    }
}

/// Numbers of sets and their slots, as the pinned maps have them. A set with a hole is as good as one that is new.
pub(crate) fn pinned(tables: &Tables) -> Result<Pinned, TableError> {
    let rows = tables.frontends.entries()?;
    let protocols: BTreeMap<u32, Protocol> =
        rows.iter().map(|(key, row)| (row.set, key.address.protocol)).collect();
    let mut slots: BTreeMap<SetId, BTreeMap<u16, Backend>> = BTreeMap::new();
    for (slot, address) in tables.backends.entries()? {
        let Some((port, protocol)) = Port::new(address.port).zip(protocols.get(&slot.set).copied()) else {
            continue;
        };
        let backend = Backend { ip: address.ip, port, protocol };
        slots.entry(SetId(slot.set)).or_default().insert(slot.slot, backend);
    }
    let whole = |slots: &BTreeMap<u16, Backend>| slots.keys().copied().eq((0u16..).take(slots.len()));
    Ok(Pinned {
        rows: rows.into_iter().map(|(key, row)| (key_back(key), SetId(row.set))).collect(),
        slots: slots
            .into_iter()
            .filter(|(_, slots)| whole(slots))
            .map(|(set, slots)| (set, slots.into_values().collect()))
            .collect(),
    })
}
