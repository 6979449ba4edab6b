//! Exponential backoff with jitter. Pure: it yields delays, the caller waits.

use std::time::Duration;

use rand::Rng;

/// Delays that double from `min` to `max`, each jittered by up to a fifth.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// A backoff whose first delay is about `min`; `max` bounds every delay.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The delay to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.max);
        let factor = rand::rng().random_range(0.8..=1.0);
        base.mul_f64(factor)
    }

    /// To be called after a success: the next failure starts at `min` again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let delays: Vec<_> = (0..4).map(|_| backoff.next_delay()).collect();
        for (delay, base) in delays.iter().zip([100, 200, 350, 350]) {
            let base = Duration::from_millis(base);
            assert!(*delay <= base && *delay >= base.mul_f64(0.79), "{delay:?} for {base:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
