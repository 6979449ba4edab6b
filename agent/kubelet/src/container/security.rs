//! The security context of a container: the container's own settings over the pod's, checked against the image.
//! Pure.

use std::path::Path;

use k8s_openapi::api::core::v1::{Capabilities, PodSecurityContext, SecurityContext};
use skep_wire::cri::v1;

use super::ConfigError;
use crate::{
    pod::model::{PodModel, Unit},
    sandbox,
};

/// Kernel files that a container has no business reading.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Kernel files that a container may only read.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user an image wants to run as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageUser {
    /// By number.
    pub(crate) uid: Option<i64>,
    /// By name.
    pub(crate) name: String,
}

/// The container's security context. `target` is the id of the container an ephemeral one looks at.
pub(crate) fn context(
    model: &PodModel,
    unit: &Unit,
    image: &ImageUser,
    target: Option<String>,
    seccomp_root: &Path,
) -> Result<v1::LinuxContainerSecurityContext, ConfigError> {
    let pod = model.spec().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = unit.container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(pod.run_as_user);
    check_non_root(own.run_as_non_root.or(pod.run_as_non_root), user, image)?;
    let privileged = own.privileged.unwrap_or(false);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let mut namespaces = sandbox::namespaces(model.spec());
    if let Some(target) = target {
        namespaces.pid = v1::NamespaceMode::Target.into();
        namespaces.target_id = target;
    }
    let user = user.or(image.uid);
    let group = own.run_as_group.or(pod.run_as_group);
    let known_user = user.is_some() || !image.name.is_empty();
    let profile = own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(capabilities),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: user.map(|value| v1::Int64Value { value }),
        run_as_username: if user.is_none() { image.name.clone() } else { String::new() },
        run_as_group: group.filter(|_| known_user).map(|value| v1::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(&pod),
        no_new_privs: no_new_privs(&own),
        masked_paths: if unmasked { Vec::new() } else { MASKED.map(str::to_owned).to_vec() },
        readonly_paths: if unmasked { Vec::new() } else { READ_ONLY.map(str::to_owned).to_vec() },
        seccomp: Some(sandbox::seccomp(profile, seccomp_root)),
        ..v1::LinuxContainerSecurityContext::default()
    })
}

fn check_non_root(wanted: Option<bool>, user: Option<i64>, image: &ImageUser) -> Result<(), ConfigError> {
    if wanted != Some(true) {
        return Ok(());
    }
    match (user, image.uid) {
        (Some(0), _) => Err(ConfigError::UserIsRoot),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(ConfigError::ImageRunsAsRoot),
        (None, Some(_)) => Ok(()),
        (None, None) if image.name.is_empty() => Err(ConfigError::ImageRunsAsRoot),
        (None, None) => Err(ConfigError::UnknownUser(image.name.clone())),
    }
}

fn groups(pod: &PodSecurityContext) -> Vec<i64> {
    pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group).collect()
}

fn no_new_privs(own: &SecurityContext) -> bool {
    own.allow_privilege_escalation == Some(false)
}

fn capabilities(set: &Capabilities) -> v1::Capability {
    let names = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned()).collect()
    };
    v1::Capability {
        add_capabilities: names(&set.add),
        drop_capabilities: names(&set.drop),
        add_ambient_capabilities: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn build(
        pod: Value,
        own: Value,
        image: ImageUser,
    ) -> Result<v1::LinuxContainerSecurityContext, ConfigError> {
        let value = json!({"metadata": {"name": "p"},
            "spec": {"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]}});
        let model = PodModel::new(Arc::new(serde_json::from_value(value).unwrap()));
        context(&model, &model.units[0], &image, None, Path::new("/s"))
    }

    #[test]
    fn the_containers_setting_wins_over_the_pods() {
        let context = build(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            json!({"runAsUser": 5, "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]}}),
            ImageUser::default(),
        )
        .unwrap();
        assert_eq!(context.run_as_user.unwrap().value, 5);
        assert_eq!(context.run_as_group.unwrap().value, 2);
        assert_eq!(context.supplemental_groups, [4, 3]);
        assert_eq!(context.capabilities.unwrap().add_capabilities, ["NET_ADMIN"]);
        assert!(context.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn privileged_containers_see_the_kernels_files() {
        let context = build(json!({}), json!({"privileged": true}), ImageUser::default()).unwrap();
        assert!(context.privileged && context.masked_paths.is_empty());
    }

    #[test]
    fn root_is_refused_where_the_pod_forbids_it() {
        let non_root = || json!({"runAsNonRoot": true});
        let image = |uid| ImageUser { uid, name: String::new() };
        assert_eq!(build(non_root(), json!({}), image(Some(0))), Err(ConfigError::ImageRunsAsRoot));
        assert_eq!(build(non_root(), json!({"runAsUser": 0}), image(Some(7))), Err(ConfigError::UserIsRoot));
        assert!(build(non_root(), json!({}), image(Some(7))).is_ok());
        let named = ImageUser { uid: None, name: "web".into() };
        assert_eq!(build(non_root(), json!({}), named), Err(ConfigError::UnknownUser("web".into())));
    }
}
