//! A pod as the API wants it, parsed once: identity, containers with their roles, restart policy.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// Who a pod is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodId {
    /// The namespace.
    pub(crate) namespace: String,
    /// The name.
    pub(crate) name: String,
    /// The uid: a re-created pod of the same name is another pod.
    pub(crate) uid: String,
}

impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// When an exited container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    /// After every exit.
    Always,
    /// After a failure.
    OnFailure,
    /// Not at all.
    Never,
}

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to completion before the next starts.
    Init,
    /// An init container that keeps running beside the pod's own.
    Sidecar,
    /// What the pod is about.
    Main,
    /// Added to a running pod for debugging; never restarted.
    Ephemeral,
}

/// One container of the pod.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// Its role.
    pub(crate) role: Role,
    /// Its specification; ephemeral containers are read as ordinary ones.
    pub(crate) container: Container,
    /// The container whose processes an ephemeral container sees.
    pub(crate) target: Option<String>,
    /// Changes when the container must be replaced to follow its specification.
    pub(crate) hash: String,
}

impl Unit {
    fn new(role: Role, container: Container) -> Self {
        let hash = fnv(&format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default()));
        Self { role, container, target: None, hash: format!("{hash:x}") }
    }

    /// The container's name.
    pub(crate) fn name(&self) -> &str {
        &self.container.name
    }
}

/// A parsed pod.
#[derive(Debug, Clone)]
pub(crate) struct PodModel {
    /// The object it was read from.
    pub(crate) pod: Arc<Pod>,
    /// Its identity.
    pub(crate) id: PodId,
    /// Init containers (in order), main containers, ephemeral containers.
    pub(crate) units: Vec<Unit>,
    /// The restart policy.
    pub(crate) policy: RestartPolicy,
}

impl PodModel {
    /// Parses an object of the API.
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let meta = &pod.metadata;
        let id = PodId {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        };
        let units = pod.spec.as_ref().map(units).unwrap_or_default();
        let policy = match pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        };
        Self { id, units, policy, pod }
    }

    /// The specification; an empty one for a pod that is known only from the runtime.
    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// Whether the pod lives in the node's network namespace.
    pub(crate) fn host_network(&self) -> bool {
        self.spec().and_then(|s| s.host_network).unwrap_or(false)
    }

    /// The unit of that name.
    pub(crate) fn unit(&self, name: &str) -> Option<&Unit> {
        self.units.iter().find(|u| u.name() == name)
    }

    /// Units of one role, in order.
    pub(crate) fn of_role(&self, role: Role) -> impl Iterator<Item = &Unit> {
        self.units.iter().filter(move |u| u.role == role)
    }

    /// Seconds between the polite and the final signal.
    pub(crate) fn grace(&self) -> i64 {
        self.spec().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30)
    }

    /// When the API asked for deletion, the moment it is to be complete.
    pub(crate) fn deletion(&self) -> Option<Timestamp> {
        self.pod.metadata.deletion_timestamp.as_ref().map(|t| t.0)
    }
}

fn units(spec: &PodSpec) -> Vec<Unit> {
    let init = spec.init_containers.iter().flatten().map(|c| {
        let sidecar = c.restart_policy.as_deref() == Some("Always");
        Unit::new(if sidecar { Role::Sidecar } else { Role::Init }, c.clone())
    });
    let main = spec.containers.iter().map(|c| Unit::new(Role::Main, c.clone()));
    let ephemeral = spec.ephemeral_containers.iter().flatten().filter_map(|e| {
        let container = serde_json::to_value(e).ok().and_then(|v| serde_json::from_value(v).ok())?;
        let mut unit = Unit::new(Role::Ephemeral, container);
        unit.target = e.target_container_name.clone().filter(|t| !t.is_empty());
        Some(unit)
    });
    init.chain(main).chain(ephemeral).collect()
}

/// FNV-1a: stable across builds, unlike the standard library's hasher.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_roles_in_start_order() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {
                "restartPolicy": "Never",
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
                "containers": [{"name": "m", "image": "x"}],
                "ephemeralContainers": [{"name": "e", "image": "y", "targetContainerName": "m"}],
            }
        }))
        .unwrap();
        let model = PodModel::new(Arc::new(pod));
        let roles: Vec<_> = model.units.iter().map(|u| (u.name(), u.role)).collect();
        assert_eq!(
            roles,
            [("i", Role::Init), ("s", Role::Sidecar), ("m", Role::Main), ("e", Role::Ephemeral)]
        );
        assert_eq!(model.unit("e").unwrap().target.as_deref(), Some("m"));
        assert_eq!(model.policy, RestartPolicy::Never);
        assert_eq!(model.id.to_string(), "p_n(u)");
    }

    #[test]
    fn the_hash_follows_the_image_only() {
        let unit = |image: &str, args: &[&str]| {
            let container: Container =
                serde_json::from_value(json!({"name": "c", "image": image, "args": args})).unwrap();
            Unit::new(Role::Main, container).hash
        };
        assert_eq!(unit("a", &[]), unit("a", &["x"]));
        assert_ne!(unit("a", &[]), unit("b", &[]));
    }
}
