//! Leadership through an etcd lease: whoever holds the lease behind the oldest key of an election leads.
//!
//! The term ends, by our own clock, before the lease can have run out: it is counted from before the last
//! keep-alive that etcd confirmed.

use std::time::{Duration, Instant};

use etcd_client::Client;
use tokio_util::sync::CancellationToken;

use super::{answer, etcd};
use crate::{Leadership, StorageError};

const ELECTIONS: &str = "/skep-leaders/";

pub(super) async fn campaign(
    client: Client,
    lease: Duration,
    role: &str,
    identity: &str,
) -> Result<Leadership, StorageError> {
    let began = Instant::now();
    let seconds = i64::try_from(lease.as_secs().max(2)).unwrap_or(i64::MAX);
    let granted = answer("asking for a lease", client.lease_client().grant(seconds, None)).await?;
    let lost = CancellationToken::new();
    let resign = CancellationToken::new();
    let term = Term { client: client.clone(), id: granted.id(), lease, confirmed: began };
    // Ends with the term: when the lease is lost, or when the leadership is dropped.
    tokio::spawn(term.keep(lost.clone(), resign.clone()));
    let leadership = Leadership::new(lost.clone(), resign);
    let mut election = client.election_client();
    let elected = election.campaign(format!("{ELECTIONS}{role}"), identity, granted.id());
    tokio::select! {
        elected = elected => elected.map_err(etcd("campaigning"))?,
        () = lost.cancelled() => {
            return Err(StorageError::Stopped { reason: "the lease ran out while campaigning".to_owned() });
        }
    };
    Ok(leadership)
}

/// A lease that is kept alive.
struct Term {
    client: Client,
    id: i64,
    lease: Duration,
    confirmed: Instant,
}

impl Term {
    async fn keep(mut self, lost: CancellationToken, resign: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.lease / 4) => {}
                () = resign.cancelled() => {
                    // If it fails the lease runs out by itself.
                    let _ = answer("giving up a lease", self.client.lease_client().revoke(self.id)).await;
                    break;
                }
            }
            // A quarter of the lease is left for clocks that differ.
            let Some(left) = (self.lease * 3 / 4).checked_sub(self.confirmed.elapsed()) else { break };
            let asked = Instant::now();
            let mut leases = self.client.lease_client();
            match tokio::time::timeout(left, leases.keep_alive(self.id)).await {
                Ok(Ok(_)) => self.confirmed = asked,
                Ok(Err(etcd_client::Error::LeaseKeepAliveError(_))) => break,
                Ok(Err(error)) => tracing::warn!(%error, "a lease could not be renewed, trying again"),
                Err(_elapsed) => break,
            }
        }
        lost.cancel();
    }
}
