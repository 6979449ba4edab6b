//! Which strategy belongs to which built-in resource.

use crate::strategy::Strategy;

static PLAIN: Strategy = Strategy::BASE;

/// The strategy of a built-in resource.
pub(crate) fn strategy(group: &str, plural: &str) -> &'static Strategy {
    match (group, plural) {
        _ => &PLAIN,
    }
}
