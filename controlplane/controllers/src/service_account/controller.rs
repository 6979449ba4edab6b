//! The shell of the default account and root CA controller.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::PostParams;
use kube::{Resource, ResourceExt};
use skep_informer::{Change, Informer, ObjectKey, Outcome, WorkQueue, work};

use super::plan::{Command, DEFAULT_ACCOUNT, ROOT_CA_MAP, plan};
use crate::context::Context;
use crate::error::{ControllerError, unless_gone};

/// Keeps the default account and the CA map in every namespace.
pub(crate) struct ServiceAccountController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

impl ServiceAccountController {
    /// Registers for namespaces, and for removals or changes of what they were given.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let informers = &context.informers;
        let sink = queue.clone();
        informers.namespaces.on_change(move |change| sink.add(ObjectKey::of(&**change.latest())));
        restore_on_change(&informers.service_accounts, &queue, DEFAULT_ACCOUNT);
        restore_on_change(&informers.root_ca_maps, &queue, ROOT_CA_MAP);
        Self { context: context.clone(), queue }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("service-accounts", &self.queue, 4, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let informers = &self.context.informers;
        let Some(namespace) = informers.namespaces.store().get(&key) else { return Ok(Outcome::Done) };
        let account =
            informers.service_accounts.store().get(&ObjectKey::namespaced(&key.name, DEFAULT_ACCOUNT));
        let map = informers.root_ca_maps.store().get(&ObjectKey::namespaced(&key.name, ROOT_CA_MAP));
        let root_ca = self.context.config.authority.certificate_pem();
        for command in plan(&namespace, account.as_deref(), map.as_deref(), root_ca) {
            self.apply(&key.name, command).await?;
        }
        Ok(Outcome::Done)
    }

    async fn apply(&self, namespace: &str, command: Command) -> Result<(), ControllerError> {
        let params = PostParams::default();
        let accounts = self.context.namespaced::<ServiceAccount>(namespace);
        let maps = self.context.namespaced::<ConfigMap>(namespace);
        match command {
            Command::CreateAccount(account) => unless_exists(accounts.create(&params, &account).await),
            Command::CreateMap(map) => unless_exists(maps.create(&params, &map).await),
            Command::RestoreMap(map) => unless_gone(maps.replace(ROOT_CA_MAP, &params, &map).await).map(drop),
        }
    }
}

/// "Already exists" and "namespace is terminating" both mean that there is nothing to do.
fn unless_exists<T>(result: Result<T, kube::Error>) -> Result<(), ControllerError> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

fn restore_on_change<K>(informer: &Informer<K>, queue: &Arc<WorkQueue<ObjectKey>>, name: &'static str)
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let sink = queue.clone();
    informer.on_change(move |change| {
        let object = change.latest();
        if object.name_any() == name && !matches!(change, Change::Added(_)) {
            sink.add(ObjectKey::cluster(object.namespace().unwrap_or_default()));
        }
    });
}
