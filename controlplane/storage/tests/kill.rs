//! A process that is killed while it writes loses nothing that it acknowledged.
//!
//! The test starts itself again as the victim; the victim writes and reports each acknowledgement on its output.

#[cfg(test)]
mod victim {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Write};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::time::Duration;

    use rand::Rng;
    use skep_storage::{
        EmbeddedConfig, EmbeddedStorage, Expect, Key, ResourceId, Revision, Storage, Transaction,
    };

    const VICTIM: &str = "SKEP_STORE_VICTIM";

    fn open(directory: &Path) -> EmbeddedStorage {
        EmbeddedStorage::open(&EmbeddedConfig::new(directory.join("store.redb"))).unwrap()
    }

    fn key(client: u32) -> Key {
        Key::new(ResourceId::new("", "nodes").unwrap(), None, &format!("node-{client}")).unwrap()
    }

    /// Writes until it is killed; each line is `REVISION CLIENT VALUE` of an acknowledged write.
    async fn write(directory: &Path) {
        let store = Arc::new(open(directory));
        let client = |client: u32, store: Arc<EmbeddedStorage>| async move {
            for value in 0u64.. {
                let write = Transaction::put(key(client), value.to_string(), Expect::Any);
                let revision = store.commit(write).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {revision} {client} {value}").unwrap();
                out.flush().unwrap();
            }
        };
        let clients: Vec<_> = (0..8).map(|n| tokio::spawn(client(n, Arc::clone(&store)))).collect();
        for client in clients {
            client.await.unwrap();
        }
    }

    /// Starts a victim, kills it after a while, and returns what it acknowledged.
    fn murder(directory: &Path) -> BTreeMap<u64, (u32, String)> {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim::a_killed_process_loses_nothing_acknowledged", "--nocapture"])
            .env(VICTIM, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(victim.stdout.take().unwrap());
        let mut after = Some(rand::rng().random_range(50..400));
        let mut acknowledged = BTreeMap::new();
        for line in output.lines().map(Result::unwrap) {
            let Some(("ack", rest)) = line.split_once(' ') else { continue };
            let parts: Vec<_> = rest.split(' ').collect();
            acknowledged.insert(parts[0].parse().unwrap(), (parts[1].parse().unwrap(), parts[2].to_owned()));
            if after.is_some_and(|after| acknowledged.len() > after) {
                after = None;
                victim.kill().unwrap();
            }
        }
        victim.wait().unwrap();
        acknowledged
    }

    #[tokio::test]
    async fn a_killed_process_loses_nothing_acknowledged() {
        if let Some(directory) = std::env::var_os(VICTIM) {
            let directory = PathBuf::from(directory);
            let limit = tokio::time::timeout(Duration::from_secs(60), write(&directory));
            return limit.await.unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let mut acknowledged = BTreeMap::new();
        for _ in 0..4 {
            acknowledged.extend(murder(directory.path()));
            let store = open(directory.path());
            let last = store.revision().await.unwrap();
            let history = store.history(Revision(1), last).await.unwrap();
            let log: BTreeMap<u64, _> =
                history.into_iter().map(|past| (past.revision.0, past.change)).collect();
            assert_eq!(log.len() as u64, last.0 - 1, "no gap, no duplicate");
            for (revision, (client, value)) in &acknowledged {
                let change = &log[revision];
                assert_eq!((&change.key, change.value.as_deref()), (&key(*client), Some(value.as_bytes())));
            }
        }
        assert!(acknowledged.len() > 200);
    }
}
