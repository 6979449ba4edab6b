//! Answers of the API by key: fresh for a few seconds, and kept longer for when the API is away.

use std::{
    collections::HashMap,
    future::Future,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::session::CallError;

/// Answers that nobody asked for in this time are forgotten.
const KEEP: Duration = Duration::from_secs(6 * 3600);

#[derive(Debug)]
struct Entry<T> {
    fetched: Instant,
    used: Instant,
    value: T,
}

/// The answers.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    fresh_for: Duration,
    entries: Mutex<HashMap<(String, String), Entry<T>>>,
}

impl<T: Clone> Cache<T> {
    /// An empty cache whose answers are used unasked for `fresh_for`.
    pub(crate) fn new(fresh_for: Duration) -> Self {
        Self { fresh_for, entries: Mutex::default() }
    }

    /// The fresh answer, or what `fetch` brings, or the last answer when the API does not answer at all.
    pub(crate) async fn get(
        &self,
        namespace: &str,
        name: &str,
        fetch: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.look(&key);
        if let Some((value, true)) = known {
            return Ok(value);
        }
        match (fetch.await, known) {
            (Ok(value), _) => {
                let now = Instant::now();
                self.entries.lock().insert(key, Entry { fetched: now, used: now, value: value.clone() });
                Ok(value)
            }
            // An answer is an answer, even "forbidden"; silence and a broken server are not.
            (Err(error), Some((value, _))) if error.code().is_none_or(|code| code >= 500) => {
                tracing::debug!(namespace, name, %error, "the API is away: the last answer is used");
                Ok(value)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// What is known, and whether it is fresh.
    fn look(&self, key: &(String, String)) -> Option<(T, bool)> {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| entry.used.elapsed() < KEEP);
        let entry = entries.get_mut(key)?;
        entry.used = Instant::now();
        Some((entry.value.clone(), entry.fetched.elapsed() < self.fresh_for))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> CallError {
        CallError::Api(kube::Error::Api(Box::new(
            kube::core::Status::failure("no", "Forbidden").with_code(403),
        )))
    }

    #[tokio::test]
    async fn a_fresh_answer_is_not_asked_for_again() {
        let cache = Cache::new(Duration::from_secs(60));
        assert_eq!(cache.get("n", "a", async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(cache.get("n", "a", async { Ok(2) }).await.unwrap(), 1);
        assert_eq!(cache.get("n", "b", async { Ok(3) }).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn the_last_answer_serves_while_the_api_is_away() {
        let cache = Cache::new(Duration::ZERO);
        assert!(cache.get("n", "a", async { Err::<i32, _>(CallError::Timeout) }).await.is_err());
        cache.get("n", "a", async { Ok(1) }).await.unwrap();
        assert_eq!(cache.get("n", "a", async { Err(CallError::Timeout) }).await.unwrap(), 1);
        assert!(cache.get("n", "a", async { Err(refused()) }).await.is_err(), "a refusal is an answer");
    }
}
