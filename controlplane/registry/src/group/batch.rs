//! The group `batch`.

use crate::strategy::Strategy;

pub(crate) mod cron_job;
pub(crate) mod job;
mod schedule;

pub(super) fn strategy(plural: &str) -> Option<&'static Strategy> {
    Some(match plural {
        "cronjobs" => &cron_job::STRATEGY,
        "jobs" => &job::STRATEGY,
        _ => return None,
    })
}
