//! A store that counts and times what it is asked.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

use crate::{
    CommitError, History, Leadership, Revision, Snapshot, Storage, StorageError, Tail, TailError, Transaction,
};

/// Outcomes of a commit, as the label `outcome`.
const OUTCOMES: [&str; 4] = ["committed", "conflict", "refused", "unknown"];

/// What a store is asked and how it answers.
#[derive(Clone, Debug)]
pub struct StorageMetrics {
    commits: IntCounterVec,
    durations: Histogram,
    revision: IntGauge,
}

impl StorageMetrics {
    /// Registers the metrics.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let commits = Opts::new("skep_store_commits_total", "Transactions by outcome.");
        let commits = IntCounterVec::new(commits, &["outcome"])?;
        for outcome in OUTCOMES {
            commits.with_label_values(&[outcome]);
        }
        let durations = HistogramOpts::new(
            "skep_store_commit_duration_seconds",
            "Time from a transaction to its durable acknowledgement.",
        );
        let durations =
            durations.buckets(vec![0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0]);
        let durations = Histogram::with_opts(durations)?;
        let revision =
            IntGauge::new("skep_store_revision", "Revision of the last transaction committed here.")?;
        registry.register(Box::new(commits.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(revision.clone()))?;
        Ok(Self { commits, durations, revision })
    }

    fn observe(&self, began: Instant, outcome: &Result<Revision, CommitError>) {
        let label = match outcome {
            Ok(revision) => {
                self.durations.observe(began.elapsed().as_secs_f64());
                self.revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
                "committed"
            }
            Err(CommitError::Conflict { .. }) => "conflict",
            Err(CommitError::OutcomeUnknown(_)) => "unknown",
            Err(_) => "refused",
        };
        self.commits.with_label_values(&[label]).inc();
    }
}

/// A store with metrics.
pub struct Metered {
    inner: Arc<dyn Storage>,
    metrics: StorageMetrics,
}

impl Metered {
    /// Counts what `inner` is asked.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, metrics: StorageMetrics) -> Self {
        Self { inner, metrics }
    }
}

#[async_trait]
impl Storage for Metered {
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let began = Instant::now();
        let outcome = self.inner.commit(transaction).await;
        self.metrics.observe(began, &outcome);
        outcome
    }

    async fn revision(&self) -> Result<Revision, StorageError> {
        self.inner.revision().await
    }

    async fn scan(&self) -> Result<Snapshot, StorageError> {
        self.inner.scan().await
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        self.inner.tail(after).await
    }

    async fn history(&self, after: Revision, through: Revision) -> Result<Vec<History>, TailError> {
        self.inner.history(after, through).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StorageError> {
        self.inner.compact(through).await
    }

    async fn campaign(&self, role: &str, identity: &str) -> Result<Leadership, StorageError> {
        self.inner.campaign(role, identity).await
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;
    use crate::{Expect, Key, MemoryStorage, ResourceId};

    #[tokio::test]
    async fn counts_commits_by_outcome() {
        let registry = Registry::new();
        let metrics = StorageMetrics::register(&registry).unwrap();
        let store = Metered::new(Arc::new(MemoryStorage::new()), metrics);
        let key = Key::new(ResourceId::new("", "pods").unwrap(), Some("default"), "a").unwrap();
        for _ in 0..3 {
            let create = Transaction::put(key.clone(), "{}", Expect::Absent);
            // One succeeds, two find the object there.
            let _ = store.commit(create).await;
        }
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            r#"skep_store_commits_total{outcome="committed"} 1"#,
            r#"skep_store_commits_total{outcome="conflict"} 2"#,
            r#"skep_store_commits_total{outcome="unknown"} 0"#,
            "skep_store_commit_duration_seconds_count 1",
            "skep_store_revision 2",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
