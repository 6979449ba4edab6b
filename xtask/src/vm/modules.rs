//! Takes the modules that the tests need out of a kernel's tree, with those that they need in turn.
//!
//! The packages carry no `modules.dep`: what a module needs is read from its `.modinfo`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::{command, output};

/// Modules that are loaded before the tests where the kernel has them (it may have them built in, or not at all).
pub(crate) const WANTED: [&str; 44] = [
    "crc32c_generic",
    "crc32c_cryptoapi",
    "veth",
    "vxlan",
    "dummy",
    "bridge",
    "tun",
    "8021q",
    "bonding",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "sch_fq",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "sctp",
    "sctp_diag",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_nat",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_chain_nat",
    "nft_numgen",
    "nft_hash",
    "nft_reject_inet",
    "nft_compat",
    "ip_tables",
    "ip6_tables",
    "iptable_nat",
    "iptable_filter",
    "xt_nat",
    "xt_conntrack",
    "xt_comment",
    "xt_mark",
    "xt_statistic",
    "xt_addrtype",
    "xt_tcpudp",
    "xt_MASQUERADE",
    "nft_limit",
];

/// Copies them, decompressed, to `folder`; each comes after those that it needs.
pub(crate) fn take(tree: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut known = BTreeMap::new();
    index(&tree.join("kernel"), &mut known)?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let mut taken = Vec::new();
    for name in WANTED {
        take_one(&name.replace('-', "_"), &known, folder, &mut taken)?;
    }
    Ok(taken)
}

fn take_one(
    name: &str,
    known: &BTreeMap<String, PathBuf>,
    folder: &Path,
    taken: &mut Vec<PathBuf>,
) -> Result<()> {
    let target = folder.join(format!("{name}.ko"));
    let Some(source) = known.get(name).filter(|_| !taken.contains(&target)) else { return Ok(()) };
    let bytes = read(source)?;
    for needed in needs(&bytes) {
        take_one(&needed, known, folder, taken)?;
    }
    fs::write(&target, bytes)?;
    taken.push(target);
    Ok(())
}

fn index(folder: &Path, known: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            index(&path, known)?;
        } else if let Some((name, _)) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once(".ko"))
        {
            known.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|end| end != "xz") {
        return Ok(fs::read(path)?);
    }
    let plain = path.with_extension("");
    output(command("xz", &["--decompress", "--keep", "--force"]).arg(path))?;
    Ok(fs::read(plain)?)
}

/// The `depends=` of a module's `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    let start = b"\0depends=";
    let Some(at) = module.windows(start.len()).position(|window| window == start) else { return Vec::new() };
    let list = module[at + start.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_module_needs() {
        assert_eq!(
            needs(b"x\0license=GPL\0depends=udp_tunnel,ip6-udp-tunnel\0name=v\0"),
            ["udp_tunnel", "ip6_udp_tunnel"]
        );
        assert!(needs(b"\0depends=\0").is_empty());
        assert!(needs(b"").is_empty());
    }

    #[test]
    fn a_module_comes_after_what_it_needs_and_once() {
        let tree = tempfile::tempdir().unwrap();
        let kernel = tree.path().join("kernel/net");
        fs::create_dir_all(&kernel).unwrap();
        for (name, needs) in [("vxlan", "udp_tunnel"), ("udp_tunnel", ""), ("sctp", "udp_tunnel")] {
            fs::write(kernel.join(format!("{name}.ko")), format!("\0depends={needs}\0")).unwrap();
        }
        let taken = take(tree.path(), &tree.path().join("out")).unwrap();
        let names: Vec<String> =
            taken.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["udp_tunnel", "vxlan", "sctp"]);
    }
}
