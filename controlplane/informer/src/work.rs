//! Workers: take a key, reconcile it, retry with backoff on failure.

use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use futures::future::join_all;

use crate::WorkQueue;

/// The backoff from which on a failure is no passing conflict.
const WORTH_A_LINE: Duration = Duration::from_millis(50);

/// What a successful reconcile asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until the next change.
    Done,
    /// Another look after this time.
    After(Duration),
}

/// Runs `workers` workers over `queue` until dropped. `name` is for the log.
pub async fn work<K, E, F, Fut>(name: &'static str, queue: &WorkQueue<K>, workers: usize, reconcile: F)
where
    K: Clone + Eq + Hash + Display,
    E: Display,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<Outcome, E>>,
{
    let worker = || async {
        loop {
            let key = queue.next().await;
            match reconcile(key.clone()).await {
                Ok(outcome) => {
                    queue.forget(&key);
                    if let Outcome::After(delay) = outcome {
                        queue.add_after(key.clone(), delay);
                    }
                }
                Err(error) => {
                    let delay = queue.retry(key.clone());
                    // Conflicts with other writers are daily business; what persists is worth a line.
                    if delay >= WORTH_A_LINE {
                        tracing::warn!(controller = name, %key, %error, ?delay, "reconcile failed; will retry");
                    } else {
                        tracing::debug!(controller = name, %key, %error, ?delay, "reconcile failed; will retry");
                    }
                }
            }
            queue.done(&key);
        }
    };
    join_all((0..workers).map(|_| worker())).await;
}
