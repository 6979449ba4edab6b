//! Pinned maps: adopted when they are what this build expects, migrated when only their size differs, rebuilt otherwise.
//!
//! A pinned map is reused by the loader without a look, so this comparison comes first. Programs that still run keep the
//! map they were loaded with until they are replaced.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use skep_abi::{
    addr::V4,
    conntrack::{CtKey, CtValue},
    maps::{self, MapKind, MapSpec},
};
use tracing::{info, warn};

use crate::{
    config::MapSizes,
    error::DatapathError,
    sys::{self, MapFacts, RawMap},
};

/// What became of a map when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapOrigin {
    /// It was pinned and fits.
    Adopted,
    /// It was pinned with another size; entries were carried over.
    Migrated,
    /// It was pinned, but its entries mean something else now.
    Rebuilt,
    /// It did not exist.
    Created,
}

/// The pinned maps of a data path.
#[derive(Debug)]
pub(crate) struct PinnedMaps {
    maps: BTreeMap<&'static str, (Arc<RawMap>, MapOrigin)>,
}

impl PinnedMaps {
    /// Opens every map of the table below `folder`, which must be on a bpffs.
    pub(crate) fn open(folder: &Path, sizes: &MapSizes) -> Result<Self, DatapathError> {
        let mut opened = BTreeMap::new();
        for spec in maps::ALL {
            let path = folder.join(spec.name);
            let (map, origin) = open_one(&path, spec, wanted(spec, sizes)).map_err(|source| {
                DatapathError::File { action: "cannot open the pinned map", path, source }
            })?;
            opened.insert(spec.name, (Arc::new(map), origin));
        }
        Ok(Self { maps: opened })
    }

    /// The map of a spec.
    pub(crate) fn get(&self, spec: &MapSpec) -> Result<Arc<RawMap>, DatapathError> {
        self.maps
            .get(spec.name)
            .map(|(map, _)| Arc::clone(map))
            .ok_or_else(|| DatapathError::Incompatible { object: "maps".into(), what: spec.name.into() })
    }

    /// What became of each map.
    pub(crate) fn origins(&self) -> impl Iterator<Item = (&'static str, MapOrigin)> + '_ {
        self.maps.iter().map(|(name, (_, origin))| (*name, *origin))
    }
}

fn wanted(spec: &MapSpec, sizes: &MapSizes) -> MapFacts {
    let kind = match spec.kind {
        MapKind::Hash => 1,
        MapKind::PerCpuArray => 6,
        MapKind::LruHash => 9,
        MapKind::LpmTrie => 11,
        MapKind::RingBuf => 27,
    };
    MapFacts {
        kind,
        id: 0,
        key: spec.key,
        value: spec.value,
        entries: sizes.entries(spec),
        flags: spec.flags,
    }
}

/// What has to happen with a pinned map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Adopt,
    Migrate,
    Rebuild,
}

fn compare(found: MapFacts, wanted: MapFacts) -> Step {
    let found = MapFacts { id: 0, ..found };
    if found == wanted {
        return Step::Adopt;
    }
    let same_rows = (found.kind, found.key, found.value) == (wanted.kind, wanted.key, wanted.value);
    if same_rows { Step::Migrate } else { Step::Rebuild }
}

fn open_one(path: &Path, spec: &MapSpec, wanted: MapFacts) -> io::Result<(RawMap, MapOrigin)> {
    let found = match sys::open_pin(path) {
        Ok(fd) => RawMap::new(fd)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let map = RawMap::new(sys::create_map(spec.name, wanted)?)?;
            sys::pin(&map, path)?;
            return Ok((map, MapOrigin::Created));
        }
        Err(error) => return Err(error),
    };
    let origin = match compare(found.facts(), wanted) {
        Step::Adopt => return Ok((found, MapOrigin::Adopted)),
        Step::Migrate => MapOrigin::Migrated,
        Step::Rebuild => MapOrigin::Rebuilt,
    };
    let map = RawMap::new(sys::create_map(spec.name, wanted)?)?;
    if origin == MapOrigin::Migrated {
        let carried = carry(spec, &found, &map)?;
        info!(map = spec.name, carried, "pinned map has another size: migrated");
    } else {
        warn!(map = spec.name, found = ?found.facts(), ?wanted, "pinned map has another layout: rebuilt");
    }
    replace_pin(&map, path)?;
    Ok((map, origin))
}

/// Only conntrack holds what cannot be computed again: everything else is reconciled from the cluster's state.
fn carry(spec: &MapSpec, from: &RawMap, to: &RawMap) -> io::Result<usize> {
    if spec.name != maps::CONNTRACK4.name {
        return Ok(0);
    }
    let mut entries = from.entries::<CtKey<V4>, CtValue<V4>>()?;
    entries.sort_by_key(|(_, value)| value.last_seen);
    for (key, value) in &entries {
        to.update(key, value)?;
    }
    Ok(entries.len())
}

/// Pins beside and moves over: no moment without a pin. bpffs refuses names with dots.
fn replace_pin(map: &RawMap, path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("-new");
    let beside: PathBuf = path.with_file_name(name);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sys::pin(map, &beside)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: MapFacts = MapFacts { kind: 9, id: 0, key: 16, value: 20, entries: 1024, flags: 0 };

    #[test]
    fn a_map_that_fits_is_adopted_whatever_its_id() {
        assert_eq!(compare(MapFacts { id: 77, ..FACTS }, FACTS), Step::Adopt);
    }

    #[test]
    fn another_size_migrates_and_another_layout_rebuilds() {
        assert_eq!(compare(MapFacts { entries: 512, ..FACTS }, FACTS), Step::Migrate);
        assert_eq!(compare(MapFacts { value: 24, ..FACTS }, FACTS), Step::Rebuild);
        assert_eq!(compare(MapFacts { kind: 1, ..FACTS }, FACTS), Step::Rebuild);
    }
}
