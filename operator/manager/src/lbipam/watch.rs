//! The API's objects as facts: watches that never end, resumed and listed anew by kube's watcher.

use std::{fmt::Debug, net::IpAddr, time::Duration};

use futures::{StreamExt, pin_mut};
use k8s_openapi::{
    api::core::v1::{Node, Service},
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use skep_api::{L2AnnouncementPolicy, LoadBalancerIPPool};
use skep_model::NamespacedName;
use skep_runtime::Backoff;
use tokio::sync::mpsc;

use super::facts::{PoolFacts, ServiceFacts, node_addresses};

/// Events that may wait before watches are slowed down.
pub(crate) const QUEUE: usize = 1024;
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What a watch says of one kind.
#[derive(Debug)]
pub(crate) enum Change<K, T> {
    /// New or different.
    Upsert(K, T),
    /// Gone.
    Remove(K),
    /// Everything there is.
    Replace(Vec<(K, T)>),
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    Service(Change<NamespacedName, ServiceFacts>),
    Pool(Change<String, PoolFacts>),
    Node(Change<String, std::collections::BTreeSet<IpAddr>>),
    Policy(Change<String, L2AnnouncementPolicy>),
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

/// Runs every watch until the receiver is gone.
pub(crate) async fn watch_all(client: Client, events: mpsc::Sender<Event>) {
    let name =
        |object: &Service| NamespacedName::new(object.namespace().unwrap_or_default(), object.name_any());
    tokio::join!(
        watch::<Service, _, _>(&client, &events, move |o| (name(o), ServiceFacts::of(o)), Event::Service),
        watch::<LoadBalancerIPPool, _, _>(
            &client,
            &events,
            |o| (o.name_any(), PoolFacts::of(o)),
            Event::Pool
        ),
        watch::<Node, _, _>(&client, &events, |o| (o.name_any(), node_addresses(o)), Event::Node),
        watch::<L2AnnouncementPolicy, _, _>(&client, &events, |o| (o.name_any(), o.clone()), Event::Policy),
    );
}

async fn watch<O, K, T>(
    client: &Client,
    events: &mpsc::Sender<Event>,
    read: impl Fn(&O) -> (K, T),
    wrap: fn(Change<K, T>) -> Event,
) where
    O: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<O> = Api::all(client.clone());
    let patience = Patience(Backoff::new(RETRY.0, RETRY.1));
    let stream = watcher(api, watcher::Config::default()).backoff(patience);
    pin_mut!(stream);
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.push(read(&object));
                continue;
            }
            Ok(watcher::Event::InitDone) => Change::Replace(std::mem::take(&mut listed)),
            Ok(watcher::Event::Apply(object)) => {
                let (key, value) = read(&object);
                Change::Upsert(key, value)
            }
            Ok(watcher::Event::Delete(object)) => Change::Remove(read(&object).0),
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
