//! ServiceAccount: every pod runs as an account of its namespace, and gets the account's pull secrets and a token
//! mounted unless it or the account says no.

use serde_json::{Value, json};

use crate::admission::Request;
use crate::meta;
use crate::state::State;
use crate::status::ApiResult;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_SECONDS: i64 = 3607;
/// Marks pods that mirror a node's static pods; those run as nobody.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Fills in account, pull secrets and token volume of a new pod.
pub fn mutate(state: &State, request: &Request<'_>, pod: &mut Value) -> ApiResult<()> {
    if pod["metadata"]["annotations"].get(MIRROR).is_some() {
        return check_mirror(request, pod);
    }
    let wanted =
        pod["spec"]["serviceAccountName"].as_str().filter(|n| !n.is_empty()).unwrap_or("default").to_owned();
    let namespace = request.target.namespace.as_deref().unwrap_or_default();
    let Some(account) = state.store.value("", "serviceaccounts", Some(namespace), &wanted) else {
        let why = format!(
            "error looking up service account {namespace}/{wanted}: serviceaccount \"{wanted}\" not found"
        );
        return Err(forbidden(request, pod, &why));
    };
    pod["spec"]["serviceAccountName"] = wanted.clone().into();
    pod["spec"]["serviceAccount"] = wanted.into();
    let own_secrets = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|s| !s.is_empty());
    if let (false, Some(secrets)) =
        (own_secrets, account["imagePullSecrets"].as_array().filter(|s| !s.is_empty()))
    {
        pod["spec"]["imagePullSecrets"] = secrets.clone().into();
    }
    let automount = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if automount {
        mount_token(pod);
    }
    Ok(())
}

fn forbidden(request: &Request<'_>, pod: &Value, why: &str) -> crate::status::ApiError {
    crate::status::ApiError::forbidden(
        &request.target.resource.group,
        &request.target.resource.plural,
        meta::text(pod, "name"),
        why,
    )
}

fn check_mirror(request: &Request<'_>, pod: &Value) -> ApiResult<()> {
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if !account.is_empty() {
        return Err(forbidden(request, pod, "a mirror pod may not reference service accounts"));
    }
    Ok(())
}

fn mount_token(pod: &mut Value) {
    let volume = token_volume(pod).unwrap_or_else(|| format!("kube-api-access-{}", meta::suffix()));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in meta::list_mut(pod, &["spec", list]) {
            mounted |= mount_into(container, &volume);
        }
    }
    if mounted && token_volume(pod).is_none() {
        push(&mut pod["spec"], "volumes", volume_source(&volume));
    }
}

/// The name of a token volume the pod already has.
fn token_volume(pod: &Value) -> Option<String> {
    pod["spec"]["volumes"]
        .as_array()?
        .iter()
        .filter_map(|v| v["name"].as_str())
        .find(|name| name.starts_with("kube-api-access-"))
        .map(str::to_owned)
}

fn mount_into(container: &mut Value, volume: &str) -> bool {
    let mounts = container["volumeMounts"].as_array();
    if mounts.is_some_and(|m| m.iter().any(|mount| mount["mountPath"] == MOUNT_PATH)) {
        return false;
    }
    push(container, "volumeMounts", json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn push(owner: &mut Value, field: &str, item: Value) {
    match owner[field].as_array_mut() {
        Some(list) => list.push(item),
        None => owner[field] = json!([item]),
    }
}

fn volume_source(name: &str) -> Value {
    json!({"name": name, "projected": {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ],
        "defaultMode": 420,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_into_every_container_that_has_no_mount_there() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}, {"name": "b"}],
        }});
        mount_token(&mut pod);
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    }
}
