//! `skep bpf`: what the maps of each node hold, in words. The agents read the maps; [`rows`] are their
//! answers, [`filter`] chooses and [`dump`] shows (pure).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::agent::ask;
use crate::kubeconfig::user_client;
use crate::terminal::print;
use filter::Filter;

pub(crate) mod dump;
pub(crate) mod filter;
pub(crate) mod rows;

/// Questions about maps.
#[derive(Debug, Subcommand)]
pub(crate) enum Bpf {
    /// Frontends of Services, and the backends in their slots.
    Lb(Flows),
    /// Tracked connections, balanced and plain ones.
    Ct(Flows),
    /// Tracked connections whose source address was replaced.
    Nat(Flows),
    /// How the Maglev tables share outside clients among backends.
    Maglev(Tables),
    /// Clients that are bound to a backend by session affinity.
    Affinity(Tables),
}

/// What to ask whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The kubeconfig; KUBECONFIG, else .skep/kubeconfig, else the usual places by default.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Only this node; all of them by default.
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// The form of the answer.
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// A dump whose rows have addresses.
#[derive(Debug, clap::Args)]
pub(crate) struct Flows {
    #[command(flatten)]
    place: Place,
    /// Rows of this Service: NAMESPACE/NAME, or a NAME in any namespace.
    #[arg(long)]
    service: Option<String>,
    /// Rows with this address, or ADDRESS:PORT; of connections any side.
    #[arg(long)]
    frontend: Option<String>,
    /// Rows of this protocol: tcp, udp or sctp.
    #[arg(long)]
    protocol: Option<String>,
    /// At most so many rows a node.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

/// A dump whose rows belong to Services.
#[derive(Debug, clap::Args)]
pub(crate) struct Tables {
    #[command(flatten)]
    place: Place,
    /// Rows of this Service: NAMESPACE/NAME, or a NAME in any namespace.
    #[arg(long)]
    service: Option<String>,
    /// At most so many rows a node.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

impl Flows {
    fn filter(&self) -> Filter {
        Filter {
            service: self.service.clone(),
            frontend: self.frontend.clone(),
            protocol: self.protocol.clone(),
            limit: self.limit,
        }
    }
}

impl Tables {
    fn filter(&self) -> Filter {
        Filter { service: self.service.clone(), limit: self.limit, ..Filter::default() }
    }
}

/// Prints the dump; fails when a node gave none.
pub(crate) async fn bpf(question: &Bpf) -> Result<ExitCode> {
    match question {
        Bpf::Lb(options) => show::<rows::Lb>("lb", &options.place, &options.filter()).await,
        Bpf::Ct(options) => show::<rows::Connection>("ct", &options.place, &options.filter()).await,
        Bpf::Nat(options) => show::<rows::Translation>("nat", &options.place, &options.filter()).await,
        Bpf::Maglev(options) => show::<rows::Maglev>("maglev", &options.place, &options.filter()).await,
        Bpf::Affinity(options) => show::<rows::Affinity>("affinity", &options.place, &options.filter()).await,
    }
}

async fn show<R: rows::Row>(what: &str, place: &Place, filter: &Filter) -> Result<ExitCode> {
    filter.check()?;
    let client = user_client(place.kubeconfig.as_deref()).await?;
    let answers = ask(&client, place.node.as_deref(), &[what]).await?;
    let complete = answers.values().all(Result::is_ok);
    match place.output {
        Output::Table => print(&dump::table::<R>(&answers, filter)),
        Output::Json => print(&serde_json::to_string_pretty(&dump::json::<R>(&answers, filter))?),
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
