//! When the status is reported: at once when it changed, again when it was not taken or written over.

use std::time::Duration;

use jiff::Timestamp;

use super::{Worker, report};
use crate::pod::{plan::OpKey, status};

/// How long the API may show other conditions than those reported before they are reported again.
pub(super) const DISPUTE: Duration = Duration::from_secs(1);

impl Worker {
    /// Reports the status if there is something to say.
    pub(super) fn report(&mut self, now: Timestamp) {
        if self.gone || self.memory.finalized {
            // Nobody is left to be told: what was due must not wake the worker any more.
            (self.report_at, self.disputed_at) = (None, None);
            return;
        }
        if self.in_flight.contains_key(&OpKey::Report) {
            return;
        }
        if self.report_at.is_some_and(|at| at > now) {
            return;
        }
        self.report_at = None;
        let status = status::status(&self.input(now), &self.shared.node_ips);
        let waits = !self.network.borrow().network_ready && !self.model.host_network();
        let network =
            (waits && self.view.sandboxes.is_empty()).then(|| self.network.borrow().message.clone());
        self.announced.tell(&self.shared.events, &self.model, &status, network);
        if self.reported.as_ref().is_some_and(|known| report::same(known, &status)) {
            let seen = self.model.pod.status.as_ref();
            if seen.is_none_or(|seen| report::agrees(seen, &status)) {
                self.disputed_at = None;
                return;
            }
            // Our own write may be on its way back; if it stays so, somebody else has written over it.
            match self.disputed_at {
                Some(since) if since + DISPUTE <= now => self.reported = seen.cloned(),
                since => {
                    self.disputed_at = Some(since.unwrap_or(now));
                    return;
                }
            }
        }
        self.disputed_at = None;
        let task = report::patch(self.shared.clone(), self.model.clone(), self.reported.clone(), status);
        self.launch(OpKey::Report, None, task);
    }
}
