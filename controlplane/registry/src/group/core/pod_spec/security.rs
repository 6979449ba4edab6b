//! Security contexts of pods and containers.

use std::collections::HashSet;

use serde_json::Value;

use super::container::Names;
use crate::check;
use crate::error::Errors;
use crate::field::{at, flag, int, items, text};
use crate::path::Path;

const ID: &str = "must be between 0 and 2147483647, inclusive";
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// The pod's security context.
pub(super) fn pod(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(context) = at(spec, &["securityContext"]) else { return };
    let place = path.field("securityContext");
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], &place, errors);
    let groups = place.field("supplementalGroups");
    for (i, group) in items(context, &["supplementalGroups"]).iter().enumerate() {
        id(group.as_i64(), &groups.index(i), errors);
    }
    check::one_of(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], &place, errors);
    check::one_of(context, "supplementalGroupsPolicy", &["Merge", "Strict"], &place, errors);
    check::one_of(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], &place, errors);
    sysctls(spec, context, &place, errors);
    profiles(context, &place, errors);
    if flag(context, &["windowsOptions", "hostProcess"]) && !flag(spec, &["hostNetwork"]) {
        errors.invalid(
            &path.field("hostNetwork"),
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        );
    }
}

fn sysctls(spec: &Value, context: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("sysctls");
    let mut seen = HashSet::new();
    for (i, sysctl) in items(context, &["sysctls"]).iter().enumerate() {
        let place = list.index(i);
        let place = place.field("name");
        let name = text(sysctl, &["name"]);
        if name.is_empty() {
            errors.required(&place, "");
        } else if !is_sysctl(name) {
            errors.invalid(
                &place,
                name,
                "must be a sysctl name of at most 253 characters such as net.core.somaxconn",
            );
        } else if !seen.insert(name.replace('/', ".")) {
            errors.duplicate(&place, name);
        }
        if flag(spec, &["hostNetwork"]) && name.starts_with("net.") {
            errors.invalid(&place, name, "may not be specified when 'hostNetwork' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let part = |p: &str| {
        let bytes = p.as_bytes();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !bytes.is_empty()
            && plain(bytes[0])
            && plain(bytes[bytes.len() - 1])
            && bytes.iter().all(|b| plain(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

fn profiles(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    for name in ["seccompProfile", "appArmorProfile"] {
        let Some(profile) = at(context, &[name]) else { continue };
        let path = path.field(name);
        check::required_one_of(profile, "type", PROFILES, &path, errors);
        let local = text(profile, &["localhostProfile"]);
        let place = path.field("localhostProfile");
        match text(profile, &["type"]) {
            "Localhost" if local.is_empty() => {
                errors.required(&place, "must be set when the type is Localhost")
            }
            "Localhost" => check::descending_path(local, &place, errors),
            _ if at(profile, &["localhostProfile"]).is_some() => {
                errors.invalid(&place, local, "can only be set when the type is Localhost");
            }
            _ => {}
        }
    }
}

/// A container's security context.
pub(super) fn container(container: &Value, names: &Names<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Some(context) = at(container, &["securityContext"]) else { return };
    let path = path.field("securityContext");
    ids(context, &["runAsUser", "runAsGroup"], &path, errors);
    check::one_of(context, "procMount", &["Default", "Unmasked"], &path, errors);
    if text(context, &["procMount"]) == "Unmasked" && !names.user_namespace {
        errors.invalid(&path.field("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    profiles(context, &path, errors);
    if at(context, &["allowPrivilegeEscalation"]).and_then(Value::as_bool) != Some(false) {
        return;
    }
    if flag(context, &["privileged"]) {
        errors.invalid(
            &path,
            context.clone(),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
    if items(context, &["capabilities", "add"]).iter().any(|c| c == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(&path, context.clone(), detail);
    }
}

fn ids(context: &Value, names: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for name in names {
        id(int(context, &[name]), &path.field(name), errors);
    }
}

fn id(value: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = value.filter(|v| !(0..=i64::from(i32::MAX)).contains(v)) {
        errors.invalid(path, value, ID);
    }
}
