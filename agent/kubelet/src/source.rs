//! Where pods come from: the API's watch of `spec.nodeName`, opened again with each new certificate.

use std::{collections::HashSet, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};

use crate::{pods::Pods, session::Session};

/// Seconds after which the server ends the watch, so that a dead connection is noticed.
const WATCH_SECONDS: u32 = 60;

/// Feeds `pods` for ever.
pub(crate) async fn run(session: Arc<Session>, node: String, pods: Arc<Pods>) {
    let mut changes = session.changes();
    loop {
        changes.borrow_and_update();
        tokio::select! {
            () = watch(&session, &node, &pods) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn watch(session: &Session, node: &str, pods: &Arc<Pods>) {
    let api: Api<Pod> = Api::all(session.client());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}")).timeout(WATCH_SECONDS);
    let mut events = watcher::watcher(api, config).default_backoff().boxed();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.extend(pod.metadata.uid.clone());
                pods.apply(pod);
            }
            Ok(Event::InitDone) => {
                tracing::info!(pods = listed.len(), "pods listed");
                pods.retain(&listed);
            }
            Ok(Event::Apply(pod)) => pods.apply(pod),
            Ok(Event::Delete(pod)) => pods.remove(pod),
            Err(error) => tracing::warn!(%error, "the pod watch broke; pods run on"),
        }
    }
}
