//! Makes a pod's sandbox: stale ones away, cgroup, resolver settings, then the runtime and its network plugin.

use std::fs;

use k8s_openapi::api::node::v1::RuntimeClass;
use skep_wire::cri::v1;

use super::ops::{Context, Outcome};
use crate::{
    cri::CriError,
    events::Severity,
    sandbox::{self, SandboxInput, dns},
    session::bounded,
};

/// A sandbox that could not be made.
#[derive(Debug, thiserror::Error)]
enum SandboxError {
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("{0}")]
    Cri(#[from] CriError),
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    #[error("RuntimeClass \"{0}\" not found")]
    NoRuntimeClass(String),
    #[error("RuntimeClass: {0}")]
    Api(#[from] crate::session::CallError),
    #[error("log directory {0}: {1}")]
    Logs(String, #[source] std::io::Error),
}

pub(super) async fn create(context: Context, attempt: u32, stale: Vec<String>) -> Outcome {
    match run(&context, attempt, &stale).await {
        Ok(id) => {
            tracing::info!(pod = %context.model.id, sandbox = id, "sandbox made");
            Outcome::Sandbox(Ok(()))
        }
        Err(error) => {
            tracing::warn!(pod = %context.model.id, %error, "no sandbox");
            let message = format!("Failed to create pod sandbox: {error}");
            let id = &context.model.id;
            context.shared.events.pod(id, None, Severity::Warning, "FailedCreatePodSandBox", message);
            Outcome::Sandbox(Err(()))
        }
    }
}

async fn run(context: &Context, attempt: u32, stale: &[String]) -> Result<String, SandboxError> {
    refuse_unsupported(context)?;
    let cri = &context.shared.cri;
    for id in stale {
        cri.stop_sandbox(id).await?;
        if !context.view.containers.iter().any(|c| c.sandbox == *id) {
            cri.remove_sandbox(id).await?;
        }
    }
    let config = config(context, attempt)?;
    let handler = &runtime_handler(context).await?;
    match cri.run_sandbox(config.clone(), handler).await {
        Ok(id) => Ok(id),
        Err(error) => match reserved_by(&error) {
            Some(holder) => {
                // A runtime killed half way may hold the name without listing the sandbox.
                cri.stop_sandbox(&holder).await?;
                cri.remove_sandbox(&holder).await?;
                Ok(cri.run_sandbox(config, handler).await?)
            }
            None => Err(error.into()),
        },
    }
}

/// The runtime's handler for the pod's RuntimeClass; empty for the default.
async fn runtime_handler(context: &Context) -> Result<String, SandboxError> {
    let Some(name) = context.model.spec().and_then(|s| s.runtime_class_name.as_deref()) else {
        return Ok(String::new());
    };
    let api: kube::Api<RuntimeClass> = kube::Api::all(context.shared.session.client());
    let class = bounded(api.get_opt(name)).await?;
    class.map(|c| c.handler).ok_or_else(|| SandboxError::NoRuntimeClass(name.to_owned()))
}

/// Older runtimes take these and quietly do something else.
fn refuse_unsupported(context: &Context) -> Result<(), SandboxError> {
    let users = context.model.spec().and_then(|s| s.host_users);
    if users == Some(false) && !context.shared.features.user_namespaces {
        return Err(SandboxError::Unsupported(
            "the pod wants a user namespace (hostUsers: false), which this node's container runtime cannot give",
        ));
    }
    Ok(())
}

/// The configuration of the pod's sandbox; its cgroup and log directory are made on the way.
fn config(context: &Context, attempt: u32) -> Result<v1::PodSandboxConfig, SandboxError> {
    let shared = &context.shared;
    let cgroup_parent = shared.cgroups.create_pod(&context.model)?;
    let config = describe(context, attempt, &cgroup_parent);
    fs::create_dir_all(&config.log_directory)
        .map_err(|error| SandboxError::Logs(config.log_directory.clone(), error))?;
    Ok(config)
}

/// The same without touching anything, for the calls that repeat it.
pub(super) fn describe(context: &Context, attempt: u32, cgroup_parent: &str) -> v1::PodSandboxConfig {
    let shared = &context.shared;
    let dns = dns::config(&context.model, &shared.resolvers());
    sandbox::config(SandboxInput {
        model: &context.model,
        attempt,
        log_root: &shared.config.log_dir,
        cgroup_parent,
        dns: &dns,
        seccomp_root: &shared.config.seccomp_root(),
    })
}

/// The sandbox that holds the name, from the runtime's error.
fn reserved_by(error: &CriError) -> Option<String> {
    let message = error.status.message();
    let (_, rest) = message.split_once("is reserved for \"")?;
    rest.split_once('"').map(|(id, _)| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_holder_of_a_name() {
        let text = "failed to reserve sandbox name \"a_b_c_0\": name \"a_b_c_0\" is reserved for \"4f2e\"";
        let error = CriError { call: "run_pod_sandbox", status: tonic::Status::unknown(text) };
        assert_eq!(reserved_by(&error).as_deref(), Some("4f2e"));
        let error = CriError { call: "run_pod_sandbox", status: tonic::Status::unknown("no") };
        assert_eq!(reserved_by(&error), None);
    }
}
