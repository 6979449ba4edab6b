//! Leadership of a role as a value one holds.

use tokio_util::sync::{CancellationToken, DropGuard};

/// Proof that this process leads a role. Dropping it gives the role up.
#[derive(Debug)]
pub struct Leadership {
    lost: CancellationToken,
    _resign: Option<DropGuard>,
}

impl Leadership {
    /// Leadership that lasts until `lost` is cancelled. Dropping it cancels `resign`.
    pub(crate) fn new(lost: CancellationToken, resign: Option<CancellationToken>) -> Self {
        Self { lost, _resign: resign.map(CancellationToken::drop_guard) }
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
