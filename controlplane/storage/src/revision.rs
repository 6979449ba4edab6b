//! Revisions: the one clock of a store, served to clients as `metadata.resourceVersion`.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// A served revision: grows by at least one with each transaction, never goes back, is never zero in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The distance between a store's own revisions and the served ones.
///
/// It is kept in the store. A restore from a backup or a move to another store raises it, so that clients never
/// see time run backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(pub u64);

impl Offset {
    /// The served revision of a store's own revision.
    #[must_use]
    pub fn served(self, own: u64) -> Revision {
        Revision(self.0.saturating_add(own))
    }

    /// The store's own revision of a served one; `None` when it lies before the offset.
    #[must_use]
    pub fn own(self, served: Revision) -> Option<u64> {
        served.0.checked_sub(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_maps_both_ways() {
        let offset = Offset(100);
        assert_eq!(offset.served(5), Revision(105));
        assert_eq!(offset.own(Revision(105)), Some(5));
        assert_eq!(offset.own(Revision(99)), None);
    }

    #[test]
    fn parses_what_it_prints() {
        assert_eq!(Revision(42).to_string().parse(), Ok(Revision(42)));
        assert!("x".parse::<Revision>().is_err());
    }
}
