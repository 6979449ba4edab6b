//! `skep-agent kube-proxy cleanup`: removes kube-proxy's rules, and nothing else.
//!
//! The agent's image has no iptables. `kubectl debug node/NODE --profile=sysadmin --image=AGENT-IMAGE -it --
//! /usr/bin/skep-agent kube-proxy cleanup --root /host` uses the node's.
//!
//! Rules of its iptables mode by the tools that wrote them, in both variants and families; tables of its nftables mode
//! as a whole. The kubelet's own chains stay: it would write them again.

mod rules;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use clap::Parser;
pub(crate) use rules::is_proxys;

/// The table of kube-proxy's nftables mode, in each family.
pub(crate) const NFT_TABLE: &str = "kube-proxy";
/// The variants of iptables, newer first, each with those of IPv6.
const VARIANTS: [&str; 4] = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"];
/// Where a machine has but one.
const PLAIN: [&str; 2] = ["iptables", "ip6tables"];

/// Where tools of administrators are.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What to do about kube-proxy.
#[derive(Clone, Debug, Parser)]
#[command(name = "skep-agent kube-proxy")]
pub(crate) enum KubeProxyTool {
    /// Says what is there of kube-proxy on this node, as far as the kernel shows it without tools.
    Status,
    /// Removes the rules that kube-proxy left on this node, in the calling network namespace.
    Cleanup {
        /// Only shows what would be removed.
        #[arg(long)]
        dry_run: bool,
        /// The folder that the node's own file system is mounted at: its iptables and nft are used.
        #[arg(long)]
        root: Option<PathBuf>,
    },
}

/// Does it; what is done is printed.
#[allow(clippy::print_stdout, reason = "the answer to a command")]
pub(crate) fn run(tool: KubeProxyTool) -> anyhow::Result<()> {
    let (dry_run, root) = match tool {
        KubeProxyTool::Cleanup { dry_run, root } => (dry_run, root),
        KubeProxyTool::Status => {
            println!("{}", serde_json::to_string(&super::look(false))?);
            return Ok(());
        }
    };
    if let Some(root) = &root {
        std::os::unix::fs::chroot(root).with_context(|| format!("enter {}", root.display()))?;
        std::env::set_current_dir("/")?;
    }
    let mut found_tool = false;
    let mut steps = 0;
    for variant in installed(&VARIANTS, &PLAIN) {
        found_tool = true;
        let saved = output(&format!("{variant}-save"), &[])?;
        let Some(restore) = rules::removal(&saved) else { continue };
        steps += 1;
        println!("# {variant}-restore --noflush\n{restore}");
        if !dry_run {
            feed(&format!("{variant}-restore"), &["--noflush"], &restore)?;
        }
    }
    if is_installed("nft") {
        found_tool = true;
        for family in rules::families_with_table(&output("nft", &["list", "tables"])?, NFT_TABLE) {
            steps += 1;
            println!("nft delete table {family} {NFT_TABLE}");
            if !dry_run {
                output("nft", &["delete", "table", &family, NFT_TABLE])?;
            }
        }
    }
    if !found_tool {
        bail!(
            "neither iptables nor nft is installed here: with `--root FOLDER` those of the node are used, as in `kubectl debug node/NODE --profile=sysadmin --image=AGENT-IMAGE -it -- /usr/bin/skep-agent kube-proxy cleanup --root /host`"
        );
    }
    match (steps, dry_run) {
        (0, _) => println!("kube-proxy has left nothing here"),
        (_, true) => println!("nothing was removed: this was a dry run"),
        (_, false) => println!("removed"),
    }
    Ok(())
}

/// The variants that are installed; where none is, the plain names.
fn installed(variants: &[&'static str], plain: &[&'static str]) -> Vec<&'static str> {
    let has = |name: &&'static str| is_installed(&format!("{name}-save"));
    let found: Vec<&'static str> = variants.iter().copied().filter(has).collect();
    if found.is_empty() { plain.iter().copied().filter(has).collect() } else { found }
}

fn is_installed(program: &str) -> bool {
    FOLDERS.iter().any(|folder| Path::new(folder).join(program).is_file())
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    // A container's PATH need not name the folders of administrators.
    command.env("PATH", FOLDERS.join(":"));
    command
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let done = command(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    if !done.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn feed(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let mut child = command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    child.stdin.take().context("no way to talk to it")?.write_all(input.as_bytes())?;
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
