//! The API server: a client by direct address, and watches turned into typed events.
//!
//! Watches never end: they are resumed and re-listed by kube's watcher, with backoff, for as long as the server is
//! away. What a re-list brings is one [`Change::Replace`], so that nobody prunes on half a list.

use std::{
    fmt::Debug,
    path::Path,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use skep_api::NodeEndpoints;
use skep_loadbalancer as lb;
use skep_model::{NamespacedName, NodeName};
use skep_runtime::Backoff;
use tokio::sync::mpsc;

use crate::{
    pod_names::Peers,
    seen::{NodeSeen, PodSeen},
};

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// When the change happened that a slice tells of, as its controller notes it.
const CHANGED_AT: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Events that may wait before watches are slowed down.
pub(crate) const QUEUE: usize = 1024;

/// Shortest and longest wait before a watch is tried again: a server that is back should be noticed within seconds.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// Our backoff as kube's watcher wants it.
struct Patience(Backoff);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next_delay())
    }
}

impl kube::runtime::utils::Backoff for Patience {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Change<K, T> {
    /// New or different.
    Upsert(K, T),
    /// Gone.
    Remove(K),
    /// Everything there is.
    Replace(Vec<(K, T)>),
}

/// What happened in the cluster.
#[derive(Debug)]
pub(crate) enum Event {
    Service(Change<NamespacedName, lb::Service>),
    Slice(Change<NamespacedName, SeenSlice>),
    Namespace(Change<String, ()>),
    Node(Change<String, NodeSeen>),
    Pod(Change<NamespacedName, PodSeen>),
    Peers(Change<String, Peers>),
}

/// A slice, and since when it is so.
#[derive(Debug)]
pub(crate) struct SeenSlice {
    pub(crate) slice: lb::Slice,
    /// When what changed it happened, if the slice says so; else when it came in.
    pub(crate) since: SystemTime,
}

/// A client of the API server at `address`, as the service account of this pod; outside of one, by kubeconfig.
pub(crate) async fn client(address: Option<&http::Uri>) -> anyhow::Result<Client> {
    let mut config =
        if Path::new(SERVICE_ACCOUNT).exists() { Config::incluster_dns()? } else { Config::infer().await? };
    if let Some(address) = address {
        config.cluster_url = address.clone();
    }
    Ok(Client::try_from(config)?)
}

/// Runs every watch until the receiver is gone.
pub(crate) async fn watch_all(client: Client, node: NodeName, events: mpsc::Sender<Event>) {
    let all = watcher::Config::default;
    let own_pods = all().fields(&format!("spec.nodeName={node}"));
    tokio::join!(
        watch(Api::<Service>::all(client.clone()), all(), &events, service, Event::Service),
        watch(Api::<EndpointSlice>::all(client.clone()), all(), &events, slice, Event::Slice),
        watch(Api::<Namespace>::all(client.clone()), all(), &events, namespace, Event::Namespace),
        watch(Api::<Node>::all(client.clone()), all(), &events, node_seen, Event::Node),
        watch(Api::<Pod>::all(client.clone()), own_pods, &events, pod, Event::Pod),
        watch(Api::<NodeEndpoints>::all(client), all(), &events, peers, Event::Peers),
    );
}

/// An object by its key; `None` in the second place when it cannot be used, which removes what it was before.
type Parsed<K, T> = (K, Option<T>);

async fn watch<O, K, T>(
    api: Api<O>,
    config: watcher::Config,
    events: &mpsc::Sender<Event>,
    parse: fn(&O) -> Parsed<K, T>,
    wrap: fn(Change<K, T>) -> Event,
) where
    O: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let stream = watcher(api, config).backoff(Patience(Backoff::new(RETRY.0, RETRY.1)));
    pin_mut!(stream);
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                let (key, value) = parse(&object);
                listed.extend(value.map(|value| (key, value)));
                continue;
            }
            Ok(watcher::Event::InitDone) => Change::Replace(std::mem::take(&mut listed)),
            Ok(watcher::Event::Apply(object)) => match parse(&object) {
                (key, Some(value)) => Change::Upsert(key, value),
                (key, None) => Change::Remove(key),
            },
            Ok(watcher::Event::Delete(object)) => Change::Remove(parse(&object).0),
            Err(error) => {
                tracing::warn!(kind = std::any::type_name::<O>(), %error, "watch interrupted, will resume");
                continue;
            }
        };
        if events.send(wrap(change)).await.is_err() {
            return;
        }
    }
}

fn namespaced<O: ResourceExt>(object: &O) -> NamespacedName {
    NamespacedName::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn parsed<O: ResourceExt, T, E: std::fmt::Display>(
    object: &O,
    result: Result<T, E>,
) -> Parsed<NamespacedName, T> {
    let name = namespaced(object);
    if let Err(error) = &result {
        tracing::warn!(object = %name, %error, "object is not usable, ignored");
    }
    (name, result.ok())
}

fn service(object: &Service) -> Parsed<NamespacedName, lb::Service> {
    parsed(object, lb::Service::try_from(object))
}

fn slice(object: &EndpointSlice) -> Parsed<NamespacedName, SeenSlice> {
    let since = changed_at(object).unwrap_or_else(SystemTime::now);
    let seen = |(name, slice): Parsed<NamespacedName, lb::Slice>| {
        (name, slice.map(|slice| SeenSlice { slice, since }))
    };
    match lb::Slice::try_from(object) {
        Err(lb::InputError::NoService) => (namespaced(object), None),
        result => seen(parsed(object, result)),
    }
}

fn changed_at(object: &EndpointSlice) -> Option<SystemTime> {
    let text = object.metadata.annotations.as_ref()?.get(CHANGED_AT)?;
    let time: k8s_openapi::jiff::Timestamp = text.parse().ok()?;
    Some(time.into())
}

fn namespace(object: &Namespace) -> Parsed<String, ()> {
    (object.name_any(), Some(()))
}

fn node_seen(object: &Node) -> Parsed<String, NodeSeen> {
    (object.name_any(), Some(NodeSeen::from(object)))
}

fn pod(object: &Pod) -> Parsed<NamespacedName, PodSeen> {
    (namespaced(object), Some(PodSeen::from(object)))
}

fn peers(object: &NodeEndpoints) -> Parsed<String, Peers> {
    let endpoints = object.spec.endpoints.iter();
    let known = endpoints.filter_map(|endpoint| {
        let ip = endpoint.ip.parse().ok()?;
        Some((ip, NamespacedName::new(endpoint.namespace.clone(), endpoint.name.clone())))
    });
    (object.name_any(), Some(known.collect()))
}
