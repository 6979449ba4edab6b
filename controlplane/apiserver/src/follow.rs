//! Keeps the RBAC policy equal to the stored roles and bindings, and the rules of aggregated ClusterRoles equal to
//! those of the roles they select.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, SelectAll};
use serde_json::Value;
use skep_storage::{EventKind, Object, Op, ResourceId, WatchItem};

use crate::authz::policy::{GROUP, RbacKind};
use crate::meta;
use crate::selector::object_selector_matches;
use crate::state::State;
use crate::store;

const RETRY: Duration = Duration::from_millis(500);

/// Puts the seeds in force until the store has its own, so that nobody is refused while they are being written.
pub fn load_seeds(state: &State) {
    let mut policy = state.policy.write();
    for seed in crate::authz::seed::seeds() {
        let (namespace, name) = (meta::text(&seed.object, "namespace"), meta::text(&seed.object, "name"));
        policy.apply(seed.kind, namespace, name, 0, Some(&seed.object));
    }
}

/// Reads every role and binding once, and forgets those that are gone.
pub fn load(state: &State) {
    let revision = state.store.cache().revision();
    for kind in RbacKind::ALL {
        let objects = state.store.objects(GROUP, kind.plural(), None);
        for object in &objects {
            apply(state, kind, object, false);
        }
        let present: HashSet<(String, String)> = objects.iter().map(|object| place(object)).collect();
        state.policy.write().retain(kind, revision.0, |namespace, name| {
            present.contains(&(namespace.to_owned(), name.to_owned()))
        });
    }
}

fn place(object: &Object) -> (String, String) {
    let key = object.key();
    (key.namespace().unwrap_or_default().to_owned(), key.name().to_owned())
}

fn apply(state: &State, kind: RbacKind, object: &Object, deleted: bool) {
    let value = if deleted { None } else { store::decode(object).ok() };
    let key = object.key();
    let namespace = key.namespace().unwrap_or_default();
    state.policy.write().apply(kind, namespace, key.name(), object.revision().0, value.as_ref());
}

/// Follows the store for ever; a watch that ends begins again with a fresh reading.
pub async fn run(state: Arc<State>) {
    loop {
        follow(&state).await;
        tokio::time::sleep(RETRY).await;
        load(&state);
    }
}

async fn follow(state: &State) {
    let from = state.store.cache().revision();
    load(state);
    aggregate(state).await;
    let mut events = SelectAll::new();
    for kind in RbacKind::ALL {
        let Ok(id) = ResourceId::new(GROUP, kind.plural()) else { return };
        match state.store.cache().watch(&id, None, from) {
            // Each watch says that it has ended: one that fell behind must not be missed for the sake of the others.
            Ok(watcher) => {
                let items = watcher.map(Some).chain(stream::iter([None]));
                events.push(items.map(move |item| (kind, item)).boxed());
            }
            Err(expired) => {
                tracing::warn!(%expired, "the policy watch begins again");
                return;
            }
        }
    }
    while let Some((kind, Some(item))) = events.next().await {
        if let WatchItem::Event(event) = item {
            apply(state, kind, &event.object, event.kind == EventKind::Deleted);
            if kind == RbacKind::ClusterRole {
                aggregate(state).await;
            }
        }
    }
    tracing::info!("a policy watch has ended: roles and bindings are read anew");
}

/// Writes the rules of every aggregated role whose sources have changed.
pub async fn aggregate(state: &State) {
    let objects = state.store.objects(GROUP, "clusterroles", None);
    let roles: Vec<(Arc<Object>, Value)> =
        objects.into_iter().filter_map(|o| store::decode(&o).ok().map(|v| (o, v))).collect();
    for (object, role) in roles.iter().filter(|(_, role)| role["aggregationRule"].is_object()) {
        let rules = collected(role, roles.iter().map(|(_, other)| other));
        if role["rules"].as_array().map(Vec::as_slice).unwrap_or_default() != rules {
            write_rules(state, object, role, rules).await;
        }
    }
}

fn collected<'a>(role: &Value, others: impl Iterator<Item = &'a Value> + Clone) -> Vec<Value> {
    let own = meta::text(role, "name");
    let mut rules: Vec<Value> = Vec::new();
    for selector in role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
        for other in others.clone().filter(|other| meta::text(other, "name") != own) {
            if object_selector_matches(selector, &labels(other)) {
                let found = other["rules"].as_array().into_iter().flatten();
                for rule in found {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
    }
    rules
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let map = object["metadata"]["labels"].as_object().into_iter().flatten();
    map.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

async fn write_rules(state: &State, object: &Object, role: &Value, rules: Vec<Value>) {
    let registry = state.registry.snapshot();
    let Some(resource) = registry.lookup(GROUP, "v1", "clusterroles") else { return };
    let mut role = role.clone();
    role["rules"] = rules.into();
    let value = resource.canonical(&role);
    let op = Op::Put { key: object.key().clone(), value, expect: store::unchanged(object) };
    // Whoever came in between causes another event, and this runs again.
    if let Err(error) = state.commit(vec![op]).await {
        tracing::debug!(?error, "an aggregated role changed meanwhile");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn collects_rules_of_selected_roles_once() {
        let rule = json!({"verbs": ["get"]});
        let aggregated = json!({"metadata": {"name": "a"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}});
        let one = json!({"metadata": {"name": "b", "labels": {"x": "y"}}, "rules": [rule]});
        let two = json!({"metadata": {"name": "c", "labels": {"x": "y"}}, "rules": [rule]});
        let other = json!({"metadata": {"name": "d"}, "rules": [{"verbs": ["*"]}]});
        let all = [aggregated.clone(), one, two, other];
        assert_eq!(collected(&aggregated, all.iter()), vec![rule]);
    }
}
