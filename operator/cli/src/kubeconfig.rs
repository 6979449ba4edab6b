//! Kubeconfigs: the administrator's, and clients made from one.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

/// Writes the control plane's own kubeconfig for the host: the same credential, another port.
pub(crate) fn write_for_host(made: &Path, target: &Path, port: u16) -> Result<()> {
    let text = fs::read_to_string(made).with_context(|| format!("cannot read {}", made.display()))?;
    let text = with_server(&text, &format!("https://127.0.0.1:{port}"))?;
    if fs::read_to_string(target).is_ok_and(|existing| existing == text) {
        return Ok(());
    }
    let fresh = target.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    fs::rename(&fresh, target).with_context(|| format!("cannot write {}", target.display()))
}

fn with_server(text: &str, server: &str) -> Result<String> {
    let mut config: Value = serde_yaml_ng::from_str(text).context("not a kubeconfig")?;
    let Some(clusters) = config.get_mut("clusters").and_then(Value::as_array_mut) else {
        bail!("the kubeconfig names no cluster");
    };
    for cluster in clusters {
        cluster["cluster"]["server"] = Value::from(server);
    }
    Ok(serde_yaml_ng::to_string(&config)?)
}

/// A client from a kubeconfig file, or from the usual places when there is none given.
pub(crate) async fn client(path: Option<&Path>) -> Result<Client> {
    let mut config = match path {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot use {}: `skep up` writes it", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("no kubeconfig: set KUBECONFIG or give --kubeconfig")?,
    };
    config.connect_timeout = Some(std::time::Duration::from_secs(3));
    Ok(Client::try_from(config)?)
}

/// A client for a user's question: `--kubeconfig`, KUBECONFIG, else the local cluster's, else the usual places.
pub(crate) async fn user_client(given: Option<&Path>) -> Result<Client> {
    let local = Path::new(".skep/kubeconfig");
    let use_local = given.is_none() && std::env::var_os("KUBECONFIG").is_none() && local.exists();
    client(if use_local { Some(local) } else { given }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_changes() {
        let text = "clusters:\n- name: skep\n  cluster:\n    server: https://127.0.0.1:6443\n    certificate-authority-data: QQ==\n";
        let changed = with_server(text, "https://127.0.0.1:7443").unwrap();
        assert!(changed.contains("server: https://127.0.0.1:7443") && changed.contains("QQ=="));
    }

    #[test]
    fn refuses_what_is_no_kubeconfig() {
        assert!(with_server("a: b", "x").is_err());
    }
}
