//! One suite for every store: memory, embedded, and a real etcd.

#[cfg(test)]
mod etcd_server;
#[cfg(test)]
mod suite;

#[cfg(test)]
mod stores {
    use std::sync::Arc;

    use async_trait::async_trait;
    use skep_storage::{
        EmbeddedConfig, EmbeddedStorage, EtcdConfig, EtcdStorage, MemoryStorage, Offset, Storage,
    };

    use crate::etcd_server::EtcdServer;

    /// A store under test that can be opened again with what it holds.
    #[async_trait]
    pub(crate) trait Subject: Send + Sync {
        /// Opens it; the one opened before must have been dropped.
        async fn open(&self, offset: Offset) -> Arc<dyn Storage>;
    }

    pub(crate) struct Embedded(tempfile::TempDir);

    impl Embedded {
        pub(crate) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
    }

    #[async_trait]
    impl Subject for Embedded {
        async fn open(&self, offset: Offset) -> Arc<dyn Storage> {
            let config = EmbeddedConfig { offset, ..EmbeddedConfig::new(self.0.path().join("store.redb")) };
            Arc::new(EmbeddedStorage::open(&config).unwrap())
        }
    }

    pub(crate) struct Etcd(EtcdServer);

    impl Etcd {
        pub(crate) fn new() -> Self {
            Self(EtcdServer::start(&std::env::temp_dir()).unwrap())
        }
    }

    #[async_trait]
    impl Subject for Etcd {
        async fn open(&self, offset: Offset) -> Arc<dyn Storage> {
            let config = EtcdConfig { offset, ..EtcdConfig::new(vec![self.0.endpoint()]) };
            Arc::new(EtcdStorage::connect(&config).await.unwrap())
        }
    }

    /// Keeps its store: memory has nothing to open again.
    pub(crate) struct Memory(tokio::sync::OnceCell<Arc<dyn Storage>>);

    impl Memory {
        pub(crate) fn new() -> Self {
            Self(tokio::sync::OnceCell::new())
        }
    }

    #[async_trait]
    impl Subject for Memory {
        async fn open(&self, offset: Offset) -> Arc<dyn Storage> {
            let make = || async move { Arc::new(MemoryStorage::with_offset(offset)) as Arc<dyn Storage> };
            Arc::clone(self.0.get_or_init(make).await)
        }
    }
}

#[cfg(test)]
macro_rules! conformance {
    ($subject:ident, $module:ident, [$($check:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    crate::suite::$check(&crate::stores::$subject::new()).await;
                }
            )*
        }
    };
}

#[cfg(test)]
macro_rules! every_store {
    ($($check:ident),* $(,)?) => {
        conformance!(Memory, memory, [$($check),*]);
        conformance!(Embedded, embedded, [$($check),*]);
        conformance!(Etcd, etcd, [$($check),*]);
    };
}

#[cfg(test)]
every_store!(
    puts_are_read_back_at_their_revision,
    preconditions_hold_or_nothing_is_written,
    transactions_are_all_or_nothing,
    deletes_remove_and_absent_deletes_change_nothing,
    malformed_transactions_are_refused,
    a_tail_brings_the_past_then_the_present_exactly_once,
    history_shows_what_each_change_replaced,
    compaction_forgets_the_past_but_not_the_state,
    concurrent_increments_lose_nothing,
    a_tail_rebuilds_the_state_under_concurrent_writes,
    a_role_has_one_leader_at_a_time,
    served_revisions_start_after_the_offset,
    a_cache_resumes_watches_across_a_restart,
    a_cache_starts_over_when_its_past_is_compacted,
);

#[cfg(test)]
mod reopened {
    //! What only stores that outlive their process can show.

    use crate::stores::{Embedded, Etcd};
    use crate::suite;

    #[tokio::test]
    async fn embedded_raises_its_offset_and_hides_the_older_past() {
        suite::a_raised_offset_hides_what_was_served_before(&Embedded::new()).await;
    }

    #[tokio::test]
    async fn etcd_raises_its_offset_and_hides_the_older_past() {
        suite::a_raised_offset_hides_what_was_served_before(&Etcd::new()).await;
    }
}
