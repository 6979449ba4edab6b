//! Times as the API writes them, and ages as people read them. The clock is the caller's.

use jiff::Timestamp;

/// Whole seconds, as `2026-01-02T03:04:05Z` (metav1.Time).
#[must_use]
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Microseconds, as `2026-01-02T03:04:05.000006Z` (metav1.MicroTime).
#[must_use]
pub fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads an RFC 3339 time.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The age of something as tables show it: `5s`, `3m20s`, `4h`, `2d3h`, `400d`, `3y10d`.
#[must_use]
pub fn age(since: Timestamp, now: Timestamp) -> String {
    duration(now.as_second().saturating_sub(since.as_second()))
}

/// So many seconds in the two largest units that matter.
#[must_use]
pub fn duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, l: &str, small: i64, s: &str| {
        if small == 0 { format!("{large}{l}") } else { format!("{large}{l}{small}{s}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_both_precisions() {
        let time = parse("2026-01-02T03:04:05.000006Z").unwrap();
        assert_eq!(seconds(time), "2026-01-02T03:04:05Z");
        assert_eq!(micros(time), "2026-01-02T03:04:05.000006Z");
    }

    #[test]
    fn shortens_ages() {
        for (given, expected) in [
            (5, "5s"),
            (119, "119s"),
            (200, "3m20s"),
            (180, "3m"),
            (3600, "60m"),
            (4 * 3600 + 60, "4h1m"),
            (47 * 3600, "47h"),
            (51 * 3600, "2d3h"),
            (400 * 86400, "400d"),
            (3 * 365 * 86400, "3y"),
            (-10, "<invalid>"),
        ] {
            assert_eq!(duration(given), expected);
        }
    }
}
