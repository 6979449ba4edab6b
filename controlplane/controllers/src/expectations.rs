//! What a controller has done that its informer has not shown yet.
//!
//! Between creating a pod and seeing it in the store, a second reconcile of the same owner would create it again.
//! Expectations are recorded before the write and met by the watch (or by the write's failure); while some are open
//! the owner is not planned again. They expire, so that a lost event delays an owner and never stops it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skep_informer::ObjectKey;

const EXPIRY: Duration = Duration::from_secs(300);

/// Open expectations by owner.
#[derive(Default)]
pub(crate) struct Expectations {
    owners: Mutex<HashMap<ObjectKey, Open>>,
}

struct Open {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether nothing is open for `owner` (or it has expired).
    pub(crate) fn satisfied(&self, owner: &ObjectKey, now: Instant) -> bool {
        match self.owners.lock().get(owner) {
            None => true,
            Some(open) => {
                (open.creations == 0 && open.deletions.is_empty()) || now.duration_since(open.since) > EXPIRY
            }
        }
    }

    /// Replaces what is expected for `owner`: so many creations, and the deletion of these uids.
    pub(crate) fn set(
        &self,
        owner: &ObjectKey,
        creations: usize,
        deletions: impl IntoIterator<Item = String>,
        now: Instant,
    ) {
        let open = Open { creations, deletions: deletions.into_iter().collect(), since: now };
        self.owners.lock().insert(owner.clone(), open);
    }

    /// `count` creations were seen, or will not happen.
    pub(crate) fn created(&self, owner: &ObjectKey, count: usize) {
        if let Some(open) = self.owners.lock().get_mut(owner) {
            open.creations = open.creations.saturating_sub(count);
        }
    }

    /// The deletion of `uid` was seen, or will not happen.
    pub(crate) fn deleted(&self, owner: &ObjectKey, uid: &str) {
        if let Some(open) = self.owners.lock().get_mut(owner) {
            open.deletions.remove(uid);
        }
    }

    /// Forgets an owner that is gone.
    pub(crate) fn forget(&self, owner: &ObjectKey) {
        self.owners.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_waits_until_every_write_was_seen() {
        let (expectations, owner, now) =
            (Expectations::default(), ObjectKey::namespaced("ns", "rs"), Instant::now());
        assert!(expectations.satisfied(&owner, now));
        expectations.set(&owner, 2, ["gone".to_owned()], now);
        expectations.created(&owner, 1);
        assert!(!expectations.satisfied(&owner, now));
        expectations.created(&owner, 1);
        assert!(!expectations.satisfied(&owner, now));
        expectations.deleted(&owner, "gone");
        assert!(expectations.satisfied(&owner, now));
    }

    #[test]
    fn lost_event_delays_but_never_stops_an_owner() {
        let (expectations, owner, now) =
            (Expectations::default(), ObjectKey::namespaced("ns", "rs"), Instant::now());
        expectations.set(&owner, 1, [], now);
        assert!(!expectations.satisfied(&owner, now + EXPIRY));
        assert!(expectations.satisfied(&owner, now + EXPIRY + Duration::from_secs(1)));
    }
}
