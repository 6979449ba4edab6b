//! The sandbox of a pod as the runtime is to make it. Pure but for the two files in [`hosts`].

pub(crate) mod dns;
pub(crate) mod hosts;

use std::path::Path;

use k8s_openapi::api::core::v1::{PodSpec, SeccompProfile};
use skep_wire::cri::v1;

use crate::{cri::labels, pod::model::PodModel};

/// What a sandbox depends on besides the pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SandboxInput<'a> {
    /// The pod.
    pub(crate) model: &'a PodModel,
    /// Its attempt number.
    pub(crate) attempt: u32,
    /// The directory of all pods' logs.
    pub(crate) log_root: &'a Path,
    /// The pod's cgroup.
    pub(crate) cgroup_parent: &'a str,
    /// Its resolver settings.
    pub(crate) dns: &'a v1::DnsConfig,
    /// The directory of seccomp profiles.
    pub(crate) seccomp_root: &'a Path,
}

/// The sandbox's configuration.
pub(crate) fn config(input: SandboxInput<'_>) -> v1::PodSandboxConfig {
    let model = input.model;
    let id = &model.id;
    let spec = model.spec();
    let mut labels: std::collections::HashMap<_, _> =
        model.pod.metadata.labels.clone().into_iter().flatten().collect();
    labels.extend(labels::pod(id));
    let mut annotations: std::collections::HashMap<_, _> =
        model.pod.metadata.annotations.clone().into_iter().flatten().collect();
    annotations.insert(labels::GRACE.to_owned(), model.grace().to_string());
    let hostname = if model.host_network() { String::new() } else { hostname(model) };
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: id.name.clone(),
            uid: id.uid.clone(),
            namespace: id.namespace.clone(),
            attempt: input.attempt,
        }),
        hostname,
        log_directory: log_directory(input.log_root, model).display().to_string(),
        dns_config: Some(input.dns.clone()),
        port_mappings: spec.map(port_mappings).unwrap_or_default(),
        labels,
        annotations,
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: input.cgroup_parent.to_owned(),
            security_context: Some(security(model, input.seccomp_root)),
            sysctls: spec.map(sysctls).unwrap_or_default(),
            ..v1::LinuxPodSandboxConfig::default()
        }),
    }
}

/// Where the logs of a pod are.
pub(crate) fn log_directory(root: &Path, model: &PodModel) -> std::path::PathBuf {
    root.join("pods").join(format!("{}_{}_{}", model.id.namespace, model.id.name, model.id.uid))
}

/// The pod's host name.
pub(crate) fn hostname(model: &PodModel) -> String {
    let wished = model.spec().and_then(|s| s.hostname_override.as_ref().or(s.hostname.as_ref()));
    let name = wished.filter(|h| !h.is_empty()).unwrap_or(&model.id.name);
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The namespaces of everything in the pod. Processes are private to a container unless shared.
pub(crate) fn namespaces(spec: Option<&PodSpec>) -> v1::NamespaceOption {
    use v1::NamespaceMode::{Container, Node, Pod};
    let flag = |f: fn(&PodSpec) -> Option<bool>| spec.and_then(f).unwrap_or(false);
    let network = if flag(|s| s.host_network) { Node } else { Pod };
    let ipc = if flag(|s| s.host_ipc) { Node } else { Pod };
    let pid = if flag(|s| s.host_pid) {
        Node
    } else if flag(|s| s.share_process_namespace) {
        Pod
    } else {
        Container
    };
    v1::NamespaceOption {
        network: network.into(),
        pid: pid.into(),
        ipc: ipc.into(),
        target_id: String::new(),
    }
}

/// A seccomp profile; none means unconfined.
pub(crate) fn seccomp(profile: Option<&SeccompProfile>, root: &Path) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (kind, local) = match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => (ProfileType::RuntimeDefault, String::new()),
        Some(("Localhost", Some(name))) => (ProfileType::Localhost, root.join(name).display().to_string()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    v1::SecurityProfile { profile_type: kind.into(), localhost_ref: local }
}

fn security(model: &PodModel, seccomp_root: &Path) -> v1::LinuxSandboxSecurityContext {
    let context = model.spec().and_then(|s| s.security_context.as_ref());
    let privileged = model
        .units
        .iter()
        .any(|u| u.container.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false));
    let groups = context.and_then(|c| c.supplemental_groups.clone()).unwrap_or_default();
    let fs_group = context.and_then(|c| c.fs_group);
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(model.spec())),
        run_as_user: context.and_then(|c| c.run_as_user).map(|value| v1::Int64Value { value }),
        run_as_group: context
            .filter(|c| c.run_as_user.is_some())
            .and_then(|c| c.run_as_group)
            .map(|value| v1::Int64Value { value }),
        supplemental_groups: groups.into_iter().chain(fs_group).collect(),
        privileged,
        seccomp: Some(seccomp(context.and_then(|c| c.seccomp_profile.as_ref()), seccomp_root)),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

fn sysctls(spec: &PodSpec) -> std::collections::HashMap<String, String> {
    let list = spec.security_context.as_ref().and_then(|c| c.sysctls.as_deref()).unwrap_or_default();
    list.iter().map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

fn port_mappings(spec: &PodSpec) -> Vec<v1::PortMapping> {
    let init =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(init)
        .flat_map(|c| c.ports.iter().flatten())
        .map(|port| {
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            };
            v1::PortMapping {
                protocol: protocol.into(),
                container_port: port.container_port,
                host_port: port.host_port.unwrap_or(0),
                host_ip: port.host_ip.clone().unwrap_or_default(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn model(spec: serde_json::Value) -> PodModel {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "ns", "uid": "u"}, "spec": spec});
        PodModel::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn build(spec: serde_json::Value) -> v1::PodSandboxConfig {
        let model = model(spec);
        config(SandboxInput {
            model: &model,
            attempt: 1,
            log_root: Path::new("/var/log"),
            cgroup_parent: "/kubepods/podu",
            dns: &v1::DnsConfig::default(),
            seccomp_root: Path::new("/s"),
        })
    }

    #[test]
    fn host_network_pods_have_no_host_name_of_their_own() {
        let config = build(json!({"hostNetwork": true, "containers": []}));
        assert_eq!(config.hostname, "");
        let linux = config.linux.unwrap();
        let namespaces = linux.security_context.unwrap().namespace_options.unwrap();
        assert_eq!(namespaces.network(), v1::NamespaceMode::Node);
        assert_eq!(namespaces.pid(), v1::NamespaceMode::Container);
    }

    #[test]
    fn names_logs_and_labels_after_the_pod() {
        let config = build(json!({"hostname": "h", "containers": []}));
        assert_eq!(config.hostname, "h");
        assert_eq!(config.log_directory, "/var/log/pods/ns_web-0_u");
        assert_eq!(config.labels[labels::POD_UID], "u");
        assert_eq!(config.metadata.unwrap().attempt, 1);
    }
}
