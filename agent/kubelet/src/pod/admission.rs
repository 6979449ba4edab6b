//! Pods that this node refuses for good, whoever scheduled them here. Pure.

use super::{memory::Verdict, model::PodModel};

/// Kernel settings that affect nobody but the pod.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why the pod cannot run here, if so.
pub(crate) fn refusal(model: &PodModel) -> Option<Verdict> {
    let sysctls = model.spec()?.security_context.as_ref()?.sysctls.as_deref()?;
    let refused = |message: String| Some(Verdict { reason: "SysctlForbidden".to_owned(), message });
    for sysctl in sysctls {
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return refused(format!("forbidden sysctl: {name:?} is not allowed on this node"));
        }
        if name.starts_with("net.") && model.host_network() {
            return refused(format!(
                "forbidden sysctl: {name:?} would change the node, for the pod uses its network"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::{plan::Command, scene::Scene};

    fn scene(name: &str, host_network: bool) -> Scene {
        Scene::new(json!({"hostNetwork": host_network, "containers": [],
            "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}))
    }

    #[test]
    fn only_settings_of_the_pods_own_namespaces_are_taken() {
        assert_eq!(refusal(&scene("net.ipv4.tcp_syncookies", false).model), None);
        assert!(refusal(&scene("kernel.msgmax", false).model).is_some());
        assert!(refusal(&scene("net.ipv4.tcp_syncookies", true).model).is_some());
        let plan = scene("vm.swappiness", false).plan();
        assert!(matches!(&plan.commands[..], [Command::Fail(v)] if v.reason == "SysctlForbidden"));
    }
}
