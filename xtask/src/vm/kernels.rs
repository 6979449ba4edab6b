//! tests/kernels.toml: which kernels there are, and what each is expected to be able to do.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::shell::root;

/// A kernel of the matrix.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    /// What it is called here.
    pub(crate) name: String,
    /// The Debian suite that has it.
    pub(crate) suite: String,
    /// The package, which may be one that only depends on the real one.
    pub(crate) package: String,
    /// Whether it is the oldest that is supported.
    #[serde(default)]
    #[allow(dead_code, reason = "for readers of the file")]
    pub(crate) floor: bool,
    /// Tests (`SUITE::NAME`) that this kernel cannot run, and why: they fail there, and must.
    #[serde(default)]
    pub(crate) cannot_run: BTreeMap<String, String>,
    /// What it can do.
    pub(crate) features: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct File {
    kernel: Vec<Kernel>,
}

impl Kernel {
    /// What newer kernels can do and this one is expected not to.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let lacks = |(name, value): (&String, &Value)| match value {
            Value::Bool(false) => Some(name.clone()),
            Value::String(kind) if name == "attach" && kind != "tcx" => Some("tcx".to_owned()),
            _ => None,
        };
        self.features.iter().filter_map(lacks).collect()
    }
}

/// The named kernels, or all.
pub(crate) fn select(names: &[String]) -> Result<Vec<Kernel>> {
    let path = root().join("tests/kernels.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    choose(parse(&text)?, names)
}

fn parse(text: &str) -> Result<Vec<Kernel>> {
    Ok(toml::from_str::<File>(text).context("tests/kernels.toml")?.kernel)
}

fn choose(all: Vec<Kernel>, names: &[String]) -> Result<Vec<Kernel>> {
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|kernel| kernel.name == **name)) {
        let known: Vec<&str> = all.iter().map(|kernel| kernel.name.as_str()).collect();
        bail!("no kernel {unknown:?} in tests/kernels.toml; there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|kernel| names.is_empty() || names.contains(&kernel.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [[kernel]]
        name = "old"
        suite = "bullseye"
        package = "linux-image-amd64"
        floor = true
        features = { attach = "clsact", bpf_loop = false }
        [[kernel]]
        name = "new"
        suite = "sid"
        package = "linux-image-amd64"
        features = { attach = "tcx", bpf_loop = true }
    "#;

    #[test]
    fn names_what_a_kernel_lacks() {
        let kernels = parse(TEXT).unwrap();
        assert_eq!(kernels[0].lacks(), ["tcx", "bpf_loop"]);
        assert!(kernels[1].lacks().is_empty());
    }

    #[test]
    fn an_unknown_kernel_is_an_error_that_names_the_known_ones() {
        let error = choose(parse(TEXT).unwrap(), &["4.19".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("old, new"), "{error}");
        assert_eq!(choose(parse(TEXT).unwrap(), &["new".to_owned()]).unwrap().len(), 1);
        assert_eq!(choose(parse(TEXT).unwrap(), &[]).unwrap().len(), 2);
    }

    #[test]
    fn the_file_of_this_checkout_is_well_formed() {
        assert!(select(&[]).unwrap().len() >= 4);
    }
}
