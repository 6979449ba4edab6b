//! Container logs in the runtime's format (`TIME stdout|stderr F|P text`): read, followed, rotated.

pub(crate) mod line;
pub(crate) mod reader;
pub(crate) mod rotate;

use std::path::Path;

/// The last words of a container: at most so many lines and bytes of the end of its log.
pub(crate) fn last_words(path: &Path, lines: usize, bytes: usize) -> String {
    let Ok(mut reader) = reader::Reader::open(path, Some(lines)) else { return String::new() };
    let mut text = Vec::new();
    let filter = line::Filter::default();
    while let Ok(Some(raw)) = reader.next_line() {
        text.extend(filter.render(&raw).unwrap_or_default());
    }
    let start = text.len().saturating_sub(bytes);
    String::from_utf8_lossy(&text[start..]).into_owned()
}
