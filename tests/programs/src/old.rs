//! Maps as an older agent left them pinned.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::FromRawFd, unix::ffi::OsStrExt},
    path::Path,
};

use anyhow::Context;

/// Kinds of map, as the kernel numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash = 9,
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    LpmTrie = 11,
}

/// A row as bytes.
pub type Row = (Vec<u8>, Vec<u8>);

/// Pins a map with these rows below the `maps` folder of a pin root, in the place of one that may be there.
///
/// # Errors
/// Without root, or when the kernel refuses.
pub fn pin(root: &Path, name: &str, kind: Kind, sizes: (u32, u32), rows: &[Row]) -> anyhow::Result<()> {
    let folder = root.join("maps");
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    let _absent = fs::remove_file(&path);
    let no_prealloc = u32::from(kind != Kind::LruHash);
    let create = [kind as u32, sizes.0, sizes.1, 1024, no_prealloc];
    let map = bpf(0, &bytes_of(&create)).context("creating the old map")?;
    // SAFETY: the kernel has just given us this descriptor.
    let _owner = unsafe { std::os::fd::OwnedFd::from_raw_fd(i32::try_from(map)?) };
    for (key, value) in rows {
        let update = [map as u64, key.as_ptr() as u64, value.as_ptr() as u64, 0];
        bpf(2, &bytes_of(&update)).context("filling the old map")?;
    }
    let text = CString::new(path.as_os_str().as_bytes())?;
    let pin = [text.as_ptr() as u64, map as u64];
    bpf(6, &bytes_of(&pin)).context("pinning the old map")?;
    Ok(())
}

fn bytes_of<T: Copy>(words: &[T]) -> Vec<u8> {
    // SAFETY: integers without padding.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }.to_vec()
}

fn bpf(command: libc::c_long, attributes: &[u8]) -> io::Result<libc::c_long> {
    // SAFETY: the attributes live during the call, and so does what they point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
