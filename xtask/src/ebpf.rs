//! `ebpf`: compiles the programs for `bpfel-unknown-none` and puts the objects into `target/bpf`,
//! where the agent's build takes them from.
//!
//! That target needs the sources of core and unstable options, so the compiler is either a complete
//! rustup nightly (with rust-src) or Debian's `rustc-web` with its sources; and a `bpf-linker` built
//! against that compiler's LLVM.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, show, target};
use crate::{say, tools};

const OBJECTS: [&str; 7] = ["sock", "pod", "overlay", "host", "uplink", "xdp", "limits"];
const LINKER_VERSION: &str = "0.13.0";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can build core for the target.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Compiler {
    /// rustup's nightly with rust-src.
    Nightly,
    /// Debian's rustc-web, cargo-web and rust-web-src.
    Debian,
}

/// Compiles what changed.
pub(crate) fn build() -> Result<()> {
    let (compiler, llvm) = pick()?;
    let linker = linker(llvm)?;
    say::step(&format!("eBPF programs ({})", compiler.name()), || {
        compile(&compiler, &linker)?;
        fs::create_dir_all(target().join("bpf"))?;
        OBJECTS.iter().try_for_each(|name| publish(name, llvm))
    })
}

fn pick() -> Result<(Compiler, u32)> {
    if nightly_is_complete() {
        let llvm = llvm_major(&output(&mut command("rustup", &["run", "nightly", "rustc", "-vV"]))?)?;
        if install_llvm(llvm).is_ok() {
            return Ok((Compiler::Nightly, llvm));
        }
        say::line(&format!("   the nightly's LLVM {llvm} has no Debian package: using Debian's compiler"));
    }
    if !debian_is_complete() {
        say::line(
            "   no nightly with rust-src (`rustup component add rust-src --toolchain nightly`): using Debian's compiler",
        );
        tools::install(&["rustc-web", "cargo-web", "rust-web-src"])?;
    }
    let llvm = llvm_major(&output(&mut command(DEBIAN_RUSTC, &["-vV"]))?)?;
    install_llvm(llvm)?;
    Ok((Compiler::Debian, llvm))
}

fn nightly_is_complete() -> bool {
    let found = output(&mut command("rustup", &["run", "nightly", "rustc", "--print", "sysroot"]));
    found.is_ok_and(|sysroot| has_core_sources(sysroot.trim()))
}

fn debian_is_complete() -> bool {
    let found = output(&mut command(DEBIAN_RUSTC, &["--print", "sysroot"]));
    found.is_ok_and(|sysroot| has_core_sources(sysroot.trim())) && tools::find("/usr/bin/cargo").is_some()
}

fn has_core_sources(sysroot: &str) -> bool {
    PathBuf::from(sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

fn llvm_major(version: &str) -> Result<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = line.and_then(|line| line.split('.').next()?.parse().ok());
    major.with_context(|| format!("the compiler does not say its LLVM version: {version}"))
}

fn install_llvm(major: u32) -> Result<()> {
    let names = [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")];
    let there = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-config"));
    let polly = PathBuf::from(format!("/usr/lib/llvm-{major}/lib/libPolly.a"));
    if there.exists() && polly.exists() {
        return Ok(());
    }
    tools::install(&[&names[0], &names[1], "zlib1g-dev", "libzstd-dev", "libxml2-dev"])
}

/// The linker for this LLVM, built on first use.
fn linker(llvm: u32) -> Result<PathBuf> {
    let folder = target().join(format!("tools/llvm-{llvm}"));
    let linker = folder.join("bin/bpf-linker");
    if linker.exists() {
        return Ok(linker);
    }
    say::step(&format!("building bpf-linker {LINKER_VERSION} for LLVM {llvm}"), || {
        let feature = format!("llvm-{llvm}");
        let mut install =
            command("cargo", &["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"]);
        install.args(["--no-default-features", "--features", &feature, "--root"]).arg(&folder);
        output(install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))).map(drop)
    })?;
    Ok(linker)
}

impl Compiler {
    fn name(&self) -> &'static str {
        match self {
            Self::Nightly => "rustup nightly",
            Self::Debian => "Debian's compiler",
        }
    }

    fn cargo(&self) -> Command {
        match self {
            Self::Nightly => command("rustup", &["run", "nightly", "cargo"]),
            Self::Debian => {
                let mut cargo = command("/usr/bin/cargo", &[] as &[&str]);
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }
}

fn compile(compiler: &Compiler, linker: &PathBuf) -> Result<()> {
    let arch = match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64") => arch,
        other => bail!("the programs are not prepared for {other}"),
    };
    let flags = [
        "-Ctarget-cpu=v3",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "--cfg",
        &format!("bpf_target_arch=\"{arch}\""),
    ];
    let mut cargo = compiler.cargo();
    cargo
        .args(["build", "--locked", "--quiet", "-Zbuild-std=core", "--target", "bpfel-unknown-none"])
        .args(["--profile", "bpf", "--package", "skep-ebpf-programs", "--bins", "--target-dir"])
        .arg(target().join("ebpf"))
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("CARGO_TARGET_DIR")
        // Incremental compilation splits a program into units, and the verifier refuses what comes of it.
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    show(&mut cargo)
}

/// Debug information would triple the agent; BTF stays. An unchanged object keeps its time, so that
/// nothing that embeds it is built again.
fn publish(name: &str, llvm: u32) -> Result<()> {
    let built = target().join("ebpf/bpfel-unknown-none/bpf").join(name);
    let folder = target().join("bpf");
    let (fresh, object) = (folder.join(format!("{name}.new")), folder.join(format!("{name}.o")));
    let strip = format!("/usr/lib/llvm-{llvm}/bin/llvm-strip");
    output(command(strip, &["--strip-debug", "-o"]).arg(&fresh).arg(&built))?;
    if fs::read(&object).is_ok_and(|old| fs::read(&fresh).is_ok_and(|new| new == old)) {
        return Ok(fs::remove_file(&fresh)?);
    }
    Ok(fs::rename(&fresh, &object)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_llvm_version() {
        assert_eq!(llvm_major("rustc 1.96.0\nhost: x\nLLVM version: 22.1.8\n").unwrap(), 22);
        assert!(llvm_major("rustc 1.96.0").is_err());
    }
}
