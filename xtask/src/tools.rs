//! Programs that the verbs need, and the Debian packages that bring them.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::say;
use crate::shell::{command, output};

/// A program and its package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// A program, or an absolute path of a file.
    pub(crate) program: &'static str,
    /// The Debian package.
    pub(crate) package: &'static str,
    /// What it is needed for.
    pub(crate) purpose: &'static str,
}

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { program, package, purpose }
}

/// To build the workspace.
pub(crate) const BUILD: [Tool; 3] = [
    tool("cc", "build-essential", "linking, and the C parts of the TLS library"),
    tool("protoc", "protobuf-compiler", "the etcd client's messages"),
    tool("/usr/include/google/protobuf/descriptor.proto", "libprotobuf-dev", "what those messages import"),
];
/// To make network namespaces.
pub(crate) const NETWORK: [Tool; 2] =
    [tool("ip", "iproute2", "network namespaces"), tool("sysctl", "procps", "network namespaces")];
/// To load the rule sets that load balancing is compared with.
pub(crate) const RULES: [Tool; 2] = [
    tool("nft", "nftables", "kube-proxy's rules"),
    tool("iptables-restore", "iptables", "kube-proxy's rules"),
];
/// To build images.
pub(crate) const IMAGES: [Tool; 2] =
    [tool("busybox", "busybox-static", "the demo's images"), tool("strip", "binutils", "small images")];
/// To run a cluster on this machine.
pub(crate) const CLUSTER: [Tool; 4] = [
    tool("ip", "iproute2", "the nodes' network"),
    tool("containerd", "containerd", "running containers"),
    tool("runc", "runc", "running containers"),
    tool("kubectl", "kubernetes-client", "driving the cluster"),
];
/// For the etcd store.
pub(crate) const ETCD: Tool = tool("etcd", "etcd-server", "the etcd store");

/// Whether root is there.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Refuses without root and says why it is needed.
pub(crate) fn need_root(verb: &str, reason: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!("`cargo xtask {verb}` needs root: {reason}. Try: sudo -E env PATH=\"$PATH\" cargo xtask {verb}")
}

/// Installs what is missing.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<Tool> = tools.iter().copied().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        say::line(&format!(
            "   {} is missing (for {}): package {}",
            tool.program, tool.purpose, tool.package
        ));
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    install(&packages)
}

/// Installs Debian packages.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        bail!("not a Debian machine: install the equivalents of {list} yourself, then repeat");
    }
    if !is_root() {
        bail!("installing packages needs root. Run: sudo apt-get install --no-install-recommends {list}");
    }
    say::step(&format!("apt-get install {list}"), || {
        let mut update = command("apt-get", &["update", "-q"]);
        output(&mut update)?;
        let mut install = command("apt-get", &["install", "-q", "-y", "--no-install-recommends"]);
        install.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
        output(&mut install).map(drop)
    })
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_program_on_the_path_and_no_other() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-at-all").is_none());
        assert!(find("/no/such/file").is_none());
    }
}
