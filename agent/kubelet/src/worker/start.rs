//! Starts one container: image, environment, mounts, then create and start, then the postStart hook.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, LifecycleHandler, ObjectFieldSelector, ResourceFieldSelector, Secret,
};
use skep_wire::cri::v1;

use super::{
    images::{self, Image},
    ops::{Context, NotStarted, Outcome},
    sandbox_op, volumes,
};
use crate::{
    container::{self, ContainerInput, mounts, resources, security},
    cri::Cri,
    env::{self, EnvError, Lookup, fields},
    events::Severity,
    pod::model::{PodModel, Unit},
    probe::attempt::{self, Target},
    sandbox::{self, hosts},
    volume::{PodDir, VolumeError},
};

/// What to start.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// The container.
    pub(super) name: String,
    /// Its attempt number.
    pub(super) attempt: u32,
    /// The sandbox it goes into.
    pub(super) sandbox: String,
    /// A container that was never started, to be removed first.
    pub(super) remove: Option<String>,
}

pub(super) async fn start(context: Context, order: Order) -> Outcome {
    let Some(unit) = context.model.unit(&order.name).cloned() else { return Outcome::Stopped };
    match run(&context, &unit, &order).await {
        Ok(()) => Outcome::Started(order.name),
        Err(failure) => {
            tracing::warn!(pod = %context.model.id, container = order.name, reason = failure.reason,
                message = failure.message, "container not started");
            Outcome::NotStarted(order.name, failure)
        }
    }
}

async fn run(context: &Context, unit: &Unit, order: &Order) -> Result<(), NotStarted> {
    let shared = &context.shared;
    if let Some(stale) = &order.remove {
        let removed = shared.cri.remove_container(stale).await;
        removed.map_err(|error| failure("CreateContainerError", error))?;
    }
    let attempt = context.view.sandbox().map_or(0, |s| s.attempt);
    let path =
        shared.cgroups.create_pod(&context.model).map_err(|error| failure("CreateContainerError", error))?;
    let sandbox = sandbox_op::describe(context, attempt, &path);
    let image = images::ensure(context, unit, sandbox.clone()).await?;
    let config = configure(context, unit, order, image)
        .await
        .map_err(|message| told_config(context, unit, message))?;
    let log = Path::new(&sandbox.log_directory).join(&config.log_path);
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: order.sandbox.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox),
    };
    let id = shared
        .cri
        .create_container(request)
        .await
        .map_err(|error| told(context, unit, "CreateContainerError", error))?;
    tell(context, unit, Severity::Normal, "Created", format!("Created container: {}", unit.name()));
    shared.cri.start_container(&id).await.map_err(|error| told(context, unit, "RunContainerError", error))?;
    tell(context, unit, Severity::Normal, "Started", format!("Started container {}", unit.name()));
    link_log(context, unit, &id, &log);
    post_start(context, unit, &id).await
}

fn failure(reason: &'static str, error: impl std::fmt::Display) -> NotStarted {
    NotStarted { reason, message: error.to_string() }
}

fn told(context: &Context, unit: &Unit, reason: &'static str, error: impl std::fmt::Display) -> NotStarted {
    tell(context, unit, Severity::Warning, "Failed", format!("Error: {error}"));
    failure(reason, error)
}

fn told_config(context: &Context, unit: &Unit, message: String) -> NotStarted {
    told(context, unit, "CreateContainerConfigError", message)
}

fn tell(context: &Context, unit: &Unit, severity: Severity, reason: &str, message: String) {
    context.shared.events.pod(&context.model.id, Some(unit.name()), severity, reason, message);
}

async fn configure(
    context: &Context,
    unit: &Unit,
    order: &Order,
    image: Image,
) -> Result<v1::ContainerConfig, String> {
    let shared = &context.shared;
    let model = &context.model;
    let env = environment(context, unit).await?;
    let dir = PodDir::new(&shared.config.root_dir, &model.id.uid);
    let known: HashMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut list = mounts::volumes(model, unit, &dir, &known).map_err(|error| error.to_string())?;
    write_hosts(context, &dir).map_err(|error| error.to_string())?;
    list.extend(mounts::hosts(unit, &dir.hosts_file()));
    let message_file = dir.message_file(unit.name(), order.attempt);
    list.extend(mounts::termination_message(unit, &message_file).map_err(|error| error.to_string())?);
    let target = unit.target.as_deref().and_then(|t| context.view.current(t)).map(|c| c.id.clone());
    let security = security::context(model, unit, &image.user, target, &shared.config.seccomp_root())
        .map_err(|error| error.to_string())?;
    Ok(container::config(ContainerInput {
        model,
        unit,
        attempt: order.attempt,
        image: &image.reference,
        env,
        mounts: list,
        security,
        resources: resources::container(model, &unit.container, shared.memory_bytes),
        message_file: message_file.display().to_string(),
    }))
}

fn write_hosts(context: &Context, dir: &PodDir) -> Result<(), VolumeError> {
    let ips = volumes::pod_ips(context);
    let node_file = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let text = hosts::text(&context.model, &ips, &context.shared.config.cluster_domain, &node_file);
    let file = dir.hosts_file();
    fs::create_dir_all(dir.path()).map_err(VolumeError::io(dir.path()))?;
    fs::write(&file, text).map_err(VolumeError::io(&file))
}

/// Objects that the environment refers to, fetched before it is put together.
struct Fetched<'a> {
    model: &'a PodModel,
    container: &'a Container,
    node: &'a fields::NodeFields,
    pod_ips: Vec<String>,
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
}

impl Lookup for Fetched<'_> {
    fn namespace(&self) -> &str {
        &self.model.id.namespace
    }

    fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.config_maps.get(name).map(AsRef::as_ref)
    }

    fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name).map(AsRef::as_ref)
    }

    fn field(&self, selector: &ObjectFieldSelector) -> Result<String, EnvError> {
        fields::field(&self.model.pod, &self.pod_ips, self.node, &selector.field_path)
    }

    fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, EnvError> {
        let name = selector.container_name.as_deref().filter(|n| !n.is_empty());
        let container = name.and_then(|n| self.model.unit(n)).map_or(self.container, |u| &u.container);
        fields::resource(container, self.node, selector)
    }
}

async fn environment(context: &Context, unit: &Unit) -> Result<Vec<(String, String)>, String> {
    let shared = &context.shared;
    let namespace = &context.model.id.namespace;
    let container = &unit.container;
    let mut fetched = Fetched {
        model: &context.model,
        container,
        node: &shared.node_fields,
        pod_ips: volumes::pod_ips(context),
        config_maps: BTreeMap::new(),
        secrets: BTreeMap::new(),
    };
    for name in config_map_names(container) {
        let found = shared.objects.config_map(namespace, name).await.map_err(|error| error.to_string())?;
        fetched.config_maps.extend(found.map(|object| (name.to_owned(), object)));
    }
    for name in secret_names(container) {
        let found = shared.objects.secret(namespace, name).await.map_err(|error| error.to_string())?;
        fetched.secrets.extend(found.map(|object| (name.to_owned(), object)));
    }
    let services = services(context).await.map_err(|error| error.to_string())?;
    env::environment(container, services, &fetched).map_err(|error| error.to_string())
}

fn config_map_names(container: &Container) -> impl Iterator<Item = &str> {
    let single =
        container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()?.config_map_key_ref.as_ref());
    let bulk = container.env_from.iter().flatten().filter_map(|s| s.config_map_ref.as_ref());
    single.map(|r| r.name.as_str()).chain(bulk.map(|r| r.name.as_str()))
}

fn secret_names(container: &Container) -> impl Iterator<Item = &str> {
    let single =
        container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()?.secret_key_ref.as_ref());
    let bulk = container.env_from.iter().flatten().filter_map(|s| s.secret_ref.as_ref());
    single.map(|r| r.name.as_str()).chain(bulk.map(|r| r.name.as_str()))
}

/// Variables of the namespace's Services if the pod wants them, and always of the API server.
async fn services(context: &Context) -> Result<BTreeMap<String, String>, VolumeError> {
    let objects = &context.shared.objects;
    let mut set = BTreeMap::clone(&*objects.api_variables().await?);
    if context.model.spec().and_then(|s| s.enable_service_links).unwrap_or(true) {
        let own = objects.service_variables(&context.model.id.namespace).await?;
        set.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    Ok(set)
}

/// `LOGS/containers/POD_NS_CONTAINER-ID.log`, where log collectors look.
fn link_log(context: &Context, unit: &Unit, id: &str, log: &Path) {
    let links = context.shared.config.log_dir.join("containers");
    let pod = &context.model.id;
    let link = links.join(format!("{}_{}_{}-{id}.log", pod.name, pod.namespace, unit.name()));
    let made = fs::create_dir_all(&links).and_then(|()| std::os::unix::fs::symlink(log, &link));
    if let Err(error) = made {
        tracing::debug!(link = %link.display(), %error, "no log link");
    }
}

async fn post_start(context: &Context, unit: &Unit, id: &str) -> Result<(), NotStarted> {
    let Some(hook) = unit.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
        return Ok(());
    };
    let target = target(context, unit, id);
    if let Err(message) = handle(&context.shared.cri, &target, hook, HOOK).await {
        let message = format!("PostStartHook failed: {message}");
        tell(context, unit, Severity::Warning, "FailedPostStartHook", message.clone());
        let reason = format!("FailedPostStartHook of container {}, it will be killed", unit.name());
        tell(context, unit, Severity::Normal, "Killing", reason);
        if let Err(error) = context.shared.cri.stop_container(id, context.model.grace()).await {
            tracing::warn!(pod = %context.model.id, %error, "container lives on after its postStart hook failed");
        }
        return Err(NotStarted { reason: "PostStartHookError", message });
    }
    Ok(())
}

/// The longest a postStart hook may take.
const HOOK: Duration = Duration::from_secs(600);

/// Where hooks of a container go.
pub(super) fn target(context: &Context, unit: &Unit, id: &str) -> Target {
    let ip = volumes::pod_ips(context).into_iter().next().unwrap_or_default();
    Target { id: id.to_owned(), ip, container: unit.container.clone() }
}

/// Runs a lifecycle hook.
pub(super) async fn handle(
    cri: &Cri,
    target: &Target,
    hook: &LifecycleHandler,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        return attempt::exec(cri, &target.id, action.command.clone().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &hook.http_get {
        return attempt::http_get(target, action, timeout).await;
    }
    if let Some(action) = &hook.sleep {
        let wish = Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0));
        tokio::time::sleep(wish.min(timeout)).await;
    }
    Ok(())
}

/// Where the logs of the pod are.
pub(super) fn log_directory(context: &Context) -> std::path::PathBuf {
    sandbox::log_directory(&context.shared.config.log_dir, &context.model)
}
