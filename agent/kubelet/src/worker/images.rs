//! Makes sure that a container's image is on the node, as its pull policy says.

use std::time::Instant;

use k8s_openapi::api::core::v1::Secret;
use skep_wire::cri::v1;

use super::ops::{Context, NotStarted};
use crate::{container::security::ImageUser, events::Severity, pod::model::Unit};

/// An image on the node.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// By digest or id, as the runtime wants it.
    pub(super) reference: String,
    /// Who it runs as by itself.
    pub(super) user: ImageUser,
}

/// The image of `unit`, pulled if need be.
pub(super) async fn ensure(
    context: &Context,
    unit: &Unit,
    sandbox: v1::PodSandboxConfig,
) -> Result<Image, NotStarted> {
    let name = unit.container.image.as_deref().unwrap_or_default();
    if name.is_empty()
        || name.chars().any(|c| c.is_whitespace() || c.is_ascii_control())
        || name.ends_with(':')
    {
        let message = format!("Failed to apply default image tag \"{name}\": couldn't parse image name");
        tell(context, unit, Severity::Warning, "InspectFailed", message.clone());
        return Err(NotStarted { reason: "InvalidImageName", message });
    }
    let present = look_up(context, name).await?;
    match (policy(unit, name), present) {
        (Policy::IfNotPresent | Policy::Never, Some(image)) => {
            let message = format!("Container image \"{name}\" already present on machine");
            tell(context, unit, Severity::Normal, "Pulled", message);
            Ok(of(image))
        }
        (Policy::Never, None) => {
            let message = format!("Container image \"{name}\" is not present with pull policy of Never");
            tell(context, unit, Severity::Warning, "ErrImageNeverPull", message.clone());
            Err(NotStarted { reason: "ErrImageNeverPull", message })
        }
        (Policy::Always | Policy::IfNotPresent, _) => pull(context, unit, name, sandbox).await,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy given, or the one that follows from the tag.
fn policy(unit: &Unit, image: &str) -> Policy {
    match unit.container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("IfNotPresent") => Policy::IfNotPresent,
        Some("Never") => Policy::Never,
        _ if is_latest(image) => Policy::Always,
        _ => Policy::IfNotPresent,
    }
}

fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

async fn look_up(context: &Context, name: &str) -> Result<Option<v1::Image>, NotStarted> {
    let found = context.shared.cri.image(name).await;
    found.map_err(|error| NotStarted { reason: "ImageInspectError", message: error.to_string() })
}

async fn pull(
    context: &Context,
    unit: &Unit,
    name: &str,
    sandbox: v1::PodSandboxConfig,
) -> Result<Image, NotStarted> {
    tell(context, unit, Severity::Normal, "Pulling", format!("Pulling image \"{name}\""));
    let auth = credentials(context, name).await;
    let begun = Instant::now();
    let pulled = context.shared.cri.pull(name, auth, sandbox).await;
    match pulled {
        Ok(reference) => {
            let size = look_up(context, name).await?;
            let bytes = size.as_ref().map_or(0, |i| i.size);
            let took = begun.elapsed().as_millis();
            let message = format!(
                "Successfully pulled image \"{name}\" in {took}ms ({took}ms including waiting). Image size: {bytes} bytes."
            );
            tell(context, unit, Severity::Normal, "Pulled", message);
            Ok(size.map_or(Image { reference, user: ImageUser::default() }, of))
        }
        Err(error) => {
            let message = error.to_string();
            tell(
                context,
                unit,
                Severity::Warning,
                "Failed",
                format!("Failed to pull image \"{name}\": {message}"),
            );
            tell(context, unit, Severity::Warning, "Failed", "Error: ErrImagePull".to_owned());
            Err(NotStarted { reason: "ErrImagePull", message })
        }
    }
}

fn of(image: v1::Image) -> Image {
    Image { reference: image.id, user: ImageUser { uid: image.uid.map(|u| u.value), name: image.username } }
}

fn tell(context: &Context, unit: &Unit, severity: Severity, reason: &str, message: String) {
    context.shared.events.pod(&context.model.id, Some(unit.name()), severity, reason, message);
}

/// The pull secret for the image's registry, if the pod names one.
async fn credentials(context: &Context, image: &str) -> Option<v1::AuthConfig> {
    let registry = registry(image);
    let references = context.model.spec()?.image_pull_secrets.as_deref()?;
    for reference in references {
        match context.shared.objects.secret(&context.model.id.namespace, &reference.name).await {
            Ok(Some(secret)) => {
                if let Some(auth) = entry(&secret, &registry) {
                    return Some(auth);
                }
            }
            Ok(None) => {
                tracing::warn!(pod = %context.model.id, secret = reference.name, "no such pull secret")
            }
            Err(error) => tracing::warn!(pod = %context.model.id, %error, "pull secret cannot be read"),
        }
    }
    None
}

/// The registry an image comes from.
fn registry(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains('.') || first.contains(':') || first == "localhost" => {
            first.to_owned()
        }
        _ => "docker.io".to_owned(),
    }
}

fn entry(secret: &Secret, registry: &str) -> Option<v1::AuthConfig> {
    let data = secret.data.as_ref()?.get(".dockerconfigjson")?;
    let config: serde_json::Value = serde_json::from_slice(&data.0).ok()?;
    let (_, entry) = config.get("auths")?.as_object()?.iter().find(|(host, _)| {
        let host = host.trim_start_matches("https://").trim_start_matches("http://");
        host.split('/').next() == Some(registry)
            || (registry == "docker.io" && host.starts_with("index.docker.io"))
    })?;
    let text = |key: &str| entry.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    Some(v1::AuthConfig {
        username: text("username"),
        password: text("password"),
        auth: text("auth"),
        identity_token: text("identitytoken"),
        ..v1::AuthConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn untagged_and_latest_images_are_always_pulled() {
        assert!(is_latest("web"));
        assert!(is_latest("reg.example:5000/web"));
        assert!(is_latest("web:latest"));
        assert!(!is_latest("web:1"));
        assert!(!is_latest("web@sha256:00"));
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let config = json!({"auths": {"https://reg.example:5000/v2/": {"username": "u", "password": "p"}}});
        let secret = Secret {
            data: Some(
                [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(config.to_string().into_bytes()))]
                    .into(),
            ),
            ..Secret::default()
        };
        assert_eq!(entry(&secret, &registry("reg.example:5000/a/b:1")).unwrap().username, "u");
        assert!(entry(&secret, &registry("busybox")).is_none());
    }
}
