//! `skep status`: one screen about a cluster, from nothing but a kubeconfig.
//!
//! [`gather`] asks the API server, [`report`] judges (pure), [`screen`] shows.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::terminal::print;

mod balancing;
mod gather;
mod report;
mod screen;

/// How to ask and how to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// The kubeconfig; KUBECONFIG, else .skep/kubeconfig, else the usual places by default.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The form of the answer.
    #[arg(long, short, value_enum, default_value = "screen")]
    pub(crate) output: Output,
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Screen,
    /// For programs.
    Json,
}

/// Prints the state; the exit code says whether all is well.
pub(crate) async fn status(options: &Status) -> Result<ExitCode> {
    let client = crate::kubeconfig::user_client(options.kubeconfig.as_deref()).await?;
    let report = report::judge(gather::gather(&client).await);
    match options.output {
        Output::Screen => print(&screen::show(&report)),
        Output::Json => print(&serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
