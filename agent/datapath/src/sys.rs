//! The few bpf(2) commands that maps and links need, on raw plain data.
//!
//! aya loads objects and attaches programs; its typed maps want `&mut self` and a foreign marker trait on every key, and
//! it cannot update cgroup links, so these go straight to the kernel. Reference: `include/uapi/linux/bpf.h`.

use std::{
    ffi::CString,
    io,
    mem::{MaybeUninit, size_of},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use skep_abi::Plain;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const LINK_UPDATE: libc::c_long = 29;

#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The part of `struct bpf_map_info` that is compared.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapFacts {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key: u32,
    pub(crate) value: u32,
    pub(crate) entries: u32,
    pub(crate) flags: u32,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: every caller passes the attribute struct of its command; pointers inside outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn fd_number(fd: &impl AsFd) -> u32 {
    u32::try_from(fd.as_fd().as_raw_fd()).unwrap_or(u32::MAX)
}

fn own(raw: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(raw).map_err(|_out_of_range| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Lifts the limit of locked memory, under which kernels before 5.11 count maps. Failing is fine: they say so themselves.
pub(crate) fn lift_memory_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// Creates a map.
pub(crate) fn create_map(name: &str, facts: MapFacts) -> io::Result<OwnedFd> {
    let mut attr = CreateAttr {
        map_type: facts.kind,
        key_size: facts.key,
        value_size: facts.value,
        max_entries: facts.entries,
        map_flags: facts.flags,
        ..CreateAttr::default()
    };
    for (slot, byte) in attr.map_name[..15].iter_mut().zip(name.bytes()) {
        *slot = byte;
    }
    own(bpf(MAP_CREATE, &mut attr)?)
}

/// Pins a map, program or link.
pub(crate) fn pin(fd: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(OBJ_PIN, &mut ObjAttr { path: path.as_ptr() as u64, fd: fd_number(fd), flags: 0 }).map(drop)
}

/// Opens what is pinned at a path.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    own(bpf(OBJ_GET, &mut ObjAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 })?)
}

/// What the kernel says a map is.
pub(crate) fn map_facts(fd: &impl AsFd) -> io::Result<MapFacts> {
    let mut facts = MapFacts::default();
    let len = size_of::<MapFacts>() as u32;
    let info = std::ptr::from_mut(&mut facts) as u64;
    bpf(OBJ_GET_INFO_BY_FD, &mut InfoAttr { fd: fd_number(fd), len, info })?;
    Ok(facts)
}

/// Puts another program behind a link, atomically.
pub(crate) fn update_link(link: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: fd_number(link),
        new_prog_fd: fd_number(program),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

/// A map by descriptor, with keys and values of fixed sizes that are checked against the kernel's once.
#[derive(Debug)]
pub(crate) struct RawMap {
    fd: OwnedFd,
    facts: MapFacts,
}

impl RawMap {
    /// Wraps a map's descriptor.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let facts = map_facts(&fd)?;
        Ok(Self { fd, facts })
    }

    /// What the kernel says it is.
    pub(crate) fn facts(&self) -> MapFacts {
        self.facts
    }

    fn check<K, V>(&self) -> io::Result<()> {
        if self.facts.key as usize == size_of::<K>() && self.facts.value as usize == size_of::<V>() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "key or value size differs from the map's"))
    }

    fn elem(&self, key: u64, value: u64, flags: u64) -> ElemAttr {
        ElemAttr { map_fd: fd_number(&self.fd), pad: 0, key, value, flags }
    }

    /// Stores a value.
    pub(crate) fn update<K: Plain, V: Plain>(&self, key: &K, value: &V) -> io::Result<()> {
        self.check::<K, V>()?;
        let mut attr = self.elem(std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64, 0);
        bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
    }

    /// Stores a row of bytes.
    pub(crate) fn put(&self, key: &[u8], value: &[u8], mode: Put) -> io::Result<()> {
        if key.len() != self.facts.key as usize || value.len() != self.facts.value as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "row size differs from the map's"));
        }
        let mut attr = self.elem(key.as_ptr() as u64, value.as_ptr() as u64, mode as u64);
        match bpf(MAP_UPDATE_ELEM, &mut attr) {
            Err(error) if mode == Put::IfAbsent && error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map(drop),
        }
    }

    /// Copies the slots of an array with a slot a CPU, as far as both have them.
    pub(crate) fn copy_per_cpu(&self, to: &Self, cpus: usize) -> io::Result<()> {
        let stride = (self.facts.value as usize).next_multiple_of(8);
        let mut bytes = vec![0u8; stride * cpus];
        for index in 0..self.facts.entries.min(to.facts.entries) {
            let (key, value) = (std::ptr::from_ref(&index) as u64, bytes.as_mut_ptr() as u64);
            bpf(MAP_LOOKUP_ELEM, &mut self.elem(key, value, 0))?;
            bpf(MAP_UPDATE_ELEM, &mut to.elem(key, value, 0))?;
        }
        Ok(())
    }

    /// Removes a key; an absent one is not an error.
    pub(crate) fn delete<K: Plain>(&self, key: &K) -> io::Result<()> {
        if self.facts.key as usize != size_of::<K>() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "key size differs from the map's"));
        }
        match bpf(MAP_DELETE_ELEM, &mut self.elem(std::ptr::from_ref(key) as u64, 0, 0)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// Reads a value.
    pub(crate) fn get<K: Plain, V: Plain>(&self, key: &K) -> io::Result<Option<V>> {
        self.check::<K, V>()?;
        let mut value = MaybeUninit::<V>::uninit();
        match bpf(
            MAP_LOOKUP_ELEM,
            &mut self.elem(std::ptr::from_ref(key) as u64, value.as_mut_ptr() as u64, 0),
        ) {
            // SAFETY: the kernel filled the value, whose size was checked; any bytes are valid.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads an array's value of every possible CPU.
    pub(crate) fn get_per_cpu<V: Plain>(&self, index: u32, cpus: usize) -> io::Result<Vec<V>> {
        self.check::<u32, V>()?;
        let stride = size_of::<V>().next_multiple_of(8);
        let mut bytes = vec![0u8; stride * cpus];
        let key = std::ptr::from_ref(&index) as u64;
        bpf(MAP_LOOKUP_ELEM, &mut self.elem(key, bytes.as_mut_ptr() as u64, 0))?;
        // SAFETY: each chunk holds at least size_of::<V>() bytes of plain data.
        Ok(bytes
            .chunks_exact(stride)
            .map(|chunk| unsafe { chunk.as_ptr().cast::<V>().read_unaligned() })
            .collect())
    }

    /// Every entry. Hash tables are read in batches, which neither restart nor loop when entries vanish meanwhile.
    pub(crate) fn entries<K: Plain, V: Plain>(&self) -> io::Result<Vec<(K, V)>> {
        self.check::<K, V>()?;
        let rows = self.rows()?;
        // SAFETY: each slice holds as many bytes of plain data as its type, whose sizes were checked.
        let typed = rows.iter().map(|(key, value)| unsafe {
            (key.as_ptr().cast::<K>().read_unaligned(), value.as_ptr().cast::<V>().read_unaligned())
        });
        Ok(typed.collect())
    }

    /// Every entry, as bytes.
    pub(crate) fn rows(&self) -> io::Result<Rows> {
        match self.batch_rows() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | 524)) => self.step_rows(),
            other => other,
        }
    }

    fn empty_rows(&self) -> Rows {
        let (key, value) = (self.facts.key as usize, self.facts.value as usize);
        Rows { key, value, keys: Vec::new(), values: Vec::new() }
    }

    fn step_rows(&self) -> io::Result<Rows> {
        let mut rows = self.empty_rows();
        let mut key: Option<Vec<u8>> = None;
        for _ in 0..=self.facts.entries {
            let mut next = vec![0u8; rows.key];
            let from = key.as_ref().map_or(0, |key| key.as_ptr() as u64);
            match bpf(MAP_GET_NEXT_KEY, &mut self.elem(from, next.as_mut_ptr() as u64, 0)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            };
            let mut value = vec![0u8; rows.value];
            match bpf(MAP_LOOKUP_ELEM, &mut self.elem(next.as_ptr() as u64, value.as_mut_ptr() as u64, 0)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => {
                    other?;
                    rows.keys.extend(&next);
                    rows.values.extend(value);
                }
            }
            key = Some(next);
        }
        Ok(rows)
    }

    fn batch_rows(&self) -> io::Result<Rows> {
        let mut room = 1024u32.min(self.facts.entries.max(1));
        let mut rows = self.empty_rows();
        let mut cursor: Option<[u8; 64]> = None;
        loop {
            let mut keys = vec![0u8; rows.key * room as usize];
            let mut values = vec![0u8; rows.value * room as usize];
            let mut next = [0u8; 64];
            let mut attr = BatchAttr {
                in_batch: cursor.as_ref().map_or(0, |bytes| bytes.as_ptr() as u64),
                out_batch: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: room,
                map_fd: fd_number(&self.fd),
                elem_flags: 0,
                flags: 0,
            };
            let ended = match bpf(MAP_LOOKUP_BATCH, &mut attr) {
                Ok(_) => false,
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    // A bucket is longer than the room: ask again with more.
                    room = room.saturating_mul(2);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = (attr.count as usize).min(room as usize);
            rows.keys.extend(&keys[..count * rows.key]);
            rows.values.extend(&values[..count * rows.value]);
            if ended {
                return Ok(rows);
            }
            cursor = Some(next);
        }
    }
}

/// What happens to an entry that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is replaced.
    Always = 0,
    /// It stays.
    IfAbsent = 1,
}

/// Entries of a map, as bytes.
#[derive(Debug)]
pub(crate) struct Rows {
    key: usize,
    value: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Rows {
    /// Keys with their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.chunks_exact(self.key).zip(self.values.chunks_exact(self.value))
    }
}

impl AsFd for RawMap {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
