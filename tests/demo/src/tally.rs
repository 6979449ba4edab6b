//! What came of the questions. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Failures that are kept in words.
const KEPT: usize = 5;

/// The count.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tally {
    asked: u64,
    answered: u64,
    /// How often each pod answered.
    pods: BTreeMap<String, u64>,
    /// How often each node answered.
    nodes: BTreeMap<String, u64>,
    /// How often each of their ports answered.
    ports: BTreeMap<String, u64>,
    /// The addresses under which the servers saw this client.
    sources: BTreeMap<String, u64>,
    /// The longest that an answer took.
    longest_millis: u64,
    /// The first failures in words.
    failures: Vec<String>,
}

impl Tally {
    /// Questions so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether every question was answered, and one was asked.
    pub(crate) fn is_complete(&self) -> bool {
        self.asked > 0 && self.asked == self.answered
    }

    /// Counts a question's end.
    pub(crate) fn count(&mut self, result: &anyhow::Result<String>, took: Duration) {
        self.asked += 1;
        match result {
            Ok(text) => self.count_answer(text, took),
            Err(error) if self.failures.len() < KEPT => {
                self.failures.push(format!("question {}: {error:#}", self.asked));
            }
            Err(_) => {}
        }
    }

    fn count_answer(&mut self, text: &str, took: Duration) {
        self.answered += 1;
        self.longest_millis = self.longest_millis.max(took.as_millis().try_into().unwrap_or(u64::MAX));
        let Some((pod, rest)) = text.split_once(" on ") else { return };
        *self.pods.entry(pod.to_owned()).or_default() += 1;
        let Some((node, rest)) = rest.split_once(" port ") else { return };
        *self.nodes.entry(node.to_owned()).or_default() += 1;
        let Some((port, from)) = rest.split_once(" from ") else { return };
        *self.ports.entry(port.to_owned()).or_default() += 1;
        if let Some((address, _)) = from.rsplit_once(':') {
            *self.sources.entry(address.trim_matches(['[', ']']).to_owned()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_who_answered_and_whom() {
        let mut tally = Tally::default();
        tally.count(&Ok("web-1 on node-2 port 80 from [fd00::1]:99".into()), Duration::from_millis(3));
        tally.count(&Err(anyhow::anyhow!("refused")), Duration::ZERO);
        assert!(!tally.is_complete());
        assert_eq!((tally.pods["web-1"], tally.nodes["node-2"], tally.ports["80"]), (1, 1, 1));
        assert_eq!(tally.sources["fd00::1"], 1);
        assert_eq!(tally.failures, ["question 2: refused"]);
    }

    #[test]
    fn nothing_asked_is_not_complete() {
        assert!(!Tally::default().is_complete());
    }
}
