//! Maglev tables in their map. What is wanted of a set is its backends; the table is computed when it is written and
//! kept nowhere else.

use std::{collections::BTreeMap, sync::Arc};

use skep_datapath::{MAGLEV_CHUNK, MaglevChunk, MaglevKey, MapTable, TableError};
use skep_loadbalancer::maglev;
use skep_model::Backend;
use skep_table::Target;

/// The table that a set should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MaglevTable {
    /// Positions.
    pub(super) size: u16,
    /// Backends in slot order.
    pub(super) backends: Arc<[Backend]>,
}

/// The map, by sets.
pub(super) struct MaglevMap(Arc<dyn MapTable<MaglevKey, MaglevChunk>>);

impl MaglevMap {
    pub(super) fn new(table: &Arc<dyn MapTable<MaglevKey, MaglevChunk>>) -> Self {
        MaglevMap(Arc::clone(table))
    }
}

/// Parts of a table of this many positions.
fn chunks(size: u16) -> u32 {
    u32::from(size).div_ceil(MAGLEV_CHUNK as u32)
}

impl Target<u32, MaglevTable> for MaglevMap {
    type Error = TableError;

    fn update(&mut self, set: &u32, wanted: &MaglevTable) -> Result<(), TableError> {
        let table = maglev::table(&wanted.backends, wanted.size);
        for (chunk, slots) in (0u32..).zip(table.chunks(MAGLEV_CHUNK)) {
            let mut row: MaglevChunk = [0; MAGLEV_CHUNK];
            row[..slots.len()].copy_from_slice(slots);
            self.0.update(&MaglevKey { set: *set, chunk }, &row)?;
        }
        Ok(())
    }

    fn delete(&mut self, set: &u32) -> Result<(), TableError> {
        let largest = maglev::SIZES.into_iter().max().unwrap_or(0);
        (0..chunks(largest)).try_for_each(|chunk| self.0.delete(&MaglevKey { set: *set, chunk }))
    }

    fn prune(&mut self, desired: &BTreeMap<u32, MaglevTable>) -> Result<usize, TableError> {
        let is_wanted =
            |key: &MaglevKey| desired.get(&key.set).is_some_and(|table| key.chunk < chunks(table.size));
        let stale: Vec<MaglevKey> =
            self.0.entries()?.into_iter().map(|(key, _)| key).filter(|key| !is_wanted(key)).collect();
        stale.iter().try_for_each(|key| self.0.delete(key))?;
        Ok(stale.len())
    }
}
