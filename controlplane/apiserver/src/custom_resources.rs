//! Custom resources: a definition becomes served once its names are accepted, stops when it is deleted, and is only
//! gone when its objects are.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skep_registry::Registry;
use skep_storage::{Expect, Object, Op, ResourceId, WatchItem};

use crate::meta;
use crate::state::State;
use crate::store;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const RETRY: Duration = Duration::from_millis(500);

/// Installs every established definition.
pub fn load(state: &State) {
    for definition in state.store.values(GROUP, PLURAL, None) {
        if condition(&definition, "Established") == Some("True") {
            install(state, &definition);
        }
    }
}

/// Follows the definitions for ever.
pub async fn run(state: Arc<State>) {
    loop {
        follow(&state).await;
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(state: &State) {
    let Ok(id) = ResourceId::new(GROUP, PLURAL) else { return };
    let from = state.store.cache().revision();
    for object in state.store.objects(GROUP, PLURAL, None) {
        reconcile(state, &object).await;
    }
    let Ok(mut watcher) = state.store.cache().watch(&id, None, from) else { return };
    while let Some(item) = watcher.next().await {
        let WatchItem::Event(event) = item else { continue };
        match state.store.cache().get(event.object.key()) {
            Some(present) => reconcile(state, &present).await,
            None => {
                if let Ok(definition) = store::decode(&event.object) {
                    state.registry.change(|registry| registry.remove_crd(&definition));
                }
            }
        }
    }
}

async fn reconcile(state: &State, object: &Object) {
    let Ok(definition) = store::decode(object) else { return };
    if meta::is_deleting(&definition) {
        return clean_up(state, object, definition).await;
    }
    let conflict = name_conflict(&state.registry.snapshot(), &definition);
    if conflict.is_none() {
        install(state, &definition);
    }
    let settled = with_status(&definition, conflict);
    if settled["status"] != definition["status"] {
        write(state, object, settled).await;
    }
}

/// Marks a definition whose deletion begins: its objects go first. Returns its finalizers.
pub fn terminate(definition: &mut Value) -> Vec<String> {
    let mut finalizers = meta::finalizers(definition);
    if !finalizers.iter().any(|f| f == CLEANUP) {
        finalizers.push(CLEANUP.to_owned());
    }
    meta::set_finalizers(definition, &finalizers);
    let message = "CustomResource deletion is in progress";
    set_condition(definition, "Terminating", "True", "InstanceDeletionInProgress", message);
    finalizers
}

fn install(state: &State, definition: &Value) {
    state.registry.change(|registry| {
        if let Err(error) = registry.install_crd(definition) {
            tracing::warn!(name = meta::text(definition, "name"), %error, "a custom resource cannot be served");
        }
    });
}

/// Why the names of a definition cannot be accepted.
fn name_conflict(registry: &Registry, definition: &Value) -> Option<String> {
    let spec = &definition["spec"];
    let (group, plural) = (spec["group"].as_str()?, spec["names"]["plural"].as_str()?);
    let kind = spec["names"]["kind"].as_str()?;
    let other = registry
        .resources()
        .iter()
        .find(|r| *r.group == *group && &*r.plural != plural && &*r.kind == kind)?;
    Some(format!("kind {kind:?} is already in use by {}.{group}", other.plural))
}

fn with_status(definition: &Value, conflict: Option<String>) -> Value {
    let mut out = definition.clone();
    let (accepted, reason, message) = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some(why) => ("False", "KindConflict", why.clone()),
    };
    set_condition(&mut out, "NamesAccepted", accepted, reason, &message);
    if conflict.is_none() {
        set_condition(
            &mut out,
            "Established",
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        );
    } else if condition(&out, "Established").is_none() {
        set_condition(&mut out, "Established", "False", "NotAccepted", "not all names are accepted");
    }
    if conflict.is_none() {
        out["status"]["acceptedNames"] = out["spec"]["names"].clone();
    } else if out["status"]["acceptedNames"].is_null() {
        out["status"]["acceptedNames"] = json!({"plural": "", "kind": ""});
    }
    if out["status"]["storedVersions"].as_array().is_none_or(Vec::is_empty) {
        let stored = out["spec"]["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == true);
        out["status"]["storedVersions"] = json!([stored.map(|v| v["name"].clone())]);
    }
    out
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a str> {
    let list = definition["status"]["conditions"].as_array()?;
    list.iter().find(|c| c["type"] == kind)?["status"].as_str()
}

fn set_condition(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    if condition(definition, kind) == Some(status) {
        return;
    }
    let condition = json!({
        "type": kind, "status": status, "lastTransitionTime": meta::now(), "reason": reason, "message": message,
    });
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    match definition["status"]["conditions"].as_array_mut() {
        Some(list) => match list.iter_mut().find(|c| c["type"] == kind) {
            Some(present) => *present = condition,
            None => list.push(condition),
        },
        None => definition["status"]["conditions"] = json!([condition]),
    }
}

async fn write(state: &State, object: &Object, definition: Value) {
    let registry = state.registry.snapshot();
    let Some(resource) = registry.lookup(GROUP, "v1", PLURAL) else { return };
    let value = resource.canonical(&definition);
    let op = Op::Put { key: object.key().clone(), value, expect: store::unchanged(object) };
    // A conflict means another event, and this runs again.
    if let Err(error) = state.commit(vec![op]).await {
        tracing::debug!(?error, "a custom resource definition changed meanwhile");
    }
}

/// Deletes the objects of a definition on its way out, then lets it go.
async fn clean_up(state: &State, object: &Object, mut definition: Value) {
    let mut finalizers = meta::finalizers(&definition);
    if !finalizers.iter().any(|f| f == CLEANUP) {
        return;
    }
    let (group, plural) =
        (definition["spec"]["group"].clone(), definition["spec"]["names"]["plural"].clone());
    let (group, plural) = (group.as_str().unwrap_or_default(), plural.as_str().unwrap_or_default());
    for instance in state.store.objects(group, plural, None) {
        let op = Op::Delete { key: instance.key().clone(), expect: Expect::Any };
        if let Err(error) = state.commit(vec![op]).await {
            tracing::warn!(?error, "an object of a deleted custom resource stays for now");
            return;
        }
    }
    state.registry.change(|registry| registry.remove_crd(&definition));
    finalizers.retain(|f| f != CLEANUP);
    meta::set_finalizers(&mut definition, &finalizers);
    if finalizers.is_empty() {
        let op = Op::Delete { key: object.key().clone(), expect: store::unchanged(object) };
        if let Err(error) = state.commit(vec![op]).await {
            tracing::debug!(?error, "a custom resource definition changed meanwhile");
        }
    } else {
        write(state, object, definition).await;
    }
}
