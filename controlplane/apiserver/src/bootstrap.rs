//! The objects every cluster has, written at start and repaired when missing: namespaces, RBAC roles, priority
//! classes, the service range, and the `kubernetes` Service with its endpoints.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use skep_registry::Resource;
use skep_storage::{Expect, Key, Op};

use crate::authz::policy::GROUP as RBAC;
use crate::authz::seed;
use crate::meta;
use crate::rest::Target;
use crate::state::State;
use crate::status::{ApiError, ApiResult};
use crate::store::{self, WriteError};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const ATTEMPTS: usize = 5;
/// How often the objects that must exist are looked after.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// Roles written in one transaction.
const BATCH: usize = 60;

/// Writes what is missing.
pub async fn run(state: &State) -> ApiResult<()> {
    for name in NAMESPACES {
        ensure(state, "", "namespaces", None, json!({"metadata": {"name": name}})).await?;
    }
    roles(state).await?;
    crate::follow::aggregate(state).await;
    priorities(state).await?;
    service_ranges(state).await?;
    kubernetes_service(state).await?;
    endpoints(state).await?;
    state.bootstrapped.store(true, Ordering::Release);
    Ok(())
}

/// Puts back, for ever, what the cluster cannot do without when somebody deletes it.
pub async fn keep(state: std::sync::Arc<State>) {
    loop {
        tokio::time::sleep(KEEP_EVERY).await;
        if !state.bootstrapped.load(Ordering::Acquire) {
            continue;
        }
        let kept = async {
            kubernetes_service(&state).await?;
            endpoints(&state).await
        };
        if let Err(error) = kept.await {
            tracing::warn!(%error, "the kubernetes Service could not be kept");
        }
    }
}

async fn roles(state: &State) -> ApiResult<()> {
    let mut ops = Vec::new();
    for seed in seed::seeds() {
        let namespace = seed.object["metadata"]["namespace"].as_str().map(str::to_owned);
        let name = meta::text(&seed.object, "name").to_owned();
        let plural = seed.kind.plural();
        let resource = resource(state, RBAC, plural)?;
        let key = store::key(&resource, namespace.as_deref(), &name)?;
        match state.store.value(RBAC, plural, namespace.as_deref(), &name) {
            None => {
                let mut object = seed.object;
                meta::fill_system_fields(&mut object);
                meta::order(&mut object);
                ops.push(Op::Put { key, value: resource.canonical(&object), expect: Expect::Any });
            }
            Some(present) => {
                if let Some(merged) = seed::reconcile(&present, &seed.object) {
                    ops.push(Op::Put { key, value: resource.canonical(&merged), expect: Expect::Any });
                }
            }
        }
    }
    for batch in ops.chunks(BATCH) {
        state.commit(batch.to_vec()).await.map_err(|error| match error {
            WriteError::Api(error) => error,
            WriteError::Conflict(key) => ApiError::stale(RBAC, key.resource().resource(), key.name()),
        })?;
    }
    Ok(())
}

async fn priorities(state: &State) -> ApiResult<()> {
    for (name, value) in
        [("system-cluster-critical", 2_000_000_000_i64), ("system-node-critical", 2_000_001_000)]
    {
        let class = json!({
            "metadata": {"name": name},
            "value": value,
            "preemptionPolicy": "PreemptLowerPriority",
            "description": "For pods the cluster cannot do without.",
        });
        ensure(state, "scheduling.k8s.io", "priorityclasses", None, class).await?;
    }
    Ok(())
}

/// The service ranges; a cluster that was given a second family has it added.
async fn service_ranges(state: &State) -> ApiResult<()> {
    const GROUP: &str = "networking.k8s.io";
    let ranges = state.services.ranges();
    let Some(mut present) = state.store.value(GROUP, "servicecidrs", None, "kubernetes") else {
        let range = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges}});
        return ensure(state, GROUP, "servicecidrs", None, range).await;
    };
    let before = meta::strings(&present["spec"]["cidrs"]);
    if before.len() == 1 && ranges.len() == 2 && before[0] == ranges[0] {
        present["spec"]["cidrs"] = ranges.into();
        return replace(state, GROUP, "servicecidrs", None, present).await;
    }
    Ok(())
}

async fn kubernetes_service(state: &State) -> ApiResult<()> {
    let service = json!({
        "metadata": {
            "name": "kubernetes",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": state.services.api_address(),
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": state.config.advertise_port}],
        },
    });
    ensure(state, "", "services", Some("default"), service).await
}

/// Endpoints at the advertised address. A restart under another address replaces them.
async fn endpoints(state: &State) -> ApiResult<()> {
    let (address, port) = (state.config.advertise_address, state.config.advertise_port);
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    });
    let legacy = json!({
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": address.to_string()}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    });
    settle(state, "discovery.k8s.io", "endpointslices", slice, &["addressType", "endpoints", "ports"])
        .await?;
    settle(state, "", "endpoints", legacy, &["subsets"]).await
}

/// Creates an object of `default`, or makes these fields of the present one equal.
async fn settle(state: &State, group: &str, plural: &str, wanted: Value, fields: &[&str]) -> ApiResult<()> {
    let name = meta::text(&wanted, "name").to_owned();
    let Some(mut present) = state.store.value(group, plural, Some("default"), &name) else {
        return ensure(state, group, plural, Some("default"), wanted).await;
    };
    if fields.iter().all(|f| present[*f] == wanted[*f]) {
        return Ok(());
    }
    for field in fields {
        present[*field] = wanted[*field].clone();
    }
    replace(state, group, plural, Some("default"), present).await
}

fn resource(state: &State, group: &str, plural: &str) -> ApiResult<std::sync::Arc<Resource>> {
    state
        .registry
        .snapshot()
        .lookup(group, "v1", plural)
        .ok_or_else(|| ApiError::internal(format!("{plural} are not served")))
}

/// Creates an object unless it is there.
async fn ensure(
    state: &State,
    group: &str,
    plural: &str,
    namespace: Option<&str>,
    object: Value,
) -> ApiResult<()> {
    let resource = resource(state, group, plural)?;
    let name = meta::text(&object, "name").to_owned();
    let key = store::key(&resource, namespace, &name)?;
    for _attempt in 0..ATTEMPTS {
        if state.store.cache().get(&key).is_some() {
            return Ok(());
        }
        match create(state, &resource, namespace, &key, object.clone()).await {
            Ok(()) => return Ok(()),
            Err(WriteError::Conflict(_)) => {}
            Err(WriteError::Api(error)) => return Err(error),
        }
    }
    Err(ApiError::stale(group, plural, &name))
}

async fn create(
    state: &State,
    resource: &std::sync::Arc<Resource>,
    namespace: Option<&str>,
    key: &Key,
    mut object: Value,
) -> Result<(), WriteError> {
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = (&*resource.kind).into();
    if let Some(namespace) = namespace {
        meta::set(&mut object, "namespace", namespace);
    }
    let target = Target {
        resource: std::sync::Arc::clone(resource),
        namespace: namespace.map(str::to_owned),
        name: Some(key.name().to_owned()),
        subresource: None,
    };
    meta::fill_system_fields(&mut object);
    resource.default(&mut object);
    resource.prepare_create(&mut object);
    let mut ops = state.services.on_create(state, &target, &mut object).map_err(WriteError::Api)?;
    meta::order(&mut object);
    ops.insert(0, Op::Put { key: key.clone(), value: resource.canonical(&object), expect: Expect::Absent });
    state.commit(ops).await.map(|_| ())
}

async fn replace(
    state: &State,
    group: &str,
    plural: &str,
    namespace: Option<&str>,
    object: Value,
) -> ApiResult<()> {
    let resource = resource(state, group, plural)?;
    let key = store::key(&resource, namespace, meta::text(&object, "name"))?;
    let op = Op::Put { key, value: resource.canonical(&object), expect: Expect::Exists };
    match state.commit(vec![op]).await {
        Ok(_) => Ok(()),
        Err(WriteError::Conflict(key)) => Err(ApiError::stale(group, plural, key.name())),
        Err(WriteError::Api(error)) => Err(error),
    }
}
