//! The directions between crates: proto <- agent, controlplane, operator, which meet only in proto;
//! pure crates do no I/O; a dangerous dependency stays behind its fence.

use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;

/// Crates of the first folder may use those of the second.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("proto", &["proto", "ebpf"]),
    ("ebpf", &["ebpf"]),
    ("agent", &["agent", "proto", "ebpf"]),
    ("controlplane", &["controlplane", "proto"]),
    ("operator", &["operator", "proto"]),
    // Tests, benchmarks and developer commands look at everything: nothing depends on them.
    ("tests", &["agent", "controlplane", "operator", "proto", "ebpf", "tests"]),
];

/// Single exceptions, with the reason.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// Crates that decide and do not act: no runtime, no sockets, no kernel.
const PURE: [&str; 5] = ["skep-model", "skep-api", "skep-abi", "skep-packet", "skep-registry"];
const ACTING: [&str; 9] = ["tokio", "hyper", "axum", "tonic", "aya", "rtnetlink", "nix", "redb", "socket2"];

/// Dependencies that only these crates may have, and why.
const FENCES: [(&str, &[&str], &str); 5] = [
    ("aya", &["skep-datapath"], "only the data path loads programs and touches maps"),
    ("redb", &["skep-storage"], "only the storage knows its file"),
    ("etcd-client", &["skep-storage"], "only the storage knows etcd"),
    ("gotmpl", &["skep-cli"], "only `skep up` renders the chart"),
    (
        "rcgen",
        &["skep-pki", "skep-kubelet", "skep-apiserver"],
        "keys are made in one place; a kubelet makes its own requests, the API server reads token keys",
    ),
];

/// A crate of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Crate {
    /// Its name.
    pub(crate) name: String,
    /// Its Cargo.toml.
    #[serde(rename = "manifest_path")]
    pub(crate) manifest: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

/// The crates in cargo's metadata.
pub(crate) fn parse(metadata: &str) -> Result<Vec<Crate>> {
    Ok(serde_json::from_str::<Metadata>(metadata)?.packages)
}

impl Crate {
    /// The top-level folder it lives in; a crate right below the root is its own.
    fn area(&self) -> &str {
        let folder = self.manifest.parent();
        let name = folder.and_then(|folder| folder.parent()).and_then(|area| area.file_name());
        name.and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// Everything that points the wrong way.
pub(crate) fn check(crates: &[Crate]) -> Vec<String> {
    let mut complaints = Vec::new();
    for user in crates.iter().filter(|user| user.name != "xtask") {
        for used in user.dependencies.iter().filter(|used| used.kind.as_deref() != Some("dev")) {
            complaints.extend(direction(crates, user, used));
            complaints.extend(purity(user, used));
            complaints.extend(fence(user, used));
        }
    }
    complaints
}

fn direction(crates: &[Crate], user: &Crate, used: &Dependency) -> Option<String> {
    used.path.as_ref()?;
    let target = crates.iter().find(|target| target.name == used.name)?;
    let allowed = MAY_USE.iter().find(|(area, _)| *area == user.area()).map(|(_, allowed)| *allowed);
    let excepted = EXCEPTIONS.iter().any(|(from, to, _)| *from == user.name && *to == used.name);
    if excepted || allowed.is_some_and(|allowed| allowed.contains(&target.area())) {
        return None;
    }
    Some(format!(
        "{} may not use {}: {} and {} meet only in proto/",
        user.name,
        used.name,
        user.area(),
        target.area()
    ))
}

fn purity(user: &Crate, used: &Dependency) -> Option<String> {
    let breaks =
        used.kind.is_none() && PURE.contains(&user.name.as_str()) && ACTING.contains(&used.name.as_str());
    breaks.then(|| format!("{} is pure and may not use {}", user.name, used.name))
}

fn fence(user: &Crate, used: &Dependency) -> Option<String> {
    let (_, inside, reason) = FENCES.iter().find(|(name, _, _)| *name == used.name)?;
    let allowed = inside.contains(&user.name.as_str()) || user.area() == "tests";
    (!allowed).then(|| format!("{} may not use {}: {reason}", user.name, used.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(area: &str, name: &str, uses: &[(&str, Option<&str>)]) -> Crate {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
            path: name.starts_with("skep-").then(PathBuf::new),
        };
        Crate {
            name: name.to_owned(),
            manifest: PathBuf::from(format!("/src/{area}/{name}/Cargo.toml")),
            dependencies: uses.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn areas_meet_only_in_proto() {
        let crates = [
            found("proto", "skep-model", &[]),
            found("controlplane", "skep-pki", &[("skep-model", None)]),
            found("agent", "skep-agent", &[("skep-model", None), ("skep-pki", None)]),
        ];
        let complaints = check(&crates);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains("skep-agent may not use skep-pki"));
    }

    #[test]
    fn a_pure_crate_may_act_in_its_tests_only() {
        let crates = [
            found("proto", "skep-model", &[("tokio", Some("dev"))]),
            found("proto", "skep-api", &[("tokio", None)]),
        ];
        assert_eq!(check(&crates), ["skep-api is pure and may not use tokio"]);
    }

    #[test]
    fn a_fenced_dependency_stays_inside() {
        let crates = [
            found("agent", "skep-datapath", &[("aya", None)]),
            found("agent", "skep-agent", &[("aya", None)]),
        ];
        assert_eq!(check(&crates).len(), 1);
    }
}
