//! Services over all nodes, put together from what each agent said. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::bpf::rows::{Backend, Lb};

/// What one agent says of a Service.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Summary {
    /// `namespace/name`.
    pub(crate) service: String,
    /// The Service's type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// IPv4, IPv6 or both.
    pub(crate) families: Vec<String>,
    /// Rows in the map.
    pub(crate) frontends: u32,
    /// Backends behind them.
    pub(crate) backends: u32,
    /// Those of them on the node that was asked.
    pub(crate) local_backends: u32,
    /// internalTrafficPolicy.
    pub(crate) internal_policy: String,
    /// externalTrafficPolicy.
    pub(crate) external_policy: String,
    /// Session affinity, zero for none.
    pub(crate) affinity_seconds: u32,
    /// The port on which the node says whether it has local backends.
    pub(crate) health_check_node_port: Option<u16>,
    /// What of the Service is not carried out, and why.
    pub(crate) problems: Vec<String>,
}

/// What came from a node.
#[derive(Debug)]
pub(crate) enum NodeAnswer {
    /// Its Services, and rows of the map when they were asked for.
    Told { services: Vec<Summary>, rows: Vec<Lb> },
    /// Nothing, and why.
    Silent(String),
}

/// All nodes' answers by Service.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The nodes that answered.
    pub(crate) nodes: BTreeSet<String>,
    /// The others, and why.
    pub(crate) silent: BTreeMap<String, String>,
    /// Services by `namespace/name`.
    pub(crate) services: BTreeMap<String, Found>,
}

/// A Service on the nodes.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What the first node says, with the most backends of any.
    pub(crate) summary: Summary,
    /// The nodes that carry it out.
    pub(crate) nodes: BTreeSet<String>,
    /// Problems, and the nodes that have them.
    pub(crate) problems: BTreeMap<String, BTreeSet<String>>,
    /// Frontends that are equal on several nodes, and those nodes.
    pub(crate) frontends: Vec<(Lb, BTreeSet<String>)>,
}

impl View {
    /// Puts them together.
    pub(crate) fn of(answers: &BTreeMap<String, NodeAnswer>) -> Self {
        let mut view = Self::default();
        for (node, answer) in answers {
            match answer {
                NodeAnswer::Silent(reason) => {
                    view.silent.insert(node.clone(), reason.clone());
                }
                NodeAnswer::Told { services, rows } => {
                    view.nodes.insert(node.clone());
                    services.iter().for_each(|summary| view.add_service(node, summary));
                    rows.iter().for_each(|row| view.add_row(node, row));
                }
            }
        }
        for found in view.services.values_mut() {
            found.frontends.sort_by(|(a, _), (b, _)| (&a.frontend, &a.scope).cmp(&(&b.frontend, &b.scope)));
        }
        view
    }

    fn add_service(&mut self, node: &str, summary: &Summary) {
        let found = self.services.entry(summary.service.clone()).or_default();
        if found.nodes.is_empty() || summary.backends > found.summary.backends {
            found.summary = summary.clone();
        }
        found.nodes.insert(node.to_owned());
        for problem in &summary.problems {
            found.problems.entry(problem.clone()).or_default().insert(node.to_owned());
        }
    }

    /// A Service that has rows but is not listed is one that is just going: it has no place here.
    fn add_row(&mut self, node: &str, row: &Lb) {
        let Some(found) = self.services.get_mut(&row.service) else { return };
        let row = comparable(row);
        match found.frontends.iter_mut().find(|(known, _)| *known == row) {
            Some((_, nodes)) => drop(nodes.insert(node.to_owned())),
            None => found.frontends.push((row, BTreeSet::from([node.to_owned()]))),
        }
    }
}

/// Numbers of sets and order of slots are each node's own.
fn comparable(row: &Lb) -> Lb {
    let mut row = Lb { set: 0, ..row.clone() };
    row.backends.iter_mut().for_each(|backend| {
        *backend = Backend { slot: 0, local: false, ..backend.clone() };
    });
    row.backends.sort_by(|a, b| a.address.cmp(&b.address));
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(set: u32, first: &str, second: &str) -> Lb {
        serde_json::from_value(json!({"frontend": "10.96.0.1:80/TCP", "service": "a/b", "set": set,
            "backends": [{"address": first, "slot": 0, "local": true}, {"address": second, "slot": 1}]}))
        .unwrap()
    }

    fn told(backends: u32, row: Lb) -> NodeAnswer {
        let summary =
            Summary { service: "a/b".into(), backends, problems: vec!["p".into()], ..Summary::default() };
        NodeAnswer::Told { services: vec![summary], rows: vec![row] }
    }

    #[test]
    fn rows_that_differ_in_numbers_only_are_one() {
        let view = View::of(&BTreeMap::from([
            ("node-1".to_owned(), told(2, row(1, "x", "y"))),
            ("node-2".to_owned(), told(3, row(9, "y", "x"))),
            ("node-3".to_owned(), told(2, row(1, "x", "z"))),
            ("node-4".to_owned(), NodeAnswer::Silent("off".into())),
        ]));
        let found = &view.services["a/b"];
        assert_eq!((view.nodes.len(), view.silent.len(), found.frontends.len()), (3, 1, 2));
        assert_eq!(found.frontends[0].1.len(), 2);
        assert_eq!((found.summary.backends, found.problems["p"].len()), (3, 3));
    }
}
