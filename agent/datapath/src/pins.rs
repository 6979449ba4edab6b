//! Pinned maps: adopted when they are what this build expects, migrated row by row when their size or a known older
//! layout differs, rebuilt otherwise.
//!
//! A pinned map is reused by the loader without a look, so this comparison comes first. A map that takes another's place
//! is pinned beside it, as `NAME-next`, until [`PinnedMaps::settle`]: programs that still run keep the map they were
//! loaded with, and an agent that dies before leaves everything as it was.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use skep_abi::maps::{self, MapKind, MapSpec};
use tracing::{info, warn};

use crate::{
    config::{Families, MapSizes},
    convert::{Conversion, conversion},
    error::DatapathError,
    sys::{self, MapFacts, Put, RawMap},
};

/// What became of a map when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapOrigin {
    /// It was pinned and fits.
    Adopted,
    /// It was pinned with another size or an older layout; its rows were carried over.
    Migrated,
    /// It was pinned, but its rows mean something else now: it starts empty.
    Rebuilt,
    /// It did not exist.
    Created,
}

/// What became of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapReport {
    /// Name of the map.
    pub map: &'static str,
    /// What became of it.
    pub origin: MapOrigin,
    /// Rows that were carried over.
    pub carried: usize,
}

/// A map that is replaced: what the programs of before still use, and how its rows are read.
#[derive(Debug)]
struct Predecessor {
    spec: &'static MapSpec,
    map: RawMap,
    convert: Option<Conversion>,
}

/// The pinned maps of a data path.
#[derive(Debug)]
pub(crate) struct PinnedMaps {
    folder: PathBuf,
    maps: BTreeMap<&'static str, (Arc<RawMap>, MapReport)>,
    replaced: Mutex<Vec<Predecessor>>,
}

impl PinnedMaps {
    /// Opens every map of the table below `folder`, which must be on a bpffs.
    pub(crate) fn open(folder: &Path, sizes: &MapSizes, families: Families) -> Result<Self, DatapathError> {
        let mut opened = Self { folder: folder.into(), maps: BTreeMap::new(), replaced: Mutex::default() };
        for spec in maps::ALL {
            let wanted = wanted(spec, sizes.entries(spec, families));
            opened.open_one(spec, wanted).map_err(|source| DatapathError::File {
                action: "cannot open the pinned map",
                path: folder.join(spec.name),
                source,
            })?;
        }
        Ok(opened)
    }

    fn open_one(&mut self, spec: &'static MapSpec, wanted: MapFacts) -> io::Result<()> {
        let path = self.folder.join(spec.name);
        remove_if_there(&self.next(spec.name))?;
        let mut report = MapReport { map: spec.name, origin: MapOrigin::Adopted, carried: 0 };
        let map = match sys::open_pin(&path) {
            Ok(fd) => RawMap::new(fd)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let map = RawMap::new(sys::create_map(spec.name, wanted)?)?;
                sys::pin(&map, &path)?;
                report.origin = MapOrigin::Created;
                self.maps.insert(spec.name, (Arc::new(map), report));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if (MapFacts { id: 0, ..map.facts() }) == wanted {
            self.maps.insert(spec.name, (Arc::new(map), report));
            return Ok(());
        }
        let new = RawMap::new(sys::create_map(spec.name, wanted)?)?;
        let convert = (map.facts().kind == wanted.kind).then(|| conversion(spec, map.facts())).flatten();
        if let Some(convert) = convert {
            report.origin = MapOrigin::Migrated;
            report.carried = carry(spec, &map, &new, convert, Put::Always)?;
            info!(map = spec.name, carried = report.carried, "pinned map has another size or age: migrated");
        } else {
            report.origin = MapOrigin::Rebuilt;
            warn!(map = spec.name, found = ?map.facts(), ?wanted, "pinned map has another layout: rebuilt");
        }
        sys::pin(&new, &self.next(spec.name))?;
        self.maps.insert(spec.name, (Arc::new(new), report));
        let replaced = self.replaced.get_mut().unwrap_or_else(PoisonError::into_inner);
        replaced.push(Predecessor { spec, map, convert });
        Ok(())
    }

    fn next(&self, name: &str) -> PathBuf {
        // bpffs refuses names with dots.
        self.folder.join(format!("{name}-next"))
    }

    /// The map of a spec.
    pub(crate) fn get(&self, spec: &MapSpec) -> Result<Arc<RawMap>, DatapathError> {
        self.maps
            .get(spec.name)
            .map(|(map, _)| Arc::clone(map))
            .ok_or_else(|| DatapathError::Incompatible { object: "maps".into(), what: spec.name.into() })
    }

    /// What became of each map.
    pub(crate) fn reports(&self) -> Vec<MapReport> {
        self.maps.values().map(|(_, report)| *report).collect()
    }

    /// Where each map is pinned now.
    pub(crate) fn paths(&self) -> Vec<(&'static str, PathBuf)> {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let is_next = |name: &str| replaced.iter().any(|old| old.spec.name == name);
        self.maps
            .keys()
            .map(|name| (*name, if is_next(name) { self.next(name) } else { self.folder.join(name) }))
            .collect()
    }

    /// Whether a table that the caller fills starts empty although an older one held rows.
    pub(crate) fn needs_rows(&self) -> bool {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let is_table = |spec: &MapSpec| matches!(spec.kind, MapKind::Hash | MapKind::LpmTrie);
        replaced.iter().any(|old| old.convert.is_none() && is_table(old.spec))
    }

    /// Moves the pins of new maps to their final place. What they replace is kept until [`PinnedMaps::retire`].
    pub(crate) fn settle(&self) -> Result<(), DatapathError> {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        for old in replaced.iter() {
            let (from, to) = (self.next(old.spec.name), self.folder.join(old.spec.name));
            match fs::rename(&from, &to) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DatapathError::File {
                        action: "cannot move the pinned map",
                        path: from,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets replaced maps go, once no program uses them: flows that began since they were copied are carried over.
    pub(crate) fn retire(&self) -> Result<(), DatapathError> {
        let replaced = std::mem::take(&mut *self.replaced.lock().unwrap_or_else(PoisonError::into_inner));
        for old in replaced {
            let Some(convert) = old.convert.filter(|_| old.spec.kind == MapKind::LruHash) else { continue };
            let new = self.get(old.spec)?;
            carry(old.spec, &old.map, &new, convert, Put::IfAbsent).map_err(|source| {
                DatapathError::File {
                    action: "cannot carry over rows of",
                    path: self.folder.join(old.spec.name),
                    source,
                }
            })?;
        }
        Ok(())
    }
}

fn wanted(spec: &MapSpec, entries: u32) -> MapFacts {
    let kind = match spec.kind {
        MapKind::Hash => 1,
        MapKind::PerCpuArray => 6,
        MapKind::LruHash => 9,
        MapKind::LpmTrie => 11,
        MapKind::RingBuf => 27,
    };
    MapFacts { kind, id: 0, key: spec.key, value: spec.value, entries, flags: spec.flags }
}

/// Copies rows. A row that finds no room in a smaller table is reported, not fatal: the caller writes its rows again.
fn carry(spec: &MapSpec, from: &RawMap, to: &RawMap, convert: Conversion, mode: Put) -> io::Result<usize> {
    match spec.kind {
        MapKind::RingBuf => return Ok(0),
        MapKind::PerCpuArray => {
            let cpus = aya::util::nr_cpus().map_err(|(_, source)| source)?;
            from.copy_per_cpu(to, cpus)?;
            return Ok(from.facts().entries.min(to.facts().entries) as usize);
        }
        MapKind::Hash | MapKind::LruHash | MapKind::LpmTrie => {}
    }
    let found = from.rows()?;
    let mut rows: Vec<(&[u8], Vec<u8>)> =
        found.iter().filter_map(|(key, value)| Some((key, convert(value)?))).collect();
    if spec.name.starts_with("CONNTRACK") {
        // The tick of the last packet comes first in every layout: what is dropped for lack of room is the oldest.
        rows.sort_by_key(|(_, value)| value.first_chunk::<4>().map(|tick| u32::from_ne_bytes(*tick)));
    }
    let (mut carried, mut refused) = (0, 0);
    for (key, value) in rows {
        match to.put(key, &value, mode) {
            Ok(()) => carried += 1,
            Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) => refused += 1,
            Err(error) => return Err(error),
        }
    }
    if refused > 0 {
        warn!(map = spec.name, refused, "rows found no room in the new map");
    }
    Ok(carried)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
