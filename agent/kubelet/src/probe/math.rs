//! Probe thresholds. Pure.

use k8s_openapi::api::core::v1::Probe;

/// Which question a probe answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ProbeKind {
    /// Has it come up?
    Startup,
    /// Does it take traffic?
    Readiness,
    /// Must it be restarted?
    Liveness,
}

impl ProbeKind {
    /// The word in events.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// Counts answers until they change the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tracker {
    success_threshold: i32,
    failure_threshold: i32,
    streak: (bool, i32),
    verdict: Option<bool>,
}

impl Tracker {
    /// A tracker without a verdict.
    pub(crate) fn new(probe: &Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            streak: (true, 0),
            verdict: None,
        }
    }

    /// Takes an answer; the new verdict if it changed.
    pub(crate) fn observe(&mut self, success: bool) -> Option<bool> {
        self.streak = if self.streak.0 == success { (success, self.streak.1 + 1) } else { (success, 1) };
        let needed = if success { self.success_threshold } else { self.failure_threshold };
        if self.streak.1 < needed || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(success: i32, failure: i32) -> Tracker {
        Tracker::new(&Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        })
    }

    #[test]
    fn one_success_is_enough_by_default_and_three_failures_are_needed() {
        let mut tracker = Tracker::new(&Probe::default());
        assert_eq!(tracker.observe(true), Some(true));
        assert_eq!(tracker.observe(false), None);
        assert_eq!(tracker.observe(false), None);
        assert_eq!(tracker.observe(false), Some(false));
        assert_eq!(tracker.observe(false), None, "a verdict is given once");
        assert_eq!(tracker.observe(true), Some(true));
    }

    #[test]
    fn an_interrupted_streak_starts_over() {
        let mut tracker = tracker(2, 2);
        assert_eq!(tracker.observe(false), None);
        assert_eq!(tracker.observe(true), None);
        assert_eq!(tracker.observe(false), None);
        assert_eq!(tracker.observe(false), Some(false));
        assert_eq!(tracker.observe(true), None);
        assert_eq!(tracker.observe(true), Some(true));
    }
}
