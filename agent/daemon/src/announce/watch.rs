//! What announcements depend on, watched: this node, Services of type LoadBalancer, policies, Leases; and the endpoints
//! of those Services only whose traffic must not leave the node.

use std::{fmt::Debug, net::IpAddr, time::Duration};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Error, Event as Watched},
    },
};
use skep_api::{L2AnnouncementPolicy, l2_announcement_policy::LEASE_LABEL};
use skep_model::{NamespacedName, NodeName};
use skep_runtime::Backoff;
use tokio::sync::mpsc;

use super::{
    election::Observed,
    lease,
    wanted::{NodeView, PolicyView, ServiceView, has_local},
};

/// Events that may wait before watches are slowed down.
pub(crate) const QUEUE: usize = 256;
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// What a watch says of one kind.
#[derive(Debug)]
pub(crate) enum Change<K, T> {
    Upsert(K, T),
    Remove(K),
    Replace(Vec<(K, T)>),
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// This node and its addresses.
    Node(Box<NodeView>, Vec<IpAddr>),
    Service(Change<NamespacedName, ServiceView>),
    Policy(Change<String, Option<PolicyView>>),
    Lease(Change<IpAddr, Observed>),
    /// Whether a Service has a ready endpoint on this node.
    Local(NamespacedName, bool),
}

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

fn stream<O>(api: Api<O>, config: Config) -> impl Stream<Item = watcher::Result<Watched<O>>>
where
    O: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher::watcher(api, config).backoff(Patience(Backoff::new(RETRY.0, RETRY.1)))
}

/// Runs every watch until the receiver is gone.
pub(crate) async fn watch_all(
    client: Client,
    node: NodeName,
    leases: Api<Lease>,
    events: mpsc::Sender<Event>,
) {
    let services = Config::default().fields("spec.type=LoadBalancer");
    let service = |service: &Service| {
        let name = NamespacedName::new(service.namespace().unwrap_or_default(), service.name_any());
        Some((name, ServiceView::of(service)))
    };
    let policy = |policy: &L2AnnouncementPolicy| {
        let view = PolicyView::of(policy);
        if let Err(why) = &view {
            tracing::warn!(
                policy = policy.name_any(),
                why,
                "the policy is not understood and announces nothing"
            );
        }
        Some((policy.name_any(), view.ok()))
    };
    tokio::join!(
        watch_node(client.clone(), &node, &events),
        follow(Api::all(client.clone()), services, &events, service, Event::Service),
        follow(Api::all(client), Config::default(), &events, policy, Event::Policy),
        follow(leases, Config::default().labels(LEASE_LABEL), &events, lease::read, Event::Lease),
    );
}

async fn watch_node(client: Client, node: &NodeName, events: &mpsc::Sender<Event>) {
    let own = Config::default().fields(&format!("metadata.name={node}"));
    let stream = stream(Api::<Node>::all(client), own);
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let node = match event {
            Ok(Watched::Apply(node) | Watched::InitApply(node)) => node,
            Ok(Watched::Delete(node)) => {
                // A node that is no part of the cluster announces nothing.
                let gone = NodeView { labels: node.labels().clone(), ready: false, leaving: true };
                if events.send(Event::Node(Box::new(gone), Vec::new())).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Watched::Init | Watched::InitDone) | Err(_) => continue,
        };
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let addresses = addresses.filter_map(|address| address.address.parse().ok()).collect();
        if events.send(Event::Node(Box::new(NodeView::of(&node)), addresses)).await.is_err() {
            return;
        }
    }
}

async fn follow<O, K, T>(
    api: Api<O>,
    config: Config,
    events: &mpsc::Sender<Event>,
    read: impl Fn(&O) -> Option<(K, T)>,
    wrap: fn(Change<K, T>) -> Event,
) where
    O: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let stream = stream(api, config);
    pin_mut!(stream);
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(Watched::Init) => {
                listed.clear();
                continue;
            }
            Ok(Watched::InitApply(object)) => {
                listed.extend(read(&object));
                continue;
            }
            Ok(Watched::InitDone) => Change::Replace(std::mem::take(&mut listed)),
            Ok(Watched::Apply(object)) => match read(&object) {
                Some((key, value)) => Change::Upsert(key, value),
                None => continue,
            },
            Ok(Watched::Delete(object)) => match read(&object) {
                Some((key, _)) => Change::Remove(key),
                None => continue,
            },
            // The definition is not installed: there are none of them.
            Err(Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                Change::Replace(Vec::new())
            }
            Err(error) => {
                tracing::warn!(kind = %O::kind(&()), %error, "watch interrupted, will resume");
                continue;
            }
        };
        if events.send(wrap(change)).await.is_err() {
            return;
        }
    }
}

/// Tells whenever it changes whether the Service has a ready endpoint on this node, for ever.
pub(crate) async fn watch_local(
    client: Client,
    service: NamespacedName,
    node: NodeName,
    events: mpsc::Sender<Event>,
) {
    let config = Config::default().labels(&format!("kubernetes.io/service-name={}", service.name));
    let stream = stream(Api::<EndpointSlice>::namespaced(client, &service.namespace), config);
    pin_mut!(stream);
    let mut slices = std::collections::BTreeMap::new();
    let (mut complete, mut told) = (false, None);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Watched::Init) => {
                slices.clear();
                complete = false;
            }
            Ok(Watched::InitApply(slice) | Watched::Apply(slice)) => {
                slices.insert(slice.name_any(), has_local(&slice, node.as_str()));
            }
            Ok(Watched::InitDone) => complete = true,
            Ok(Watched::Delete(slice)) => drop(slices.remove(&slice.name_any())),
            Err(error) => {
                tracing::warn!(%service, %error, "watch of endpoints interrupted, will resume");
                continue;
            }
        }
        let here = slices.values().any(|here| *here);
        if complete && told != Some(here) {
            told = Some(here);
            if events.send(Event::Local(service.clone(), here)).await.is_err() {
                return;
            }
        }
    }
}
