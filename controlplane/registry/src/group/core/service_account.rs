//! ServiceAccounts.

use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy::BASE;
