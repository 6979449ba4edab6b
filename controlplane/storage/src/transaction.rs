//! Transactions: a set of writes with preconditions that happen together, at one revision, or not at all.

use std::collections::HashSet;

use bytes::Bytes;

use crate::{Key, Revision, StorageError};

/// The largest value a store takes. etcd's own request limit leaves this much.
pub(crate) const MAX_VALUE: usize = 1_500_000 - 64 * 1024;
/// The most operations in a transaction; etcd's default limit is 128 and one is ours.
pub(crate) const MAX_OPS: usize = 120;

/// What must hold for a key before its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must exist, last changed at this revision.
    At(Revision),
    /// The key must exist, at any revision.
    Exists,
    /// No precondition.
    Any,
}

impl Expect {
    /// Whether a key that was last changed at `actual` (`None`: does not exist) meets this.
    #[must_use]
    pub fn holds(self, actual: Option<Revision>) -> bool {
        match self {
            Self::Absent => actual.is_none(),
            Self::At(revision) => actual == Some(revision),
            Self::Exists => actual.is_some(),
            Self::Any => true,
        }
    }
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    /// Stores a value.
    Put {
        /// What to write.
        key: Key,
        /// The new value.
        value: Bytes,
        /// What must hold before.
        expect: Expect,
    },
    /// Removes a key; removing an absent one under [`Expect::Any`] changes nothing.
    Delete {
        /// What to remove.
        key: Key,
        /// What must hold before.
        expect: Expect,
    },
}

impl Op {
    /// The key this operation writes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// The precondition of this operation.
    #[must_use]
    pub fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } => *expect,
        }
    }

    /// The value a put writes; `None` for a delete.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}

/// Writes that succeed or fail together and share one revision. Each key may occur once.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The writes.
    pub ops: Vec<Op>,
}

impl Transaction {
    /// A transaction of these writes.
    #[must_use]
    pub fn new(ops: Vec<Op>) -> Self {
        Self { ops }
    }

    /// A transaction of one put.
    #[must_use]
    pub fn put(key: Key, value: impl Into<Bytes>, expect: Expect) -> Self {
        Self::new(vec![Op::Put { key, value: value.into(), expect }])
    }

    /// A transaction of one delete.
    #[must_use]
    pub fn delete(key: Key, expect: Expect) -> Self {
        Self::new(vec![Op::Delete { key, expect }])
    }

    /// Adds a write.
    #[must_use]
    pub fn and(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Checks the limits that hold for every store alike.
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        if self.ops.is_empty() || self.ops.len() > MAX_OPS {
            return Err(CommitError::OpCount { count: self.ops.len() });
        }
        let mut seen = HashSet::with_capacity(self.ops.len());
        for op in &self.ops {
            if let Some(value) = op.value().filter(|v| v.len() > MAX_VALUE) {
                return Err(CommitError::TooLarge { key: op.key().clone(), bytes: value.len() });
            }
            if !seen.insert(op.key()) {
                return Err(CommitError::RepeatedKey { key: op.key().clone() });
            }
        }
        Ok(())
    }
}

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold; nothing was written.
    #[error("{key} has changed: it is now {}", describe(*actual))]
    Conflict {
        /// The first key whose precondition failed.
        key: Key,
        /// The revision it was last changed at; `None` when it does not exist.
        actual: Option<Revision>,
    },
    /// A value is over the limit; nothing was written.
    #[error("{key} is too large to store: {bytes} bytes, the limit is {MAX_VALUE}")]
    TooLarge {
        /// The key of the value.
        key: Key,
        /// Its size.
        bytes: usize,
    },
    /// The transaction writes one key twice; nothing was written.
    #[error("{key} is written twice in one transaction")]
    RepeatedKey {
        /// The repeated key.
        key: Key,
    },
    /// The transaction is empty or has too many operations; nothing was written.
    #[error("a transaction holds 1 to {MAX_OPS} operations, this one has {count}")]
    OpCount {
        /// How many it has.
        count: usize,
    },
    /// The store refused; nothing was written.
    #[error("the store did not take the write")]
    Unavailable(#[source] StorageError),
    /// The answer was lost: the write may or may not have happened. Read before trying again.
    #[error("the store did not answer: the write may or may not have happened")]
    OutcomeUnknown(#[source] StorageError),
}

fn describe(actual: Option<Revision>) -> String {
    actual.map_or_else(|| "absent".to_owned(), |revision| format!("at revision {revision}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ResourceId;

    fn key(name: &str) -> Key {
        Key::new(ResourceId::new("", "pods").unwrap(), Some("default"), name).unwrap()
    }

    #[test]
    fn expectations_hold_as_named() {
        let at = Some(Revision(3));
        assert!(Expect::Absent.holds(None) && !Expect::Absent.holds(at));
        assert!(Expect::At(Revision(3)).holds(at) && !Expect::At(Revision(2)).holds(at));
        assert!(Expect::Exists.holds(at) && !Expect::Exists.holds(None));
        assert!(Expect::Any.holds(at) && Expect::Any.holds(None));
    }

    #[test]
    fn refuses_empty_repeated_and_oversized() {
        assert!(matches!(Transaction::default().check(), Err(CommitError::OpCount { count: 0 })));
        let twice = Transaction::put(key("a"), "1", Expect::Any)
            .and(Op::Delete { key: key("a"), expect: Expect::Any });
        assert!(matches!(twice.check(), Err(CommitError::RepeatedKey { .. })));
        let large = Transaction::put(key("a"), vec![0; MAX_VALUE + 1], Expect::Any);
        assert!(matches!(large.check(), Err(CommitError::TooLarge { .. })));
    }
}
