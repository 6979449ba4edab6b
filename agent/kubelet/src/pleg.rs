//! Notices what changes in the runtime: a list every second, and the runtime's events where it has them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use skep_runtime::Backoff;
use tonic::Code;

use crate::{
    cri::{Cri, CriError, labels},
    pod::model::PodId,
    pods::Pods,
};

const POLL: Duration = Duration::from_secs(1);

/// What a list says of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sight {
    id: PodId,
    grace: i64,
    states: Vec<(String, i32)>,
}

/// Lists for ever; pokes the workers of pods that changed and reports pods nobody asked for.
pub(crate) async fn poll(cri: Cri, pods: Arc<Pods>) {
    let mut known: HashMap<String, Sight> = HashMap::new();
    let mut failing = false;
    loop {
        tokio::time::sleep(POLL).await;
        match list(&cri).await {
            Ok(seen) => {
                if failing {
                    tracing::info!("the container runtime answers again");
                }
                failing = false;
                compare(&known, &seen, &pods);
                known = seen;
            }
            Err(error) if !failing => {
                tracing::warn!(call = error.call, %error, "the container runtime does not answer");
                failing = true;
            }
            Err(_) => {}
        }
    }
}

fn compare(known: &HashMap<String, Sight>, seen: &HashMap<String, Sight>, pods: &Arc<Pods>) {
    let uids: HashSet<&String> = known.keys().chain(seen.keys()).collect();
    for uid in uids {
        let now = seen.get(uid);
        if known.get(uid) != now {
            pods.poke(uid);
        }
        if let Some(sight) = now.filter(|_| pods.is_synced() && !pods.has(uid)) {
            pods.orphan(sight.id.clone(), sight.grace);
        }
    }
}

async fn list(cri: &Cri) -> Result<HashMap<String, Sight>, CriError> {
    let mut seen: HashMap<String, Sight> = HashMap::new();
    for sandbox in cri.sandboxes(None).await? {
        let grace = sandbox.annotations.get(labels::GRACE).and_then(|g| g.parse().ok());
        note(&mut seen, &sandbox.labels, grace, sandbox.id, sandbox.state);
    }
    for container in cri.containers(None).await? {
        let grace = container.annotations.get(labels::GRACE).and_then(|g| g.parse().ok());
        note(&mut seen, &container.labels, grace, container.id, container.state);
    }
    seen.values_mut().for_each(|sight| sight.states.sort());
    Ok(seen)
}

fn note(
    seen: &mut HashMap<String, Sight>,
    labels: &HashMap<String, String>,
    grace: Option<i64>,
    object: String,
    state: i32,
) {
    let Some(id) = labels::pod_of(labels) else { return };
    let sight = seen.entry(id.uid.clone()).or_insert_with(|| Sight {
        id,
        grace: grace.unwrap_or(30),
        states: Vec::new(),
    });
    sight.states.push((object, state));
}

/// Follows the runtime's event stream for ever, or returns when it has none.
pub(crate) async fn follow(cri: Cri, pods: Arc<Pods>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        match cri.events().await {
            Ok(mut stream) => {
                backoff.reset();
                while let Ok(Some(event)) = stream.message().await {
                    if let Some(metadata) = event.pod_sandbox_status.and_then(|s| s.metadata) {
                        pods.poke(&metadata.uid);
                    }
                }
            }
            Err(error) if error.status.code() == Code::Unimplemented => {
                tracing::info!("the container runtime has no event stream; it is polled");
                return;
            }
            Err(error) => tracing::debug!(%error, "no event stream"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
