//! Elections of several nodes against a Lease store that is a map.

use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    lease: Duration::from_secs(15),
    renew: Duration::from_secs(10),
    retry: Duration::from_secs(2),
    spread: Duration::from_secs(1),
    handover: Duration::from_secs(5),
    leftover: Duration::from_secs(60),
};

fn vip() -> IpAddr {
    [10, 0, 0, 1].into()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn lease(holder: &str, version: &str) -> Observed {
    Observed {
        version: version.into(),
        holder: holder.into(),
        duration: TIMING.lease,
        transitions: 1,
        acquired: None,
    }
}

/// A node that may announce the address and has listed what there is.
fn candidate(me: &str, lease: Option<Observed>, now: Instant) -> Election {
    let mut election = Election::new(me, TIMING);
    election.want(&[vip()].into(), &[vip()].into(), now);
    election.list(lease.map(|lease| (vip(), lease)).into_iter().collect(), now);
    election
}

/// A node that holds the address, confirmed at `now`.
fn leader(me: &str, now: Instant) -> Election {
    let mut election = candidate(me, None, now);
    let at = election.wake().unwrap();
    assert_eq!(election.step(at), [Command::Claim(vip(), None)]);
    election.outcome(vip(), Outcome::Written(lease(me, "1")), now, now);
    assert!(election.announced().contains(&vip()));
    election
}

#[test]
fn nothing_is_taken_before_the_leases_are_listed() {
    let now = Instant::now();
    let mut election = Election::new("a", TIMING);
    election.want(&[vip()].into(), &[vip()].into(), now);
    assert!(election.step(now + seconds(100)).is_empty() && election.wake().is_none());
}

#[test]
fn a_held_lease_is_taken_when_it_was_not_renewed_for_its_whole_time() {
    let now = Instant::now();
    let mut election = candidate("a", Some(lease("b", "1")), now);
    assert!(election.step(now + seconds(15) - Duration::from_millis(1)).is_empty());
    election.observe(vip(), Some(lease("b", "2")), now + seconds(10));
    assert!(election.step(now + seconds(24)).is_empty());
    let commands = election.step(now + seconds(27));
    assert_eq!(commands, [Command::Claim(vip(), Some(lease("b", "2")))]);
    assert!(election.step(now + seconds(28)).is_empty(), "one command at a time");
    assert!(election.announced().is_empty(), "not before the API server confirms");
}

#[test]
fn a_lease_that_was_given_back_is_taken_within_the_spread() {
    let now = Instant::now();
    let mut election = candidate("a", Some(lease("", "1")), now);
    assert_eq!(election.step(now + TIMING.spread).len(), 1);
}

#[test]
fn the_holder_renews_and_goes_on_while_the_api_server_is_away() {
    let now = Instant::now();
    let mut election = leader("a", now);
    assert_eq!(election.wake(), Some(now + TIMING.renew));
    assert_eq!(election.step(now + seconds(10)), [Command::Claim(vip(), Some(lease("a", "1")))]);
    election.outcome(vip(), Outcome::Failed, now + seconds(10), now + seconds(11));
    assert_eq!(election.wake(), Some(now + seconds(13)));
    assert!(election.announced().contains(&vip()));
    assert_eq!(election.heard_claim(vip(), now + seconds(14)), Reaction::Defend);
    assert_eq!(election.heard_claim(vip(), now + seconds(16)), Reaction::Yield);
    assert!(election.announced().is_empty());
    assert_eq!(election.heard_claim(vip(), now + seconds(16)), Reaction::Ignore);
}

#[test]
fn the_holder_yields_as_soon_as_it_learns_of_another() {
    let now = Instant::now();
    let mut election = leader("a", now);
    election.observe(vip(), Some(lease("b", "2")), now + seconds(30));
    assert!(election.announced().is_empty());
    assert!(election.step(now + seconds(31)).is_empty());
}

#[test]
fn no_candidate_gives_back_and_an_address_of_no_service_loses_its_lease() {
    let now = Instant::now();
    let mut election = leader("a", now);
    election.want(&[vip()].into(), &BTreeSet::new(), now);
    assert!(election.announced().is_empty());
    assert_eq!(election.step(now), [Command::Release(vip(), lease("a", "1"), Duration::ZERO)]);
    let mut election = leader("a", now);
    election.want(&BTreeSet::new(), &BTreeSet::new(), now);
    assert_eq!(election.step(now), [Command::Delete(vip(), lease("a", "1"))]);
    election.outcome(vip(), Outcome::Gone, now, now);
    assert!(election.step(now + seconds(100)).is_empty() && election.wake().is_none());
    let mut onlooker = Election::new("b", TIMING);
    onlooker.list([(vip(), lease("a", "1"))].into(), now);
    assert!(onlooker.step(now + seconds(77)).is_empty(), "not before the Services are known");
    onlooker.want(&BTreeSet::new(), &BTreeSet::new(), now);
    assert!(onlooker.step(now + seconds(60)).is_empty());
    assert_eq!(onlooker.step(now + seconds(77)), [Command::Delete(vip(), lease("a", "1"))]);
}

#[test]
fn a_process_that_starts_anew_renews_its_own_lease_at_once() {
    let now = Instant::now();
    let mut election = candidate("a", Some(lease("a", "7")), now);
    assert_eq!(election.step(now), [Command::Claim(vip(), Some(lease("a", "7")))]);
    election.outcome(vip(), Outcome::Written(lease("a", "8")), now, now);
    assert!(election.announced().contains(&vip()));
}

#[test]
fn a_process_that_ends_leaves_time_for_its_successor_and_a_node_that_leaves_does_not() {
    let election = leader("a", Instant::now());
    assert_eq!(election.farewell(false), [Command::Release(vip(), lease("a", "1"), TIMING.handover)]);
    assert_eq!(election.farewell(true), [Command::Release(vip(), lease("a", "1"), Duration::ZERO)]);
}

#[test]
fn a_lost_race_waits_for_the_watch() {
    let now = Instant::now();
    let mut election = candidate("a", None, now);
    assert_eq!(election.step(now + seconds(1)).len(), 1);
    election.outcome(vip(), Outcome::Outrun, now + seconds(1), now + seconds(1));
    assert!(election.step(now + seconds(2)).is_empty());
    election.observe(vip(), Some(lease("b", "1")), now + seconds(2));
    assert!(election.step(now + seconds(10)).is_empty());
}

#[test]
fn addresses_spread_over_the_nodes() {
    let first = |n: u8| {
        let nodes = ["node-1", "node-2", "node-3"];
        nodes.into_iter().min_by_key(|node| delay(node, TIMING.spread, [10, 0, 0, n].into())).unwrap()
    };
    let firsts: Vec<_> = (0..90).map(first).collect();
    for node in ["node-1", "node-2", "node-3"] {
        let share = firsts.iter().filter(|first| **first == node).count();
        assert!((15..50).contains(&share), "{node} is first for {share} of 90");
    }
}

proptest! {
    /// Nodes with a store that refuses stale writes, whose answers and events may be late or lost: of those that can
    /// reach the store, no two announce at the same time, and with time one of them does.
    #[test]
    fn at_most_one_confirmed_holder(steps in prop::collection::vec((0usize..3, 0u64..4_000, any::<bool>(), any::<bool>()), 1..80)) {
        let start = Instant::now();
        let mut now = start;
        let mut store: Option<Observed> = None;
        let mut version = 0;
        let names = ["a", "b", "c"];
        let mut nodes: Vec<Election> = names.iter().map(|me| candidate(me, None, start)).collect();
        let quiet = (0..200).map(|n| (n % 3, 250, true, true));
        for (who, millis, delivered, watched) in steps.into_iter().chain(quiet) {
            now += Duration::from_millis(millis);
            let node = &mut nodes[who];
            if watched {
                node.observe(vip(), store.clone(), now);
            }
            for command in node.step(now) {
                let Command::Claim(_, base) = command else { continue };
                let accepted = base.as_ref().map(|base| &base.version) == store.as_ref().map(|lease| &lease.version);
                if accepted {
                    version += 1;
                    store = Some(lease(names[who], &version.to_string()));
                }
                let outcome = match (accepted, delivered) {
                    (_, false) => Outcome::Failed,
                    (true, true) => Outcome::Written(store.clone().unwrap()),
                    (false, true) => Outcome::Outrun,
                };
                node.outcome(vip(), outcome, now, now);
            }
            let confirmed = |node: &&Election| {
                let entry = &node.entries[&vip()];
                node.announces(&vip()) && entry.renewed.is_some_and(|renewed| now < renewed + TIMING.lease)
            };
            prop_assert!(nodes.iter().filter(confirmed).count() <= 1);
        }
        prop_assert_eq!(nodes.iter().filter(|node| node.announces(&vip())).count(), 1);
    }
}
