//! Progress: what is done now, and how long it took.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// One line.
pub(crate) fn line(text: &str) {
    eprintln!("{text}");
}

/// Does something whose own output is not shown, with a spinner at a terminal.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let spinner = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    });
    if spinner.is_none() {
        line(&format!("   {what} ..."));
    }
    let result = work();
    if let Some(bar) = spinner {
        bar.finish_and_clear();
    }
    let seconds = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) if seconds < 0.05 => {}
        Ok(_) => line(&format!("ok {what} ({seconds:.1} s)")),
        Err(_) => line(&format!("failed: {what} ({seconds:.1} s)")),
    }
    result
}
