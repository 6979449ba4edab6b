//! All pods of this node: a worker each, fed by the API's watch and the runtime's changes.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::ObjectMeta;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    pod::model::PodId,
    shared::Shared,
    worker::{Desired, Inbox, Worker},
};

#[derive(Debug)]
struct Handle {
    desired: watch::Sender<Desired>,
    poke: Arc<Notify>,
}

/// The workers.
#[derive(Debug)]
pub(crate) struct Pods {
    shared: Arc<Shared>,
    workers: Mutex<HashMap<String, Handle>>,
    synced: AtomicBool,
}

impl Pods {
    /// No pods yet.
    pub(crate) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, workers: Mutex::default(), synced: AtomicBool::new(false) })
    }

    /// Whether the API's list was seen once; before that, nothing is an orphan.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// The API has this pod.
    pub(crate) fn apply(self: &Arc<Self>, pod: Pod) {
        self.wish(Desired { pod: Arc::new(pod), gone: false });
    }

    /// The API has this pod no more.
    pub(crate) fn remove(self: &Arc<Self>, pod: Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if let Some(handle) = self.workers.lock().get(&uid) {
            handle.desired.send_replace(Desired { pod: Arc::new(pod), gone: true });
        }
    }

    /// The API has exactly these pods (and those applied since); the others are gone.
    pub(crate) fn retain(self: &Arc<Self>, uids: &HashSet<String>) {
        for (uid, handle) in self.workers.lock().iter() {
            if !uids.contains(uid) && !handle.desired.borrow().gone {
                handle.desired.send_modify(|desired| desired.gone = true);
            }
        }
        self.synced.store(true, Ordering::Release);
    }

    /// Whether a worker looks after that pod.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.workers.lock().contains_key(uid)
    }

    /// The runtime's state of that pod may have changed.
    pub(crate) fn poke(&self, uid: &str) {
        if let Some(handle) = self.workers.lock().get(uid) {
            handle.poke.notify_one();
        }
    }

    /// The runtime has a pod that the API does not know: it is to go.
    pub(crate) fn orphan(self: &Arc<Self>, id: PodId, grace: i64) {
        tracing::info!(pod = %id, "orphan found");
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some(id.name),
                namespace: Some(id.namespace),
                uid: Some(id.uid),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { termination_grace_period_seconds: Some(grace), ..PodSpec::default() }),
            status: None,
        };
        self.wish(Desired { pod: Arc::new(pod), gone: true });
    }

    /// The pods as the API has them.
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        self.workers.lock().values().map(|h| h.desired.borrow().pod.clone()).collect()
    }

    /// The pod of that name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let named = |pod: &Pod| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        let workers = self.workers.lock();
        let mut found: Vec<Desired> = workers.values().map(|h| h.desired.borrow().clone()).collect();
        // A pod that is gone may still be on its way out while its successor of the same name runs.
        found.sort_by_key(|desired| desired.gone);
        found.into_iter().map(|desired| desired.pod).find(|pod| named(pod))
    }

    fn wish(self: &Arc<Self>, desired: Desired) {
        let uid = desired.pod.metadata.uid.clone().unwrap_or_default();
        let mut workers = self.workers.lock();
        if let Some(handle) = workers.get(&uid) {
            handle.desired.send_replace(desired);
            return;
        }
        let (sender, receiver) = watch::channel(desired);
        let poke = Arc::new(Notify::new());
        let worker = Worker::new(self.shared.clone(), Inbox { desired: receiver, poke: poke.clone() });
        workers.insert(uid.clone(), Handle { desired: sender, poke });
        drop(workers);
        let pods = self.clone();
        tokio::spawn(async move {
            worker.run().await;
            pods.workers.lock().remove(&uid);
        });
    }
}
