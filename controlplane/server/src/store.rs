//! Opening the store that the command line names.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use skep_storage::{EmbeddedConfig, EmbeddedStorage, EtcdConfig, EtcdStorage, Storage};

use crate::args::StoreChoice;

/// Opens the store.
pub(crate) async fn open(choice: &StoreChoice, data_dir: &Path) -> Result<Arc<dyn Storage>> {
    match choice {
        StoreChoice::Embedded => {
            let directory = data_dir.join("store");
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create the store's directory {}", directory.display()))?;
            // Opening checks the file, and repairs it after a crash.
            let config = EmbeddedConfig::new(directory.join("skep.redb"));
            let opened = tokio::task::spawn_blocking(move || EmbeddedStorage::open(&config)).await;
            Ok(Arc::new(
                opened.context("opening the store was interrupted")?.context("cannot open the store")?,
            ))
        }
        StoreChoice::Etcd(endpoints) => Ok(Arc::new(etcd(endpoints).await?)),
    }
}

/// Connects to etcd.
pub(crate) async fn etcd(endpoints: &[String]) -> Result<EtcdStorage> {
    let config = EtcdConfig::new(endpoints.to_vec());
    EtcdStorage::connect(&config).await.with_context(|| format!("cannot use etcd at {}", endpoints.join(",")))
}
