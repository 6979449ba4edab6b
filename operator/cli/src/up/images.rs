//! Images: importing the local OCI archives into a node's containerd, once per content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lab::machine::look_into;
use crate::lab::plan::CONTAINERD;
use crate::lab::process::run;
use crate::lab::state::ProcessId;

/// The images of a cluster, by the name of their archive.
pub(crate) const IMAGES: [&str; 6] = ["pause", "agent", "proxy", "operator", "demo-web", "demo-client"];
const PATIENCE: Duration = Duration::from_secs(60);

/// An archive and the digest of what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    /// Its name in [`IMAGES`].
    pub(crate) name: &'static str,
    /// The digest that containerd lists for it.
    pub(crate) digest: String,
    path: std::path::PathBuf,
}

impl Archive {
    /// The reference that pods name.
    pub(crate) fn reference(&self) -> String {
        format!("skep.local/{}:dev", self.name)
    }
}

/// The archives of a folder.
pub(crate) fn archives(folder: &Path) -> Result<Vec<Archive>> {
    let archive = |name: &'static str| {
        let path = folder.join(format!("{name}.tar"));
        let digest = digest(&path).with_context(|| format!("{} is not an image archive", path.display()))?;
        Ok(Archive { name, digest, path })
    };
    IMAGES.into_iter().map(archive).collect()
}

/// The manifest's digest, from `index.json`: a small file near the front of the archive.
fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let mut header = [0u8; 512];
    loop {
        file.read_exact(&mut header)?;
        let name = String::from_utf8_lossy(&header[..100]).trim_end_matches('\0').to_owned();
        let text = String::from_utf8_lossy(&header[124..135]).trim_matches(['\0', ' ']).to_owned();
        let size = u64::from_str_radix(&text, 8).context("not a tar archive")?;
        if name == "index.json" {
            let mut bytes = vec![0; usize::try_from(size)?];
            file.read_exact(&mut bytes)?;
            let index: serde_json::Value = serde_json::from_slice(&bytes)?;
            let digest = index["manifests"][0]["digest"].as_str().context("index.json names no manifest")?;
            return Ok(digest.to_owned());
        }
        std::io::Seek::seek_relative(&mut file, i64::try_from(size.div_ceil(512) * 512)?)?;
    }
}

/// Imports what the node does not have yet; returns how many that were.
pub(crate) fn import(init: ProcessId, archives: &[Archive]) -> Result<usize> {
    let socket = look_into(init, CONTAINERD);
    let socket = socket.to_str().context("a path that is not text")?;
    wait_for_containerd(socket)?;
    let present = listed(&run("ctr", &["-a", socket, "-n", "k8s.io", "images", "list"])?);
    let mut imported = 0;
    for archive in archives {
        if present.get(&archive.reference()) == Some(&archive.digest) {
            continue;
        }
        let path = archive.path.to_str().context("a path that is not text")?;
        run("ctr", &["-a", socket, "-n", "k8s.io", "images", "import", path])?;
        imported += 1;
    }
    Ok(imported)
}

fn wait_for_containerd(socket: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer =
            Command::new("ctr").args(["-a", socket, "--connect-timeout", "2s", "version"]).output()?;
        if answer.status.success() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("containerd does not answer: {}", String::from_utf8_lossy(&answer.stderr).trim());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reference to digest, from the columns of `ctr images list`.
fn listed(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let reference = words.next()?;
            Some((reference.to_owned(), words.find(|word| word.starts_with("sha256:"))?.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_references_and_digests() {
        let text = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
                    skep.local/pause:dev application/vnd.oci.image.manifest.v1+json sha256:ab 3.1 MiB linux/amd64 -\n";
        assert_eq!(listed(text).get("skep.local/pause:dev").map(String::as_str), Some("sha256:ab"));
    }
}
