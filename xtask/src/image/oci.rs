//! The OCI image layout in one tar archive, as `ctr images import` takes it (OCI image spec 1.0).

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::layer::{self, Entry};
use super::recipe::Recipe;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { digest, bytes }
    }

    fn json(value: &Value) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len()})
    }
}

/// Writes the archive; a reader sees the old one or the new one.
pub(crate) fn write(path: &Path, recipe: &Recipe, entries: &[Entry]) -> Result<()> {
    let layer = Blob::new(layer::archive(entries)?);
    let config = Blob::json(&config(recipe, &layer))?;
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(CONFIG),
        "layers": [layer.descriptor(LAYER)],
    }))?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": recipe.tags.iter().map(|tag| named(&manifest, recipe.name, tag)).collect::<Vec<_>>(),
    });
    let fresh = path.with_extension("new");
    let mut archive = tar::Builder::new(BufWriter::new(fs::File::create(&fresh)?));
    let mut add = |name: &str, bytes: &[u8]| {
        layer::append(&mut archive, &mut layer::header(0o644), Path::new(name), bytes)
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", &serde_json::to_vec(&index)?)?;
    for blob in [&manifest, &config, &layer] {
        add(&format!("blobs/sha256/{}", blob.digest), &blob.bytes)?;
    }
    archive.into_inner()?.flush()?;
    Ok(fs::rename(&fresh, path)?)
}

fn config(recipe: &Recipe, layer: &Blob) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": recipe.entrypoint,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn named(manifest: &Blob, name: &str, tag: &str) -> Value {
    let mut descriptor = manifest.descriptor(MANIFEST);
    descriptor["annotations"] = json!({
        "io.containerd.image.name": format!("skep.local/{name}:{tag}"),
        "org.opencontainers.image.ref.name": tag,
    });
    descriptor["platform"] = json!({"architecture": architecture(), "os": "linux"});
    descriptor
}
