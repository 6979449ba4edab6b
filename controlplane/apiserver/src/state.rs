//! What every stage can reach: settings, store, registry, policy, keys. Built once, shared by all requests.

use parking_lot::RwLock;
use skep_storage::{Committed, Op};
use tokio_util::sync::CancellationToken;

use crate::authn::jwt::TokenSigner;
use crate::authz::policy::{Policy, RbacKind};
use crate::config::ApiServerConfig;
use crate::document::rendered::Documents;
use crate::metrics::Metrics;
use crate::proxy::KubeletClient;
use crate::registry_view::RegistryView;
use crate::service::Services;
use crate::store::{self, Store, WriteError};

/// Shared state of the API server.
pub struct State {
    /// Settings.
    pub config: ApiServerConfig,
    /// Objects.
    pub store: Store,
    /// Resources.
    pub registry: RegistryView,
    /// RBAC policy in force.
    pub policy: RwLock<Policy>,
    /// Service-account tokens.
    pub tokens: TokenSigner,
    /// Documents made from the registry.
    pub documents: Documents,
    /// Service addresses and node ports.
    pub services: Services,
    /// Way to the kubelets, when configured.
    pub kubelets: Option<KubeletClient>,
    /// Counters.
    pub metrics: Metrics,
    /// Ends long-running requests.
    pub drain: CancellationToken,
    /// Whether the bootstrap objects are written.
    pub bootstrapped: std::sync::atomic::AtomicBool,
}

impl State {
    /// Commits, and lets the writer's own RBAC changes bite at once.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Committed, WriteError> {
        let committed = self.store.commit(ops).await?;
        for object in committed.objects.iter().flatten() {
            let key = object.key();
            if key.resource().group() == crate::authz::policy::GROUP
                && let Some(kind) = RbacKind::of(key.resource().resource())
            {
                let alive =
                    self.store.cache().get(key).is_some_and(|now| now.revision() == object.revision());
                let value = alive.then(|| store::decode(object).ok()).flatten();
                let namespace = key.namespace().unwrap_or_default();
                self.policy.write().apply(kind, namespace, key.name(), object.revision().0, value.as_ref());
            }
        }
        Ok(committed)
    }
}
