//! CPU time of processes, from /proc.

use std::time::Duration;

use anyhow::{Context, Result};

/// Kernel ticks a second that /proc counts in; the same on every Linux.
const TICKS: u64 = 100;

/// User and system time that a process has used so far.
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse(&stat).with_context(|| format!("{path} is not understood"))
}

/// User and system time that this process has used so far.
pub(crate) fn of_self() -> Result<Duration> {
    of_process(std::process::id())
}

/// Fields 14 and 15, counted behind the command, which may hold spaces.
fn parse(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_user_and_system_time() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100";
        assert_eq!(parse(stat), Some(Duration::from_secs(3)));
    }
}
