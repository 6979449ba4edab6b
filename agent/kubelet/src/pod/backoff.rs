//! The crash-loop and retry delays: 10 s doubling to 5 min, forgotten after 10 quiet minutes. Pure.

use std::time::Duration;

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const QUIET: Duration = Duration::from_secs(600);

/// How long to hold back the next try after an event, e.g. a container's exit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    step: Option<(Duration, Timestamp)>,
}

impl Backoff {
    /// The moment before which no try is due, when `event` was the last failure.
    pub(crate) fn until(&self, event: Timestamp) -> Option<Timestamp> {
        let (delay, _) = self.step.filter(|(_, updated)| event < *updated + QUIET)?;
        Some(event + delay)
    }

    /// The delay in force.
    pub(crate) fn delay(&self) -> Duration {
        self.step.map_or(FIRST, |(delay, _)| delay)
    }

    /// Counts a try after `event`: the next failure is held back longer.
    pub(crate) fn advance(&mut self, event: Timestamp, now: Timestamp) {
        let delay = match self.step {
            Some((delay, updated)) if event < updated + QUIET => (delay * 2).min(LONGEST),
            _ => FIRST,
        };
        self.step = Some((delay, now));
    }
}

/// Short retries of the kubelet's own work (sandboxes, volumes, clean-up): 1 s doubling to `longest`.
pub(crate) fn retry_delay(failures: u32, longest: Duration) -> Duration {
    Duration::from_secs(1u64 << failures.min(8)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_next_ones_wait_twice_as_long() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.until(at(0)), None);
        backoff.advance(at(0), at(0));
        assert_eq!(backoff.until(at(1)), Some(at(11)));
        backoff.advance(at(1), at(11));
        assert_eq!(backoff.until(at(12)), Some(at(32)));
    }

    #[test]
    fn never_waits_longer_than_five_minutes() {
        let mut backoff = Backoff::default();
        for i in 0..10 {
            backoff.advance(at(i), at(i));
        }
        assert_eq!(backoff.until(at(10)), Some(at(310)));
    }

    #[test]
    fn ten_quiet_minutes_forget_the_past() {
        let mut backoff = Backoff::default();
        backoff.advance(at(0), at(0));
        backoff.advance(at(1), at(11));
        assert_eq!(backoff.until(at(700)), None);
        backoff.advance(at(700), at(700));
        assert_eq!(backoff.delay(), Duration::from_secs(10));
    }

    #[test]
    fn retries_double_up_to_their_bound() {
        assert_eq!(retry_delay(0, Duration::from_secs(60)), Duration::from_secs(1));
        assert_eq!(retry_delay(3, Duration::from_secs(60)), Duration::from_secs(8));
        assert_eq!(retry_delay(40, Duration::from_secs(60)), Duration::from_secs(60));
    }
}
