//! One attempt of a probe or hook: exec, HTTP, TCP or gRPC.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

use super::{
    grpc,
    http::{self, Question, authority},
};
use crate::cri::Cri;

/// The container an attempt is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The runtime's id.
    pub(crate) id: String,
    /// The pod's address, or the node's for host network.
    pub(crate) ip: String,
    /// The container's specification, for named ports.
    pub(crate) container: Container,
}

/// Tries `probe` once.
pub(crate) async fn probe(cri: &Cri, target: &Target, probe: &Probe) -> Result<(), String> {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
    if let Some(action) = &probe.exec {
        return exec(cri, &target.id, action.command.clone().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return http_get(target, action, timeout).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| target.ip.clone());
        return tcp(&host, port(&target.container, &action.port)?, timeout).await;
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|e| format!("port {}: {e}", action.port))?;
        return grpc::check(&target.ip, port, action.service.as_deref().unwrap_or_default(), timeout).await;
    }
    Ok(())
}

/// Runs a command in the container; it must end with 0.
pub(crate) async fn exec(cri: &Cri, id: &str, command: Vec<String>, timeout: Duration) -> Result<(), String> {
    match cri.exec_sync(id, command, timeout).await {
        Ok(done) if done.exit_code == 0 => Ok(()),
        Ok(done) => {
            let output = [done.stdout, done.stderr].concat();
            let text: String = String::from_utf8_lossy(&output).chars().take(1024).collect();
            Err(if text.trim().is_empty() { format!("command exited with {}", done.exit_code) } else { text })
        }
        Err(error) if error.is_timeout() => Err(format!("command timed out after {} s", timeout.as_secs())),
        Err(error) => Err(error.to_string()),
    }
}

/// Gets a URL of the container; the answer must be 2xx or 3xx.
pub(crate) async fn http_get(
    target: &Target,
    action: &HTTPGetAction,
    timeout: Duration,
) -> Result<(), String> {
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let question = Question {
        host: action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| target.ip.clone()),
        port: port(&target.container, &action.port)?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        tls: action.scheme.as_deref() == Some("HTTPS"),
        headers: action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
    };
    let answer = http::get(&question, timeout).await?;
    if (200..400).contains(&answer.code) {
        return Ok(());
    }
    Err(format!("HTTP probe failed with statuscode: {}", answer.code))
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> Result<(), String> {
    let address = authority(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("dial tcp {address}: {error}")),
        Err(_elapsed) => Err(format!("dial tcp {address}: no answer in {} s", timeout.as_secs())),
    }
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_not_a_number) => container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port)
                .ok_or_else(|| format!("container {} has no port named {name:?}", container.name))?,
        },
    };
    u16::try_from(number).map_err(|error| format!("port {number}: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_go_by_number_or_name() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .unwrap();
        assert_eq!(port(&container, &IntOrString::Int(80)), Ok(80));
        assert_eq!(port(&container, &IntOrString::String("web".into())), Ok(8080));
        assert_eq!(port(&container, &IntOrString::String("81".into())), Ok(81));
        assert!(port(&container, &IntOrString::String("nope".into())).is_err());
        assert!(port(&container, &IntOrString::Int(70_000)).is_err());
    }
}
