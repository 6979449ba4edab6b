//! Empties pinned maps, so that one data path serves many tests: loading the programs costs the verifier much more than all that
//! a test does, above all on an emulated machine.

use std::{
    ffi::{CString, c_long},
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

const MAP_LOOKUP: c_long = 1;
const MAP_UPDATE: c_long = 2;
const MAP_DELETE: c_long = 3;
const MAP_NEXT_KEY: c_long = 4;
const OBJECT_GET: c_long = 7;
const OBJECT_INFO: c_long = 15;
const KIND_ARRAY: u32 = 2;
const KIND_PER_CPU_ARRAY: u32 = 6;
const KIND_RING: u32 = 27;

/// The part of `union bpf_attr` that concerns elements of maps.
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that concerns pins.
#[repr(C)]
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that asks what an object is.
#[repr(C)]
struct Ask {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// The beginning of the kernel's `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

/// Makes every map that is pinned in a folder as it was when it was new.
///
/// # Errors
/// When the kernel refuses.
pub fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let map = open(&entry?.path())?;
        let info = info(&map)?;
        match info.kind {
            KIND_RING => {}
            KIND_ARRAY | KIND_PER_CPU_ARRAY => clear(&map, &info)?,
            _ => delete_all(&map, &info)?,
        }
    }
    Ok(())
}

fn call<T>(command: c_long, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the attributes are those of the command, and all they point to lives until it returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let descriptor = call(OBJECT_GET, &mut Pin { path: path.as_ptr() as u64, descriptor: 0, flags: 0 })?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

fn info(map: &OwnedFd) -> io::Result<Info> {
    let mut info = Info::default();
    let length = size_of::<Info>() as u32;
    let mut ask =
        Ask { descriptor: map.as_raw_fd() as u32, length, info: std::ptr::from_mut(&mut info) as u64 };
    call(OBJECT_INFO, &mut ask)?;
    Ok(info)
}

fn element(map: &OwnedFd, key: u64, value: u64) -> Element {
    Element { map: map.as_raw_fd() as u32, pad: 0, key, value, flags: 0 }
}

/// Writes zeros over the elements that are not.
fn clear(map: &OwnedFd, info: &Info) -> io::Result<()> {
    let cpus = if info.kind == KIND_PER_CPU_ARRAY { possible_cpus()? } else { 1 };
    let length = info.value_size.next_multiple_of(8) as usize * cpus;
    let zeros = vec![0u8; length];
    let mut value = vec![0u8; length];
    for index in 0..info.entries {
        let key = std::ptr::from_ref(&index) as u64;
        call(MAP_LOOKUP, &mut element(map, key, value.as_mut_ptr() as u64))?;
        if value != zeros {
            call(MAP_UPDATE, &mut element(map, key, zeros.as_ptr() as u64))?;
        }
    }
    Ok(())
}

fn possible_cpus() -> io::Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::Error::other("the kernel does not say its number of CPUs"))
}

fn delete_all(map: &OwnedFd, info: &Info) -> io::Result<()> {
    let mut key = vec![0u8; info.key_size as usize];
    // The key before the first is none.
    while call(MAP_NEXT_KEY, &mut element(map, 0, key.as_mut_ptr() as u64)).is_ok() {
        call(MAP_DELETE, &mut element(map, key.as_ptr() as u64, 0))?;
    }
    Ok(())
}
