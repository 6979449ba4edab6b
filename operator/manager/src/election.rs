//! Leader election by a coordination.k8s.io Lease, with the timing that clients of the field use: a term of 15 s,
//! renewed every 2 s, given up when 10 s passed without a renewal.
//!
//! Clocks of machines differ, so a candidate never compares the Lease's times with its own: it waits a full term
//! since it last saw the Lease change.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use skep_runtime::Drain;
use tokio::time::{Instant, sleep};

const NAME: &str = "skep-operator";
const TERM: Duration = Duration::from_secs(15);
const GIVE_UP: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// One replica that would lead.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
}

/// What a candidate remembers of the Lease between looks.
#[derive(Debug, Clone, PartialEq)]
struct Sighting {
    version: Option<String>,
    at: Instant,
}

/// What to do about a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is ours: renew it.
    Renew,
    /// Nobody holds it any more: take it.
    Take,
    /// Another holds it.
    Wait,
}

impl Candidate {
    /// A candidate for the Lease in `namespace`.
    pub fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), identity: identity.to_owned() }
    }

    /// Leads whenever it can: `work` runs for each term and is told by its drain when the term ends.
    pub async fn lead<F, W>(&self, work: F)
    where
        F: Fn(Drain) -> W,
        W: Future<Output = ()> + Send + 'static,
    {
        let mut sighting = None;
        loop {
            match self.try_lead(&mut sighting).await {
                Ok(true) => {
                    tracing::info!(identity = self.identity, "leading");
                    let (trigger, term) = Drain::new();
                    term.spawn(work(term.clone()));
                    self.hold(&mut sighting).await;
                    tracing::warn!(identity = self.identity, "no longer leading");
                    trigger.drain(Duration::from_secs(5)).await;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the Lease cannot be read or written; trying again"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews until that has failed for too long.
    async fn hold(&self, sighting: &mut Option<Sighting>) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < GIVE_UP {
            sleep(RETRY).await;
            match self.try_lead(sighting).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "the Lease was not renewed; trying again"),
            }
        }
    }

    /// Takes or renews the Lease; whether it is ours now.
    async fn try_lead(&self, sighting: &mut Option<Sighting>) -> kube::Result<bool> {
        let written = match self.api.get_opt(NAME).await? {
            None => {
                let mut lease = Lease::default();
                lease.metadata.name = Some(NAME.into());
                lease.spec = Some(claim(&LeaseSpec::default(), &self.identity, Timestamp::now()));
                self.api.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                let spec = lease.spec.take().unwrap_or_default();
                let seen = look(sighting, lease.metadata.resource_version.clone(), Instant::now());
                if decide(&spec, &self.identity, seen.at.elapsed()) == Step::Wait {
                    return Ok(false);
                }
                lease.spec = Some(claim(&spec, &self.identity, Timestamp::now()));
                self.api.replace(NAME, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Another was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Remembers when the Lease was first seen at this version.
fn look(sighting: &mut Option<Sighting>, version: Option<String>, now: Instant) -> Sighting {
    match sighting {
        Some(seen) if seen.version == version => seen.clone(),
        _ => sighting.insert(Sighting { version, at: now }).clone(),
    }
}

fn decide(spec: &LeaseSpec, identity: &str, unchanged: Duration) -> Step {
    match spec.holder_identity.as_deref() {
        Some(holder) if holder == identity => Step::Renew,
        Some(holder) if !holder.is_empty() && unchanged < TERM => Step::Wait,
        _ => Step::Take,
    }
}

fn claim(old: &LeaseSpec, identity: &str, now: Timestamp) -> LeaseSpec {
    let ours = old.holder_identity.as_deref() == Some(identity);
    let transitions = old.lease_transitions.unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(TERM.as_secs()).ok(),
        acquire_time: if ours { old.acquire_time.clone() } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), ..LeaseSpec::default() }
    }

    #[test]
    fn a_held_lease_is_left_alone_for_a_whole_term_without_a_change() {
        assert_eq!(decide(&held_by("b"), "a", TERM - Duration::from_millis(1)), Step::Wait);
        assert_eq!(decide(&held_by("b"), "a", TERM), Step::Take);
        assert_eq!(decide(&held_by(""), "a", Duration::ZERO), Step::Take);
        assert_eq!(decide(&held_by("a"), "a", Duration::ZERO), Step::Renew);
    }

    #[test]
    fn a_change_starts_the_wait_anew() {
        let (start, mut sighting) = (Instant::now(), None);
        look(&mut sighting, Some("1".into()), start);
        let later = start + Duration::from_secs(9);
        assert_eq!(look(&mut sighting, Some("1".into()), later).at, start);
        assert_eq!(look(&mut sighting, Some("2".into()), later).at, later);
    }

    #[test]
    fn only_a_new_holder_counts_as_a_transition() {
        let first = claim(&held_by("b"), "a", Timestamp::UNIX_EPOCH);
        assert_eq!((first.lease_transitions, first.acquire_time.is_some()), (Some(1), true));
        assert_eq!(claim(&first, "a", Timestamp::MAX).acquire_time, first.acquire_time);
        assert_eq!(claim(&first, "a", Timestamp::MAX).lease_transitions, Some(1));
    }
}
