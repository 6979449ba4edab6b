//! What the person at the terminal sees: steps with a spinner, or plain lines when nobody looks.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// The steps of a command; the clock of each starts when it is announced.
pub(crate) struct Steps {
    spinner: Option<ProgressBar>,
    since: Instant,
    current: String,
    said: Option<(Instant, String)>,
}

/// How often a plain terminal hears about one step.
const PLAIN_PAUSE: Duration = Duration::from_secs(5);

impl Steps {
    /// No step yet.
    pub(crate) fn new() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { spinner, since: Instant::now(), current: String::new(), said: None }
    }

    /// Says what begins now.
    pub(crate) fn begin(&mut self, text: impl Into<String>) {
        self.current = text.into();
        self.since = Instant::now();
        self.said = None;
        match &self.spinner {
            Some(bar) => {
                bar.reset_elapsed();
                bar.set_message(self.current.clone());
            }
            None => eprintln!("   {} ...", self.current),
        }
    }

    /// Says how far the current step is.
    pub(crate) fn detail(&mut self, text: &str) {
        if let Some(bar) = &self.spinner {
            bar.set_message(format!("{}: {text}", self.current));
            return;
        }
        let (last, known) = self.said.get_or_insert_with(|| (self.since, String::new()));
        if last.elapsed() > PLAIN_PAUSE && known != text {
            eprintln!("   {}: {text}", self.current);
            self.said = Some((Instant::now(), text.to_owned()));
        }
    }

    /// The current step is done; `result` replaces its text.
    pub(crate) fn done(&mut self, result: impl Into<String>) {
        let seconds = self.since.elapsed().as_secs_f32();
        self.line(&format!("ok {} ({seconds:.1} s)", result.into()));
    }

    /// One line between the steps.
    pub(crate) fn line(&self, text: &str) {
        match &self.spinner {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the spinner away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.spinner.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Prints to standard output. A closed pipe is nobody's fault.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
}

/// An error's whole chain in one line. Of an answer of the API server only its message: the rest says
/// the same again.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            words.push(status.message.clone());
            break;
        }
        let text = cause.to_string();
        if !words.iter().any(|known| known.contains(&text)) {
            words.push(text);
        }
    }
    words.join(": ")
}

/// `1 node`, `3 nodes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A table in kubectl's manner: no lines, upper-case heads.
pub(crate) fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_without_trailing_space() {
        let text = table(
            &["NAME", "AGE"],
            vec![vec!["a-long-name".into(), "1s".into()], vec!["b".into(), "2s".into()]],
        );
        assert_eq!(text, "NAME          AGE\na-long-name   1s\nb             2s");
    }
}
