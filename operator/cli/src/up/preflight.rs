//! What has to be there before anything is made: root, programs, binaries, images, a free port.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::images::IMAGES;
use crate::lab::address::Families;
use crate::lab::plan::{Plan, Store};
use crate::lab::{cgroup, network};

/// Binaries that the nodes run.
pub(crate) const BINARIES: [&str; 3] = ["skep", "skep-controlplane", "skep-kubelet"];
const PROGRAMS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("containerd", "containerd"), ("ctr", "containerd"), ("runc", "runc")];
const SEARCH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Refuses without root, and says what it is needed for.
pub(crate) fn need_root(verb: &str, reason: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("`skep {verb}` needs root: {reason}. Try again with sudo")
}

/// Refuses when a program is missing, and says which package brings it.
pub(crate) fn need_programs(store: Store) -> Result<()> {
    let etcd = (store == Store::Etcd).then_some(("etcd", "etcd-server"));
    let missing: Vec<(&str, &str)> =
        PROGRAMS.into_iter().chain(etcd).filter(|(program, _)| find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    bail!("not installed: {}. On Debian: apt-get install {}", names.join(", "), packages.join(" "))
}

/// Refuses IPv6 where the kernel has none.
pub(crate) fn need_families(families: Families) -> Result<()> {
    if families.has_v6() && !Path::new("/proc/sys/net/ipv6").exists() {
        bail!("this kernel has no IPv6 (ipv6.disable=1?): boot it with IPv6, or leave --ip-family out");
    }
    Ok(())
}

/// Where a program is, among the folders that nodes see.
fn find(program: &str) -> Option<PathBuf> {
    SEARCH.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

/// Refuses when a binary or an image is missing, and says what builds it.
pub(crate) fn need_files(bin_dir: &Path, images_dir: &Path) -> Result<()> {
    let binaries = BINARIES.iter().map(|name| bin_dir.join(name));
    let images = IMAGES.iter().map(|name| images_dir.join(format!("{name}.tar")));
    for path in binaries.chain(images) {
        if !path.exists() {
            bail!("{} is missing: `cargo xtask up` builds everything that is needed", path.display());
        }
    }
    Ok(())
}

/// Refuses when something else listens on the API server's port.
pub(crate) fn need_port(port: u16) -> Result<()> {
    if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        bail!("127.0.0.1:{port} is not free ({error}): end what listens there, or choose another --api-port");
    }
    Ok(())
}

/// Refuses a folder with something else in it, which `down` would take along, and names on this machine that belong
/// to a cluster in another folder.
pub(crate) fn need_nobody_elses(plan: &Plan) -> Result<()> {
    if std::fs::read_dir(&plan.dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty and holds no cluster: use another --dir", plan.dir.display());
    }
    let prefix = format!("{}-", plan.prefix);
    let names = network::names(&prefix).into_iter().chain(cgroup::names(&prefix));
    if let Some(name) = names.into_iter().next() {
        bail!(
            "{name} exists, but its cluster is not in {}: give that cluster's --dir, another --prefix, or remove it \
             with `skep down --prefix {}`",
            plan.dir.display(),
            plan.prefix
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_named_with_the_way_out() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = need_port(port).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--api-port"), "{error}");
    }

    #[test]
    fn a_missing_binary_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = need_files(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("skep is missing"), "{error}");
    }
}
