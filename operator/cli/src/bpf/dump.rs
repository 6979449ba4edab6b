//! Dumps by node. Pure.

use serde_json::{Map, Value};

use super::filter::Filter;
use super::rows::Row;
use crate::agent::Answers;
use crate::terminal::{count, table as grid};

/// A table for each node.
pub(crate) fn table<R: Row>(answers: &Answers, filter: &Filter) -> String {
    let nodes = answers.iter().map(|(node, answer)| match answer {
        Ok(answer) => format!("{node}\n{}", one_node::<R>(answer, filter)),
        Err(error) => format!("{node}\nno answer: {error}"),
    });
    nodes.collect::<Vec<_>>().join("\n\n")
}

fn one_node<R: Row>(answer: &Value, filter: &Filter) -> String {
    let (rows, unreadable) = choose::<R>(answer, filter);
    let left_out = rows.len().saturating_sub(filter.limit);
    let mut notes = Vec::new();
    if left_out > 0 {
        notes.push(format!("... and {} more: --limit shows more, --service fewer", count(left_out, "row")));
    }
    if unreadable > 0 {
        notes.push(format!(
            "{} of another agent's version left out: -o json has them",
            count(unreadable, "row")
        ));
    }
    if rows.is_empty() {
        notes.insert(0, "nothing".into());
        return notes.join("\n");
    }
    let cells = rows.iter().take(filter.limit).map(|(row, _)| row.cells()).collect();
    notes.insert(0, grid(R::HEADS, cells));
    notes.join("\n")
}

/// The rows as the agents gave them, by node; an error where there are none.
pub(crate) fn json<R: Row>(answers: &Answers, filter: &Filter) -> Value {
    let nodes = answers.iter().map(|(node, answer)| {
        let value = match answer {
            Ok(answer) => {
                let (rows, _) = choose::<R>(answer, filter);
                Value::Array(rows.into_iter().take(filter.limit).map(|(_, raw)| raw.clone()).collect())
            }
            Err(error) => serde_json::json!({"error": error.to_string()}),
        };
        (node.clone(), value)
    });
    Value::Object(nodes.collect::<Map<_, _>>())
}

/// The rows that pass, beside their raw form; and how many could not be read.
fn choose<'a, R: Row>(answer: &'a Value, filter: &Filter) -> (Vec<(R, &'a Value)>, usize) {
    let all = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    let read: Vec<(R, &Value)> =
        all.iter().filter_map(|raw| Some((serde_json::from_value(raw.clone()).ok()?, raw))).collect();
    let unreadable = all.len() - read.len();
    (read.into_iter().filter(|(row, _)| filter.passes(row)).collect(), unreadable)
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Affinity, Connection, Lb, Maglev, Translation};
    use super::*;
    use crate::agent::AgentError;
    use serde_json::json;

    fn all() -> Filter {
        Filter { limit: 10, ..Filter::default() }
    }

    fn answers(rows: Value) -> Answers {
        Answers::from([("node-1".to_owned(), Ok(rows))])
    }

    fn lb() -> Value {
        json!([{"frontend": "10.96.0.1:443/TCP", "scope": "inside", "kind": "ClusterIP", "service": "default/kubernetes",
                "port": "https", "set": 1, "flags": [], "affinitySeconds": 0, "maglev": 0,
                "backends": [{"address": "10.89.0.11:6443", "slot": 0, "node": "node-1", "local": true}]},
               {"frontend": "0.0.0.0:30080/TCP", "scope": "outside", "kind": "NodePort", "service": "default/web",
                "port": "http", "set": 7, "flags": ["external", "silent"], "affinitySeconds": 30, "maglev": 1021,
                "backends": [], "extra": true}])
    }

    #[test]
    fn frontends_show_options_and_backends() {
        let text = table::<Lb>(&answers(lb()), &all());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "node-1");
        assert!(lines[1].starts_with("FRONTEND            SCOPE"), "{text}");
        assert!(
            lines[2].contains("default/kubernetes") && lines[2].ends_with("10.89.0.11:6443 on node-1"),
            "{text}"
        );
        assert!(
            lines[3].contains("external silent affinity 30 s maglev 1021") && lines[3].ends_with("none"),
            "{text}"
        );
    }

    #[test]
    fn a_backend_a_line_keeps_the_columns() {
        let mut rows = lb();
        rows[0]["backends"] = json!([{"address": "10.244.0.5:80", "slot": 0}, {"address": "10.244.1.5:80", "slot": 1, "local": true}]);
        let text = table::<Lb>(&answers(rows), &all());
        let column = |line: usize, word: &str| text.lines().nth(line).and_then(|line| line.find(word));
        assert_eq!(column(2, "10.244.0.5:80"), column(3, "10.244.1.5:80 on this node"), "{text}");
    }

    #[test]
    fn json_is_what_the_agent_said_by_node_and_filtered() {
        let filter = Filter { service: Some("web".into()), ..all() };
        let value = json::<Lb>(&answers(lb()), &filter);
        assert_eq!(value["node-1"].as_array().unwrap().len(), 1);
        assert_eq!(value["node-1"][0]["extra"], true);
    }

    #[test]
    fn a_node_without_answer_says_what_to_do_and_does_not_hide_the_others() {
        let mut answers = answers(lb());
        answers.insert("node-2".into(), Err(AgentError::NoAgent("node-2".into())));
        let text = table::<Lb>(&answers, &all());
        assert!(
            text.contains("default/web") && text.contains("node-2\nno answer: no agent runs on node-2"),
            "{text}"
        );
        assert!(json::<Lb>(&answers, &all())["node-2"]["error"].as_str().unwrap().contains("no agent"));
    }

    #[test]
    fn what_the_limit_leaves_out_is_counted() {
        let text = table::<Lb>(&answers(lb()), &Filter { limit: 1, ..all() });
        assert!(!text.contains("default/web") && text.contains("and 1 row more"), "{text}");
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(table::<Lb>(&answers(json!([])), &all()), "node-1\nnothing");
        assert!(
            table::<Lb>(&answers(json!([{"set": "x"}])), &all()).contains("1 row of another agent's version")
        );
    }

    #[test]
    fn connections_translations_maglev_and_affinity_are_readable() {
        let flow = json!([{"source": "10.89.1.2:40000", "destination": "10.89.0.11:30080", "protocol": "TCP", "state": "established",
            "translated": "10.244.2.4:80", "peer": "10.244.0.1:40000", "idleSeconds": 2, "service": "default/web", "snat": "10.244.0.1:40000"}]);
        let text = table::<Connection>(&answers(flow.clone()), &all());
        assert!(text.contains("TRANSLATED") && text.contains("established") && text.contains("2s"), "{text}");
        let text =
            table::<Translation>(&answers(flow), &Filter { frontend: Some("10.244.0.1".into()), ..all() });
        assert!(text.contains("SEEN AS") && text.contains("10.244.0.1:40000"), "{text}");
        let maglev = json!([{"set": 7, "service": "default/web", "port": "http", "size": 1000,
            "backends": [{"address": "10.244.0.5:80", "slots": 334}]}]);
        assert!(table::<Maglev>(&answers(maglev), &all()).contains("10.244.0.5:80  334 positions, 33.4 %"));
        let affinity = json!([{"client": "netns 4026532", "service": "default/web", "port": "http", "backend": "10.244.0.5:80", "idleSeconds": 3}]);
        assert!(table::<Affinity>(&answers(affinity), &all()).contains("netns 4026532"));
    }
}
