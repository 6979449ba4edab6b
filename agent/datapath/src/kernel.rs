//! The tables on real maps: rows become the bytes of `skep-abi` (see [`crate::codec`]) and back.

use std::{io, sync::Arc};

use skep_abi::{Plain, maps::MapSpec};

use crate::{
    sys::RawMap,
    table::{MapTable, TableError},
};

/// How rows of one map are written. `None` where a row is not of the map's family.
pub(crate) trait Codec: Send + Sync + 'static {
    type Key: std::fmt::Debug + Send + Sync;
    type Value: std::fmt::Debug + Send + Sync;
    type RawKey: Plain;
    type RawValue: Plain;
    const SPEC: MapSpec;

    fn key(key: &Self::Key) -> Option<Self::RawKey>;
    fn value(value: &Self::Value) -> Option<Self::RawValue>;
    fn row(key: Self::RawKey, value: Self::RawValue) -> Option<(Self::Key, Self::Value)>;
}

/// A table on a pinned map.
pub(crate) struct KernelTable<C> {
    map: Arc<RawMap>,
    codec: std::marker::PhantomData<C>,
}

impl<C: Codec> KernelTable<C> {
    pub(crate) fn new(map: Arc<RawMap>) -> Self {
        Self { map, codec: std::marker::PhantomData }
    }

    fn family_error(row: &dyn std::fmt::Debug) -> TableError {
        TableError::Family { table: C::SPEC.name, row: format!("{row:?}") }
    }

    fn kernel_error(&self, source: io::Error) -> TableError {
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => {
                TableError::Full { table: C::SPEC.name, capacity: self.map.facts().entries }
            }
            _ => TableError::Kernel { table: C::SPEC.name, source },
        }
    }

    fn put(&self, key: &C::RawKey, value: &C::RawValue) -> Result<(), TableError> {
        self.map.update(key, value).map_err(|source| self.kernel_error(source))
    }

    fn remove(&self, key: &C::RawKey) -> Result<(), TableError> {
        self.map.delete(key).map_err(|source| self.kernel_error(source))
    }
}

impl<C: Codec> MapTable<C::Key, C::Value> for KernelTable<C> {
    fn update(&self, key: &C::Key, value: &C::Value) -> Result<(), TableError> {
        let raw_key = C::key(key).ok_or_else(|| Self::family_error(key))?;
        let raw_value = C::value(value).ok_or_else(|| Self::family_error(value))?;
        self.put(&raw_key, &raw_value)
    }

    fn delete(&self, key: &C::Key) -> Result<(), TableError> {
        let raw_key = C::key(key).ok_or_else(|| Self::family_error(key))?;
        self.remove(&raw_key)
    }

    fn entries(&self) -> Result<Vec<(C::Key, C::Value)>, TableError> {
        let rows =
            self.map.entries::<C::RawKey, C::RawValue>().map_err(|source| self.kernel_error(source))?;
        Ok(rows.into_iter().filter_map(|(key, value)| C::row(key, value)).collect())
    }
}

/// A table of rows of both families, each in the map of its own.
pub(crate) struct DualTable<C4, C6> {
    v4: KernelTable<C4>,
    v6: KernelTable<C6>,
}

impl<C4: Codec, C6: Codec<Key = C4::Key, Value = C4::Value>> DualTable<C4, C6> {
    pub(crate) fn new(v4: Arc<RawMap>, v6: Arc<RawMap>) -> Self {
        Self { v4: KernelTable::new(v4), v6: KernelTable::new(v6) }
    }
}

impl<C4, C6> MapTable<C4::Key, C4::Value> for DualTable<C4, C6>
where
    C4: Codec,
    C6: Codec<Key = C4::Key, Value = C4::Value>,
{
    fn update(&self, key: &C4::Key, value: &C4::Value) -> Result<(), TableError> {
        if let (Some(key), Some(value)) = (C4::key(key), C4::value(value)) {
            return self.v4.put(&key, &value);
        }
        self.v6.update(key, value)
    }

    /// A key that says nothing about its family (a slot of a set) is removed from both maps.
    fn delete(&self, key: &C4::Key) -> Result<(), TableError> {
        if let Some(key) = C4::key(key) {
            self.v4.remove(&key)?;
        }
        if let Some(key) = C6::key(key) {
            self.v6.remove(&key)?;
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(C4::Key, C4::Value)>, TableError> {
        let mut rows = self.v4.entries()?;
        rows.extend(self.v6.entries()?);
        Ok(rows)
    }
}
