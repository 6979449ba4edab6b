//! Questions to Services by `skep-demo`, from pods and from outside of the cluster, and the tally that
//! comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::command::{Said, run};
use crate::outside;

/// The namespace of the clients and the backends.
pub const NAMESPACE: &str = "services";
/// How long one round of questions may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A pod of [`NAMESPACE`].
    Pod(&'static str),
    /// The client beyond the router.
    Outside,
}

/// What came of the questions.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Questions.
    pub asked: u64,
    /// Answers.
    pub answered: u64,
    /// Answers by pod.
    pub pods: BTreeMap<String, u64>,
    /// Answers by node.
    pub nodes: BTreeMap<String, u64>,
    /// Answers by the pods' ports.
    pub ports: BTreeMap<String, u64>,
    /// Answers by the address that the servers saw.
    pub sources: BTreeMap<String, u64>,
    /// The longest that an answer took.
    pub longest_millis: u64,
    /// The first failures.
    pub failures: Vec<String>,
}

impl Asker {
    /// Asks: `line` is what follows `skep-demo ask`. Questions without an answer are no error here.
    pub fn ask(self, cluster: &Cluster, line: &str) -> Result<Tally> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let said = match self {
            Self::Pod(pod) => {
                let exec = ["exec", "-n", NAMESPACE, pod, "--", "skep-demo", "ask"];
                cluster.kubectl_words(&[&exec, words.as_slice()].concat(), b"")?
            }
            Self::Outside => {
                let program = cluster.program("skep-demo");
                let mut command = outside::command(cluster, &program.to_string_lossy());
                run(command.arg("ask").args(&words), b"", LIMIT)?
            }
        };
        parse(&said).with_context(|| format!("{self:?} asked {line}"))
    }

    /// Asks, and every question must be answered.
    pub fn must(self, cluster: &Cluster, line: &str) -> Result<Tally> {
        let tally = self.ask(cluster, line)?;
        tally.complete().with_context(|| format!("{self:?} asked {line}"))?;
        Ok(tally)
    }

    /// Asks, and no question may be answered.
    pub fn must_not(self, cluster: &Cluster, line: &str) -> Result<()> {
        let tally = self.ask(cluster, line)?;
        ensure!(tally.asked > 0 && tally.answered == 0, "{self:?} asked {line} and was answered: {tally:?}");
        Ok(())
    }
}

fn parse(said: &Said) -> Result<Tally> {
    let Some(line) = said.out.lines().find(|line| line.starts_with('{')) else {
        bail!("no tally but: {}{}", said.out, said.err);
    };
    Ok(serde_json::from_str(line)?)
}

impl Tally {
    /// Every question was answered.
    pub fn complete(&self) -> Result<()> {
        ensure!(self.asked > 0 && self.asked == self.answered, "questions were lost: {self:?}");
        Ok(())
    }

    /// The pods that answered.
    #[must_use]
    pub fn pods(&self) -> BTreeSet<&str> {
        self.pods.keys().map(String::as_str).collect()
    }

    /// Exactly these pods answered.
    pub fn only(&self, pods: &[&str]) -> Result<()> {
        ensure!(self.pods() == pods.iter().copied().collect(), "expected {pods:?}: {self:?}");
        Ok(())
    }

    /// The servers saw this address and no other.
    pub fn seen_as(&self, address: &str) -> Result<()> {
        ensure!(
            self.sources.len() == 1 && self.sources.contains_key(address),
            "expected {address}: {self:?}"
        );
        Ok(())
    }
}
