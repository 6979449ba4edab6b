//! The shell: gathers facts, plans, writes statuses and events.
//!
//! A write is guarded by the version that the plan was made from, and its answer replaces the fact at once, so that the
//! next plan is never made without it. When an answer is lost, the object is read anew before anything else is planned.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{ObjectReference, Service},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter},
};
use serde::Serialize;
use serde_json::json;
use skep_api::{L2AnnouncementPolicy, LoadBalancerIPPool};
use skep_model::NamespacedName;
use skep_runtime::Backoff;
use tokio::sync::mpsc;

use super::{
    facts::{Known, ServiceFacts},
    metrics::Metrics,
    plan::{Settings, plan},
    policy,
    report::{self, News, ServiceStatus},
    watch::{Change, Event, QUEUE, watch_all},
};

/// How long changes are gathered before a plan is made.
const COALESCE: Duration = Duration::from_millis(20);
/// Writes at a time.
const WRITERS: usize = 8;

/// Assigns addresses for ever.
pub(crate) async fn run(client: Client, settings: Settings, metrics: Metrics) {
    let (events, received) = mpsc::channel(QUEUE);
    let controller = Controller::new(client.clone(), settings, metrics);
    tokio::join!(watch_all(client, events), controller.run(received));
}

#[derive(Default)]
struct Listed {
    services: bool,
    pools: bool,
    nodes: bool,
    policies: bool,
}

struct Controller {
    client: Client,
    recorder: Recorder,
    settings: Settings,
    metrics: Metrics,
    known: Known,
    policies: BTreeMap<String, L2AnnouncementPolicy>,
    listed: Listed,
    /// Services of which a write's outcome is not known.
    doubtful: BTreeSet<NamespacedName>,
}

/// What became of a write.
enum Written {
    Done(NamespacedName, Box<ServiceFacts>, Option<News>),
    /// Somebody else changed the Service: its watch will tell.
    Outdated,
    Failed(NamespacedName, kube::Error),
}

impl Controller {
    fn new(client: Client, settings: Settings, metrics: Metrics) -> Self {
        let reporter = Reporter { controller: "skep.dev/lbipam".into(), instance: None };
        Controller {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            metrics,
            known: Known::default(),
            policies: BTreeMap::new(),
            listed: Listed::default(),
            doubtful: BTreeSet::new(),
        }
    }

    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut batch = Vec::with_capacity(QUEUE);
        let mut again = false;
        loop {
            let wait = async {
                match again {
                    true => tokio::time::sleep(backoff.next_delay()).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                received = events.recv_many(&mut batch, QUEUE) => {
                    if received == 0 {
                        return;
                    }
                    tokio::time::sleep(COALESCE).await;
                    while let Ok(event) = events.try_recv() {
                        batch.push(event);
                    }
                }
                () = wait => {}
            }
            let mut news = again;
            for event in batch.drain(..) {
                news |= self.take_in(event);
            }
            // Heartbeats change Nodes all the time, but rarely what matters here.
            if news {
                again = !self.reconcile().await;
            }
            if !again {
                backoff.reset();
            }
        }
    }

    /// Takes in what happened; whether it is news.
    fn take_in(&mut self, event: Event) -> bool {
        match event {
            Event::Service(change) => keep(&mut self.known.services, change, &mut self.listed.services),
            Event::Pool(change) => keep(&mut self.known.pools, change, &mut self.listed.pools),
            Event::Node(change) => keep(&mut self.known.nodes, change, &mut self.listed.nodes),
            Event::Policy(change) => keep(&mut self.policies, change, &mut self.listed.policies),
        }
    }

    /// Brings everybody's status to the plan; false when something has to be tried again.
    async fn reconcile(&mut self) -> bool {
        let mut done = self.report_policies().await;
        // A plan from half a list would take addresses away.
        if !(self.listed.services && self.listed.pools && self.listed.nodes) {
            return done;
        }
        if !self.resolve_doubts().await {
            return false;
        }
        let now = Timestamp::now();
        let plan = plan(&self.known, &self.settings);
        self.metrics.observe(&plan);
        let writes: Vec<(NamespacedName, String, ServiceStatus)> = plan
            .services
            .iter()
            .filter_map(|(name, verdict)| {
                let facts = self.known.services.get(*name)?;
                Some(((*name).clone(), facts.version.clone(), report::service(facts, verdict, now)?))
            })
            .collect();
        let pools: Vec<_> = plan
            .pools
            .iter()
            .filter_map(|pool| Some((pool.name.to_owned(), report::pool(&plan, pool, now)?)))
            .collect();
        // Addresses that are given back go first: nobody else may get one that a status still names.
        let (returned, given): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(|(name, _, status)| self.gives_back(name, status));
        done &= self.write_services(returned).await && self.write_services(given).await;
        for (name, status) in pools {
            done &= self.write_pool(&name, &status).await;
        }
        done
    }

    fn gives_back(&self, name: &NamespacedName, status: &ServiceStatus) -> bool {
        let had = self.known.services.get(name).map(|facts| facts.ingress.as_slice()).unwrap_or_default();
        had.iter().any(|ip| !status.ingress.contains(ip))
    }

    async fn write_services(&mut self, writes: Vec<(NamespacedName, String, ServiceStatus)>) -> bool {
        let client = &self.client;
        let write = |(name, version, status)| write_service(client, name, version, status);
        let written: Vec<Written> = stream::iter(writes).map(write).buffer_unordered(WRITERS).collect().await;
        let mut done = true;
        for outcome in written {
            match outcome {
                Written::Done(name, facts, news) => {
                    if let Some(news) = news {
                        self.tell(&name, &facts.uid, news).await;
                    }
                    self.known.services.insert(name, *facts);
                }
                // Nothing that a plan counted on may be given on before the watch has told what happened.
                Written::Outdated => done = false,
                Written::Failed(name, error) => {
                    tracing::warn!(service = %name, %error, "the Service's status is not written, will retry");
                    self.doubtful.insert(name);
                    done = false;
                }
            }
        }
        done
    }

    /// Reads anew what may have been written; false while that is not possible.
    async fn resolve_doubts(&mut self) -> bool {
        for name in self.doubtful.clone() {
            let api: Api<Service> = Api::namespaced(self.client.clone(), &name.namespace);
            match api.get_opt(&name.name).await {
                Ok(Some(service)) => {
                    drop(self.known.services.insert(name.clone(), ServiceFacts::of(&service)))
                }
                Ok(None) => drop(self.known.services.remove(&name)),
                Err(error) => {
                    tracing::warn!(service = %name, %error, "the Service cannot be read, no address is given meanwhile");
                    return false;
                }
            }
            self.doubtful.remove(&name);
        }
        true
    }

    async fn write_pool(&mut self, name: &str, status: &impl Serialize) -> bool {
        let api: Api<LoadBalancerIPPool> = Api::all(self.client.clone());
        let patch = json!({"status": status});
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(pool) => {
                if let Some(facts) = self.known.pools.get_mut(name) {
                    facts.status = pool.status;
                }
                true
            }
            Err(error) => is_gone(&error) || warned("LoadBalancerIPPool", name, &error),
        }
    }

    async fn report_policies(&mut self) -> bool {
        let api: Api<L2AnnouncementPolicy> = Api::all(self.client.clone());
        let mut done = true;
        for (name, policy) in &mut self.policies {
            let Some(status) = policy::status(policy, Timestamp::now()) else { continue };
            let patch = json!({"status": status});
            match api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(written) => policy.status = written.status,
                Err(error) => done &= is_gone(&error) || warned("L2AnnouncementPolicy", name, &error),
            }
        }
        done
    }

    async fn tell(&self, name: &NamespacedName, uid: &str, news: News) {
        tracing::info!(service = %name, reason = news.reason, "{}", news.note);
        let reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            namespace: Some(name.namespace.clone()),
            name: Some(name.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let event = KubeEvent {
            type_: if news.warning { EventType::Warning } else { EventType::Normal },
            reason: news.reason,
            note: Some(news.note),
            action: "AssignIP".into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::debug!(service = %name, %error, "event not recorded");
        }
    }
}

async fn write_service(
    client: &Client,
    name: NamespacedName,
    version: String,
    status: ServiceStatus,
) -> Written {
    let api: Api<Service> = Api::namespaced(client.clone(), &name.namespace);
    let ingress: Vec<_> = status.ingress.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
    let ingress = if ingress.is_empty() { json!(null) } else { json!(ingress) };
    let patch = json!({
        "metadata": {"resourceVersion": version},
        "status": {"loadBalancer": {"ingress": ingress}, "conditions": status.conditions},
    });
    match api.patch_status(&name.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(service) => Written::Done(name, Box::new(ServiceFacts::of(&service)), status.news),
        Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => Written::Outdated,
        Err(error) => Written::Failed(name, error),
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn warned(kind: &str, name: &str, error: &kube::Error) -> bool {
    tracing::warn!(kind, name, %error, "the status is not written, will retry");
    false
}

/// Takes a change in; true when it is news. A whole list makes the kind a listed one.
fn keep<K: Ord, T: PartialEq>(known: &mut BTreeMap<K, T>, change: Change<K, T>, listed: &mut bool) -> bool {
    match change {
        Change::Upsert(key, value) => {
            let news = known.get(&key) != Some(&value);
            known.insert(key, value);
            news
        }
        Change::Remove(key) => known.remove(&key).is_some(),
        Change::Replace(all) => {
            let all = all.into_iter().collect();
            let news = !*listed || *known != all;
            *known = all;
            *listed = true;
            news
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_no_news_and_a_first_list_is_even_when_it_is_empty() {
        let (mut known, mut listed) = (BTreeMap::new(), false);
        assert!(keep(&mut known, Change::Replace(Vec::new()), &mut listed) && listed);
        assert!(keep(&mut known, Change::Upsert("a", 1), &mut listed));
        assert!(!keep(&mut known, Change::Upsert("a", 1), &mut listed));
        assert!(!keep(&mut known, Change::Replace(vec![("a", 1)]), &mut listed));
        assert!(keep(&mut known, Change::Remove("a"), &mut listed));
        assert!(!keep(&mut known, Change::Remove("a"), &mut listed));
    }
}
