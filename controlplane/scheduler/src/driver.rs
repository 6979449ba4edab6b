//! The shell: watches feed cache and queue, decisions become bindings, failures become events and conditions.

mod report;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::Mutex;
use skep_informer::{Informer, Recorder};
use skep_runtime::Drain;
use tokio::sync::{Notify, Semaphore};

use self::report::Reporter;
use self::state::{Next, State};
use crate::SchedulerConfig;
use crate::pod_info::PodInfo;
use crate::preemption::Room;

const COMPONENT: &str = "default-scheduler";
/// Bindings under way at once; decisions wait when the API is slower than the scheduler.
const BINDINGS: usize = 128;
const IDLE: Duration = Duration::from_secs(60);

/// Schedules pods until `drain` begins.
pub async fn run(config: SchedulerConfig, drain: Drain) {
    let client = config.client.clone();
    let (recorder, events) = Recorder::new(client.clone(), COMPONENT, None);
    let driver = Arc::new(Driver {
        client: client.clone(),
        state: Arc::new(Mutex::new(State::new(config.name))),
        wake: Arc::new(Notify::new()),
        reporter: Reporter { client: client.clone(), recorder },
        permits: Arc::new(Semaphore::new(BINDINGS)),
    });
    drain.spawn_until_drained(events.run());
    let (pods, nodes, namespaces) = driver.watch();
    let everything = watcher::Config::default;
    drain.spawn_until_drained(nodes.clone().run(Api::all(client.clone()), everything()));
    drain.spawn_until_drained(namespaces.clone().run(Api::all(client.clone()), everything()));
    tokio::select! {
        () = async { nodes.synced().await; namespaces.synced().await } => {}
        () = drain.cancelled() => return,
    }
    drain.spawn_until_drained(pods.clone().run(Api::all(client), everything()));
    tokio::select! {
        () = async { pods.synced().await; driver.decide(&drain).await } => {}
        () = drain.cancelled() => {}
    }
}

struct Driver {
    client: Client,
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
    reporter: Reporter,
    permits: Arc<Semaphore>,
}

type Watches = (Arc<Informer<Pod>>, Arc<Informer<Node>>, Arc<Informer<Namespace>>);

impl Driver {
    /// Informers whose changes go into the state.
    fn watch(&self) -> Watches {
        let (pods, nodes, namespaces) = (Informer::new(&[]), Informer::new(&[]), Informer::new(&[]));
        let (state, wake) = (self.state.clone(), self.wake.clone());
        pods.on_change(move |change| {
            state.lock().pod_changed(&change, Instant::now());
            wake.notify_one();
        });
        let (state, wake) = (self.state.clone(), self.wake.clone());
        nodes.on_change(move |change| {
            state.lock().node_changed(&change, Instant::now());
            wake.notify_one();
        });
        let state = self.state.clone();
        namespaces.on_change(move |change| state.lock().namespace_changed(&change));
        (pods, nodes, namespaces)
    }

    /// Makes one decision after another.
    async fn decide(self: &Arc<Self>, drain: &Drain) {
        loop {
            let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
            let next = self.state.lock().next(Instant::now());
            match next {
                Next::Bind { pod, node } => {
                    let driver = self.clone();
                    drain.spawn_until_drained(async move {
                        driver.bind(pod, &node).await;
                        drop(permit);
                    });
                }
                Next::Report { pod, error, room } => {
                    let driver = self.clone();
                    drain.spawn_until_drained(async move {
                        driver.reporter.unschedulable(&pod.pod, &error.message).await;
                        if let Some(room) = room {
                            driver.make_room(&pod, &room).await;
                        }
                        drop(permit);
                    });
                }
                Next::Wait(due) => {
                    drop(permit);
                    let due = due.unwrap_or_else(|| Instant::now() + IDLE);
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(due.into()) => {}
                    }
                }
            }
        }
    }

    /// Removes the pods that stand in the way of a more important one.
    async fn make_room(&self, pod: &PodInfo, room: &Room) {
        self.reporter.nominated(&pod.pod, &room.node).await;
        for victim in &room.victims {
            self.reporter.preempted(&victim.pod, &pod.uid, &room.node).await;
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &victim.key.namespace);
            let same = Preconditions { uid: Some(victim.uid.clone()), resource_version: None };
            let params = DeleteParams::default().preconditions(same);
            match api.delete(&victim.key.name, &params).await {
                Ok(_) => tracing::info!(victim = %victim.key, pod = %pod.key, node = room.node, "preempted"),
                Err(error) => tracing::info!(victim = %victim.key, %error, "preemption failed"),
            }
        }
    }

    async fn bind(&self, pod: Arc<PodInfo>, node: &str) {
        let mut binding = Binding {
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.into()),
                ..ObjectReference::default()
            },
            ..Binding::default()
        };
        binding.metadata.name = Some(pod.key.name.clone());
        binding.metadata.namespace = Some(pod.key.namespace.clone());
        binding.metadata.uid = Some(pod.uid.clone());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
        let bound: Result<serde_json::Value, kube::Error> =
            api.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await;
        match bound {
            Ok(_) => {
                self.state.lock().bound(&pod);
                self.reporter.scheduled(&pod.pod, node);
            }
            Err(error) => {
                tracing::info!(pod = %pod.key, node, %error, "binding failed");
                // Gone or bound by somebody else: the watch will say.
                let settled = matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409));
                self.state.lock().not_bound(pod.clone(), settled, Instant::now());
                self.wake.notify_one();
                if !settled {
                    self.reporter.unschedulable(&pod.pod, &format!("binding rejected: {error}")).await;
                }
            }
        }
    }
}
