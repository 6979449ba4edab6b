//! A machine's file system: this machine's tools with their libraries, the test binaries, the kernel's modules and a plan.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::binaries::Binaries;
use super::debian::Unpacked;
use crate::shell::{command, output};
use crate::tools;

/// Tools of this machine that the tests call; those of busybox come behind them.
const TOOLS: [&str; 6] = ["ip", "tc", "bridge", "nsenter", "sysctl", "mount"];
/// Tools that are taken along where this machine has them.
const IF_THERE: [&str; 4] = ["nft", "ss", "ethtool", "conntrack"];
/// Seconds for one suite.
const SUITE_LIMIT: u32 = 600;

/// What all machines share.
pub(crate) fn base(binaries: &Binaries) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "run", "tmp", "var", "etc"] {
        archive.folder(folder);
    }
    archive.link("var/run", "/run");
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
    program(&mut archive, Path::new("/init"), &binaries.init)?;
    tool(&mut archive, "dash", "/bin/sh")?;
    for name in TOOLS {
        tool(&mut archive, name, &format!("/usr/bin/{name}"))?;
    }
    for name in IF_THERE.iter().filter(|name| tools::find(name).is_some()) {
        tool(&mut archive, name, &format!("/usr/bin/{name}"))?;
    }
    busybox(&mut archive)?;
    let tests = binaries.suites.iter().map(|(_, path)| path);
    for path in tests.chain(&binaries.helpers).chain([&binaries.probe]) {
        program(&mut archive, path, path)?;
    }
    Ok(archive.finish())
}

/// Writes the archives of one machine, one behind the other.
pub(crate) fn write(path: &Path, base: &[u8], kernel: &Unpacked, binaries: &Binaries) -> Result<()> {
    let mut archive = Archive::default();
    let mut plan = String::new();
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let target = format!("/lib/modules/{name}");
        archive.file(&target, 0o644, &fs::read(module)?);
        writeln!(plan, "module {target}")?;
    }
    writeln!(plan, "suite probe {SUITE_LIMIT} {}", binaries.probe.display())?;
    for (name, suite) in &binaries.suites {
        writeln!(plan, "suite {name} {SUITE_LIMIT} {} --test-threads=1", suite.display())?;
    }
    archive.file("skep.plan", 0o644, plan.as_bytes());
    let own = archive.finish();
    fs::write(path, [base, &own].concat()).with_context(|| format!("cannot write {}", path.display()))
}

fn tool(archive: &mut Archive, name: &str, target: &str) -> Result<()> {
    let found = tools::find(name).with_context(|| format!("{name} is not on this machine"))?;
    program(archive, Path::new(target), &found)
}

/// A program and the libraries that it is linked with.
fn program(archive: &mut Archive, target: &Path, source: &Path) -> Result<()> {
    let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    archive.file(&target.to_string_lossy(), 0o755, &bytes);
    // It fails for a static program, which needs nothing.
    let listed = output(command("ldd", &[] as &[&str]).arg(source)).unwrap_or_default();
    for library in libraries(&listed).into_iter().filter(|path| path.starts_with('/')) {
        if !archive.has(&library) {
            let mode = fs::metadata(&library)?.permissions().mode() & 0o777;
            archive.file(&library, mode, &fs::read(&library)?);
        }
    }
    Ok(())
}

/// Paths in the output of ldd.
fn libraries(listed: &str) -> Vec<String> {
    let path = |line: &str| {
        let place = line.split_once("=> ").map_or(line, |(_, place)| place);
        place.trim().split(" (0x").next().map(str::to_owned)
    };
    listed.lines().filter_map(path).filter(|path| path.starts_with('/')).collect()
}

fn busybox(archive: &mut Archive) -> Result<()> {
    let found = tools::find("busybox").context("busybox is not on this machine")?;
    program(archive, Path::new("/bin/busybox"), &found)?;
    for applet in output(&mut command(&found, &["--list"]))?.lines() {
        archive.link(&format!("/busybox/{applet}"), "/bin/busybox");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_libraries_and_the_loader() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(listed), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
