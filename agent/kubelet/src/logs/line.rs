//! One line of a runtime's log. Pure.

use jiff::Timestamp;

/// A parsed line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// When it was written, as written.
    pub(crate) time: &'a str,
    /// Whether it is from stderr.
    pub(crate) stderr: bool,
    /// Whether the text goes on in the next line.
    pub(crate) partial: bool,
    /// The text.
    pub(crate) text: &'a [u8],
}

/// Parses a line without its line end.
pub(crate) fn parse(raw: &[u8]) -> Option<Line<'_>> {
    let (time, rest) = cut(raw)?;
    let (stream, rest) = cut(rest)?;
    let (tag, text) = cut(rest).unwrap_or((rest, &[]));
    let stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = tag.split(|b| *b == b':').next() == Some(b"P");
    Some(Line { time: std::str::from_utf8(time).ok()?, stderr, partial, text })
}

fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Which lines are wanted, and how they are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Nothing older.
    pub(crate) since: Option<Timestamp>,
    /// Put the time before each line.
    pub(crate) timestamps: bool,
    /// Only stdout (false) or stderr (true).
    pub(crate) only: Option<bool>,
}

impl Filter {
    /// The text to show for a raw line, or nothing if it is not wanted.
    pub(crate) fn render(&self, raw: &[u8]) -> Option<Vec<u8>> {
        let line = parse(raw)?;
        if self.only.is_some_and(|stderr| stderr != line.stderr) {
            return None;
        }
        if let Some(since) = self.since
            && line.time.parse::<Timestamp>().is_ok_and(|at| at < since)
        {
            return None;
        }
        let mut shown = Vec::with_capacity(line.text.len() + 40);
        if self.timestamps {
            shown.extend(line.time.as_bytes());
            shown.push(b' ');
        }
        shown.extend(line.text);
        if !line.partial {
            shown.push(b'\n');
        }
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &[u8] = b"2026-01-02T03:04:05.678901234Z stderr F hello  world ";

    #[test]
    fn parses_time_stream_tag_and_text() {
        let line = parse(RAW).unwrap();
        assert!(line.stderr && !line.partial);
        assert_eq!(line.text, b"hello  world ");
        assert!(parse(b"2026-01-02T03:04:05Z stdout P x").unwrap().partial);
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F ").unwrap().text, b"");
        assert!(parse(b"nonsense").is_none());
    }

    #[test]
    fn shows_only_what_is_wanted() {
        let render = |filter: Filter| filter.render(RAW);
        assert_eq!(render(Filter::default()).unwrap(), b"hello  world \n");
        assert_eq!(render(Filter { only: Some(false), ..Filter::default() }), None);
        let since = Some("2026-01-02T03:04:06Z".parse().unwrap());
        assert_eq!(render(Filter { since, ..Filter::default() }), None);
        let timed = render(Filter { timestamps: true, ..Filter::default() }).unwrap();
        assert!(timed.starts_with(b"2026-01-02T03:04:05.678901234Z hello"));
        assert_eq!(Filter::default().render(b"2026-01-02T03:04:05Z stdout P x").unwrap(), b"x");
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_shown_or_left_out(raw: Vec<u8>) {
            let _ = Filter { timestamps: true, ..Filter::default() }.render(&raw);
        }
    }
}
