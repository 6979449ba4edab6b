//! Readiness by tokens: whoever must be ready first holds a token and marks it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

/// The set of named conditions a process waits for before it calls itself ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<String, bool>>>,
    changed: Arc<watch::Sender<()>>,
}

/// One condition. Dropping it unmarked leaves the process not ready.
#[derive(Debug)]
pub struct ReadyToken {
    name: String,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { checks: Arc::default(), changed: Arc::new(watch::Sender::new(())) }
    }
}

impl Readiness {
    /// Registers a condition, not yet met.
    pub fn token(&self, name: &str) -> ReadyToken {
        self.set(name, false);
        ReadyToken { name: name.to_owned(), readiness: self.clone() }
    }

    /// Every condition and whether it is met, by name.
    pub fn report(&self) -> BTreeMap<String, bool> {
        self.checks.lock().clone()
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        self.checks.lock().values().all(|met| *met)
    }

    /// Resolves once every condition is met.
    pub async fn ready(&self) {
        let mut changes = self.changed.subscribe();
        while !self.is_ready() {
            // The sender lives in `self`, so waiting cannot fail.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn set(&self, name: &str, met: bool) {
        self.checks.lock().insert(name.to_owned(), met);
        self.changed.send_replace(());
    }
}

impl ReadyToken {
    /// The condition is met.
    pub fn ready(&self) {
        self.readiness.set(&self.name, true);
    }

    /// The condition is no longer met.
    pub fn unready(&self) {
        self.readiness.set(&self.name, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_ready_when_every_token_is() {
        let readiness = Readiness::default();
        let (store, api) = (readiness.token("store"), readiness.token("api"));
        store.ready();
        assert!(!readiness.is_ready());
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        api.ready();
        assert!(waiting.await.is_ok());
        store.unready();
        assert!(!readiness.report()["store"]);
    }
}
