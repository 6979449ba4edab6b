//! Embeds the compiled eBPF objects when they exist: from `SKEP_BPF_DIR`, else from `target/bpf`.
//!
//! A machine without the eBPF toolchain builds an empty set; opening the data path then says what to run.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

const OBJECTS: [&str; 7] = ["sock", "pod", "overlay", "host", "uplink", "xdp", "limits"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-env-changed=SKEP_BPF_DIR");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let folder = env::var_os("SKEP_BPF_DIR").map_or_else(|| manifest.join("../../target/bpf"), PathBuf::from);
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut source = String::from("pub(super) static EMBEDDED: &[(&str, &[u8])] = &[\n");
    for name in OBJECTS {
        if let Some(copy) = embed(&folder, &out, name)? {
            let line = format!("({name:?}, aya::include_bytes_aligned!({copy:?})),\n");
            source.push_str(&line);
        }
    }
    source.push_str("];\n");
    fs::write(out.join("embedded.rs"), source)
}

/// Copies an object beside the generated source, so that a build never sees a half-written one.
fn embed(folder: &Path, out: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let object = folder.join(format!("{name}.o"));
    println!("cargo:rerun-if-changed={}", object.display());
    if !object.exists() {
        return Ok(None);
    }
    let copy = out.join(format!("{name}.o"));
    fs::copy(&object, &copy)?;
    Ok(Some(copy))
}
