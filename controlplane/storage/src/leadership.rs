//! Leadership of a role as a value one holds.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Proof that this process leads a role. Dropping it gives the role up.
#[derive(Debug)]
pub struct Leadership {
    lost: CancellationToken,
    _resign: DropGuard,
}

impl Leadership {
    /// Leadership that lasts until `lost` is cancelled. Dropping it cancels `resign`.
    pub(crate) fn new(lost: CancellationToken, resign: CancellationToken) -> Self {
        Self { lost, _resign: resign.drop_guard() }
    }

    /// Resolves when leadership is lost. After that nothing more may be done in the role.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether it is lost already.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

/// Roles of a store that only this process can have open: whoever asks first in the process leads.
#[derive(Debug, Default)]
pub(crate) struct LocalRoles {
    held: Mutex<BTreeMap<String, CancellationToken>>,
}

impl LocalRoles {
    pub(crate) async fn campaign(&self, role: &str) -> Leadership {
        loop {
            let held = {
                let mut roles = self.held.lock();
                match roles.get(role).filter(|held| !held.is_cancelled()) {
                    Some(held) => held.clone(),
                    None => {
                        let term = CancellationToken::new();
                        roles.insert(role.to_owned(), term.clone());
                        return Leadership::new(term.clone(), term);
                    }
                }
            };
            held.cancelled().await;
        }
    }

    /// Ends every term.
    pub(crate) fn end_all(&self) {
        for term in self.held.lock().values() {
            term.cancel();
        }
    }
}
