//! Whether a text is a cron schedule: five fields, or a descriptor such as `@hourly` or `@every 5m`.

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: &[&str] =
    &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// What is wrong with the schedule, if anything.
pub(super) fn problem(schedule: &str) -> Option<String> {
    let schedule = schedule.trim();
    if let Some(duration) = schedule.strip_prefix("@every ") {
        return (!is_duration(duration)).then(|| format!("failed to parse duration {schedule}"));
    }
    if schedule.starts_with('@') {
        return (!DESCRIPTORS.contains(&schedule)).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let bounds: [(u32, u32, &[&str]); 5] =
        [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];
    fields.iter().zip(bounds).find_map(|(field, (low, high, names))| {
        let ok = field.split(',').all(|part| is_range(part, low, high, names));
        (!ok).then(|| format!("failed to parse field {field:?}: values from {low} to {high}"))
    })
}

fn is_range(part: &str, low: u32, high: u32, names: &[&str]) -> bool {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if step.is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s == 0) || s.parse::<u32>().is_err()) {
        return false;
    }
    if matches!(range, "*" | "?") {
        return true;
    }
    let number = |text: &str| {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(text));
        let offset = u32::from(low == 1);
        named.and_then(|i| u32::try_from(i).ok()).map(|i| i + offset).or_else(|| text.parse().ok())
    };
    let within = |n: &u32| (low..=high).contains(n);
    match range.split_once('-') {
        Some((from, to)) => match (number(from), number(to)) {
            (Some(from), Some(to)) => within(&from) && within(&to) && from <= to,
            _ => false,
        },
        None => number(range).is_some_and(|n| within(&n)),
    }
}

fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        if digits == 0 || !matches!(&rest[digits..unit_end], "h" | "m" | "s" | "ms" | "us" | "ns") {
            return false;
        }
        rest = &rest[unit_end..];
    }
    !text.is_empty()
}

/// Whether the text looks like a zone of the time zone database. Which zones exist is for those to know who use them.
pub(super) fn is_time_zone(zone: &str) -> bool {
    const AREAS: &[&str] = &[
        "Africa",
        "America",
        "Antarctica",
        "Arctic",
        "Asia",
        "Atlantic",
        "Australia",
        "Brazil",
        "Canada",
        "Chile",
        "Etc",
        "Europe",
        "Indian",
        "Mexico",
        "Pacific",
        "US",
    ];
    const SINGLE: &[&str] = &[
        "UTC",
        "UCT",
        "GMT",
        "Zulu",
        "Universal",
        "Greenwich",
        "EST",
        "MST",
        "HST",
        "CET",
        "EET",
        "MET",
        "WET",
        "Cuba",
        "Egypt",
        "Eire",
        "GB",
        "Hongkong",
        "Iceland",
        "Iran",
        "Israel",
        "Jamaica",
        "Japan",
        "Libya",
        "NZ",
        "Navajo",
        "PRC",
        "Poland",
        "Portugal",
        "ROC",
        "ROK",
        "Singapore",
        "Turkey",
        "W-SU",
        "EST5EDT",
        "CST6CDT",
        "MST7MDT",
        "PST8PDT",
    ];
    match zone.split_once('/') {
        Some((area, place)) => AREAS.contains(&area) && !place.is_empty(),
        None => SINGLE.contains(&zone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_cron_knows() {
        for schedule in [
            "*/5 * * * *",
            "0 0 31 2 *",
            "@hourly",
            "@every 1h30m",
            "0 9-17 * jan-mar mon,fri",
            "0-30/10 * ? * *",
        ] {
            assert_eq!(problem(schedule), None, "{schedule}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for schedule in [
            "bogus",
            "* * * *",
            "60 * * * *",
            "TZ=UTC 0 * * * *",
            "@every",
            "*/0 * * * *",
            "5-1 * * * *",
            "@often",
        ] {
            assert!(problem(schedule).is_some(), "{schedule}");
        }
        assert!(is_time_zone("Europe/Berlin") && !is_time_zone("Mars/Base") && !is_time_zone("Local"));
    }
}
