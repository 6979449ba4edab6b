//! Orderly shutdown as a value: tasks hold a [`Drain`], the composition root holds the [`DrainTrigger`].

use std::{future::Future, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Tells its holder when to stop, and keeps the process alive until tracked tasks have.
#[derive(Debug, Clone)]
pub struct Drain {
    token: CancellationToken,
    tasks: TaskTracker,
}

/// The other end: starts the drain and waits for the tracked tasks.
#[derive(Debug)]
pub struct DrainTrigger {
    drain: Drain,
}

impl Drain {
    /// A connected pair.
    pub fn new() -> (DrainTrigger, Drain) {
        let drain = Self { token: CancellationToken::new(), tasks: TaskTracker::new() };
        (DrainTrigger { drain: drain.clone() }, drain)
    }

    /// Resolves once the process is asked to stop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.token.is_cancelled()
    }

    /// A drain of a part: cancelled with this one, or alone by [`DrainTrigger::drain`] of the pair returned.
    pub fn child(&self) -> (DrainTrigger, Drain) {
        let drain = Self { token: self.token.child_token(), tasks: TaskTracker::new() };
        (DrainTrigger { drain: drain.clone() }, drain)
    }

    /// Spawns a task that the trigger waits for. The task must end soon after [`Drain::cancelled`].
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Spawns a task that is dropped at its next await point when the drain begins.
    pub fn spawn_until_drained<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.tasks.spawn(async move {
            token.run_until_cancelled(task).await;
        })
    }

    /// The underlying token, for APIs that take one.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl DrainTrigger {
    /// Asks every holder to stop and waits for tracked tasks, at most until `deadline` has passed.
    /// Returns whether all of them ended in time.
    pub async fn drain(self, deadline: Duration) -> bool {
        self.drain.token.cancel();
        self.drain.tasks.close();
        tokio::time::timeout(deadline, self.drain.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_tracked_tasks() {
        let (trigger, drain) = Drain::new();
        let held = drain.clone();
        drain.spawn(async move { held.cancelled().await });
        assert!(trigger.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn gives_up_at_the_deadline() {
        let (trigger, drain) = Drain::new();
        drain.spawn(std::future::pending::<()>());
        assert!(!trigger.drain(Duration::from_millis(10)).await);
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_but_not_the_other_way_round() {
        let (trigger, drain) = Drain::new();
        let (child_trigger, child) = drain.child();
        assert!(child_trigger.drain(Duration::from_secs(1)).await);
        assert!(child.is_draining() && !drain.is_draining());
        let (_second, child) = drain.child();
        trigger.drain(Duration::from_secs(1)).await;
        assert!(child.is_draining());
    }
}
