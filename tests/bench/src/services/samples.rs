//! Samples of one contestant, and what is read off them. Pure.

use super::worker::Counted;

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Connections with one exchange each, one client.
    Connect1,
    /// The same, 32 clients.
    Connect32,
    /// Exchanges on one connection.
    Exchange,
}

impl Pattern {
    pub(super) const ALL: [Pattern; 3] = [Pattern::Connect1, Pattern::Connect32, Pattern::Exchange];
}

/// One pattern's slices, in the order of the rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// Wall time of one connection or exchange, nanoseconds: of one client the median, of many the rate turned over.
    pub(super) wall: Vec<f64>,
    /// Processor time of one, both ends and what the kernel does on their behalf, nanoseconds.
    pub(super) cpu: Vec<f64>,
    opened: Vec<u32>,
}

impl Series {
    fn add(&mut self, wall: f64, counted: Counted, cpu: u64) {
        self.wall.push(wall);
        self.cpu.push(cpu as f64 / counted.count.max(1) as f64);
        self.opened.extend(counted.opened);
    }

    /// The time to open a connection that this share of them stayed below, nanoseconds.
    pub(super) fn opened(&self, share: f64) -> f64 {
        let mut sorted = self.opened.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(0.0, |time| f64::from(*time))
    }
}

/// All slices of one contestant at one size.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    connect1: Series,
    connect32: Series,
    exchange: Series,
}

impl Samples {
    pub(super) fn add(&mut self, pattern: Pattern, counted: Counted, cpu: u64) {
        match pattern {
            Pattern::Connect1 => self.connect1.add(counted.each, counted, cpu),
            Pattern::Connect32 => self.connect32.add(counted.share, counted, cpu),
            Pattern::Exchange => self.exchange.add(counted.each, counted, cpu),
        }
    }

    pub(super) fn of(&self, pattern: Pattern) -> &Series {
        match pattern {
            Pattern::Connect1 => &self.connect1,
            Pattern::Connect32 => &self.connect32,
            Pattern::Exchange => &self.exchange,
        }
    }
}

/// The middle of some values; zero of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// What `with` takes more than `without`: the median of the rounds' differences, so that a slow moment of the machine,
/// which meets both alike, does not count.
pub(super) fn added(with: &[f64], without: &[f64]) -> f64 {
    let differences: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
    median(&differences)
}

/// The median of the rounds' ratios.
pub(super) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_moment_that_meets_both_does_not_count() {
        let without = [100.0, 900.0, 100.0];
        let with = [110.0, 910.0, 110.0];
        assert_eq!(added(&with, &without), 10.0);
        assert!(ratio(&with, &without) < 1.11);
    }

    #[test]
    fn quantiles_are_of_all_connections() {
        let mut samples = Samples::default();
        let counted = Counted { count: 100, each: 1.0, share: 1.0, opened: (1..=100).collect() };
        samples.add(Pattern::Connect1, counted, 5000);
        let series = samples.of(Pattern::Connect1);
        assert_eq!((series.opened(0.5), series.opened(0.99)), (51.0, 100.0));
        assert_eq!(series.cpu, [50.0]);
        assert_eq!(Series::default().opened(0.5), 0.0);
    }
}
