//! Opening the store that the command line names, and moving to another one.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use skep_runtime::Drain;
use skep_storage::{EmbeddedConfig, EmbeddedStorage, EtcdConfig, EtcdStorage, Offset, Storage, migrate};

use crate::args::{Args, StoreChoice};

/// Opens the store.
pub(crate) async fn open(args: &Args, drain: &Drain) -> Result<Arc<dyn Storage>> {
    open_choice(&args.store, &args.data_dir, Offset(args.revision_offset), drain).await
}

/// Copies everything into `target`, whose revisions go on where this store's end.
pub(crate) async fn migrate_to(args: &Args, target: &StoreChoice, drain: &Drain) -> Result<()> {
    if *target == args.store {
        bail!("--migrate-to names the store that --store names already");
    }
    let source = open(args, drain).await?;
    let last = source.revision().await.context("cannot read the store's revision")?;
    let offset = Offset(last.0.max(args.revision_offset));
    let target = open_choice(target, &args.data_dir, offset, drain).await?;
    let moved = migrate(&*source, &*target).await.context("the store was not moved")?;
    tracing::info!(objects = moved.objects, from = %moved.from, to = %moved.to, "the store is moved");
    Ok(())
}

/// Connects to etcd.
pub(crate) async fn etcd(endpoints: &[String], offset: Offset) -> Result<EtcdStorage> {
    let config = EtcdConfig { offset, ..EtcdConfig::new(endpoints.to_vec()) };
    EtcdStorage::connect(&config).await.with_context(|| format!("cannot use etcd at {}", endpoints.join(",")))
}

async fn open_choice(
    choice: &StoreChoice,
    data_dir: &Path,
    offset: Offset,
    drain: &Drain,
) -> Result<Arc<dyn Storage>> {
    match choice {
        StoreChoice::Embedded => {
            let directory = data_dir.join("store");
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create the store's directory {}", directory.display()))?;
            let config = EmbeddedConfig { offset, ..EmbeddedConfig::new(directory.join("skep.redb")) };
            // Opening checks the file, and repairs it after a crash.
            let opened = tokio::task::spawn_blocking(move || EmbeddedStorage::open(&config)).await;
            let store =
                opened.context("opening the store was interrupted")?.context("cannot open the store")?;
            watch_over(&store, drain);
            Ok(Arc::new(store))
        }
        StoreChoice::Etcd(endpoints) => Ok(Arc::new(etcd(endpoints, offset).await?)),
    }
}

/// Ends the process when its store has failed: opening it again, which its supervisor does by starting the process
/// anew, also repairs it.
fn watch_over(store: &EmbeddedStorage, drain: &Drain) {
    let failure = store.failure();
    drain.spawn_until_drained(async move {
        failure.await;
        tracing::error!("the store has failed: the process ends, to be started anew");
        std::process::exit(1);
    });
}
