//! Pod cgroups: `kubepods/[burstable|besteffort]/pod<uid>`, made, limited and removed in every hierarchy the
//! node has: each v1 controller, and v2. The runtime puts containers below them.

pub(crate) mod hierarchy;

use std::{fs, io, path::PathBuf, time::Duration};

use hierarchy::{Hierarchy, Version};

use crate::{
    container::resources::{self, Ask, PERIOD},
    pod::{
        model::PodModel,
        qos::{self, QosClass},
    },
};

/// A cgroup that cannot be made, limited or removed.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {path}: {source}")]
pub(crate) struct CgroupError {
    path: String,
    #[source]
    source: io::Error,
}

/// The hierarchies of this node.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    pids: Option<i64>,
}

const ROOT: &str = "kubepods";

impl Cgroups {
    /// Finds the hierarchies and makes the parents of all pods. `pids` bounds the processes of one pod.
    pub(crate) fn prepare(pids: Option<i64>) -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(failed(&PathBuf::from("/proc/self/mountinfo")))?;
        let cgroups = Self { hierarchies: hierarchy::find(&mounts), pids };
        for path in [ROOT.to_owned(), format!("{ROOT}/burstable"), format!("{ROOT}/besteffort")] {
            cgroups.create(&path)?;
        }
        cgroups.limit(
            &format!("{ROOT}/besteffort"),
            &Ask { cpu_request: 0, cpu_limit: None, memory_limit: None },
            None,
        );
        Ok(cgroups)
    }

    /// Makes and limits the pod's cgroup; the path for the runtime.
    pub(crate) fn create_pod(&self, model: &PodModel) -> Result<String, CgroupError> {
        let path = path(model);
        self.create(&path)?;
        self.limit(&path, &resources::pod(model), self.pids);
        Ok(format!("/{path}"))
    }

    /// Removes the pod's cgroups, those of its containers included.
    pub(crate) async fn remove_pod(&self, uid: &str) -> Result<(), CgroupError> {
        for class in ["", "burstable/", "besteffort/"] {
            let path = format!("{ROOT}/{class}pod{uid}");
            for hierarchy in &self.hierarchies {
                remove(hierarchy.root.join(&path)).await?;
            }
        }
        Ok(())
    }

    /// The uids of all pods that have a cgroup.
    pub(crate) fn pods(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for hierarchy in &self.hierarchies {
            for class in ["", "burstable", "besteffort"] {
                let directory = hierarchy.root.join(ROOT).join(class);
                let Ok(entries) = fs::read_dir(&directory) else { continue };
                let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
                found.extend(names.filter_map(|n| n.strip_prefix("pod").map(str::to_owned)));
            }
        }
        found.sort();
        found.dedup();
        found
    }

    fn create(&self, path: &str) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            hierarchy.create(path).map_err(failed(&hierarchy.root.join(path)))?;
        }
        Ok(())
    }

    /// Limits are best effort: a kernel without a controller still runs pods.
    fn limit(&self, path: &str, ask: &Ask, pids: Option<i64>) {
        for (hierarchy, file, value) in self.settings(ask, pids) {
            let file = hierarchy.root.join(path).join(file);
            if let Err(error) = fs::write(&file, &value) {
                tracing::debug!(file = %file.display(), value, %error, "limit not set");
            }
        }
    }

    fn settings(&self, ask: &Ask, pids: Option<i64>) -> Vec<(&Hierarchy, &'static str, String)> {
        let shares = resources::shares(ask.cpu_request);
        let pids = pids.map_or("max".to_owned(), |v| v.to_string());
        let mut settings = Vec::new();
        for hierarchy in &self.hierarchies {
            let has = |controller: &str| hierarchy.controllers.iter().any(|c| c == controller);
            let v2 = hierarchy.version == Version::V2;
            if has("cpu") && v2 {
                let quota = ask.cpu_limit.map_or("max".to_owned(), |m| resources::quota(m).to_string());
                settings.push((hierarchy, "cpu.weight", resources::weight(shares).to_string()));
                settings.push((hierarchy, "cpu.max", format!("{quota} {PERIOD}")));
            } else if has("cpu") {
                settings.push((hierarchy, "cpu.shares", shares.to_string()));
                settings.push((hierarchy, "cpu.cfs_period_us", PERIOD.to_string()));
                settings.push((
                    hierarchy,
                    "cpu.cfs_quota_us",
                    ask.cpu_limit.map_or(-1, resources::quota).to_string(),
                ));
            }
            if has("memory") {
                let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
                let none = if v2 { "max" } else { "-1" };
                settings.push((hierarchy, file, ask.memory_limit.map_or(none.to_owned(), |v| v.to_string())));
            }
            if has("pids") {
                settings.push((hierarchy, "pids.max", pids.clone()));
            }
        }
        settings
    }
}

/// The pod's cgroup, relative to the root.
fn path(model: &PodModel) -> String {
    let class = match qos::class(&model.pod) {
        QosClass::Guaranteed => "",
        QosClass::Burstable => "burstable/",
        QosClass::BestEffort => "besteffort/",
    };
    format!("{ROOT}/{class}pod{}", model.id.uid)
}

fn failed(path: &std::path::Path) -> impl FnOnce(io::Error) -> CgroupError + use<> {
    let path = path.display().to_string();
    move |source| CgroupError { path, source }
}

/// Removes a cgroup and those below it; the kernel needs a moment after the last process died.
async fn remove(path: PathBuf) -> Result<(), CgroupError> {
    const TRIES: u32 = 20;
    for left in (0..TRIES).rev() {
        match hierarchy::remove_tree(&path) {
            Ok(()) => return Ok(()),
            Err(error) if left == 0 => return Err(failed(&path)(error)),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    Ok(())
}
