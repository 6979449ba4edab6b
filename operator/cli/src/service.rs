//! `skep service`: Services as the nodes carry them out, which is what an answer from the API server
//! cannot tell. [`view`] puts the agents' answers together (pure), [`screen`] shows (pure).

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::agent::{Answers, ask};
use crate::bpf::filter::is_service;
use crate::bpf::{Output, Place};
use crate::kubeconfig::user_client;
use crate::terminal::print;
use view::{NodeAnswer, View};

mod screen;
mod view;

/// Questions about Services.
#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// All Services, how many backends each has, and on which nodes it is in force.
    List(Place),
    /// One Service: its addresses, whom each serves, and the backends behind them.
    Get {
        /// NAMESPACE/NAME; without namespace it is `default`.
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Prints the answer; fails when a node gave none.
pub(crate) async fn service(question: &Service) -> Result<ExitCode> {
    let (place, name) = match question {
        Service::List(place) => (place, None),
        Service::Get { name, place } => (place, Some(full_name(name)?)),
    };
    let client = user_client(place.kubeconfig.as_deref()).await?;
    let node = place.node.as_deref();
    let services = ask(&client, node, &["services"]).await?;
    let complete = services.values().all(Result::is_ok);
    let rows = match name {
        Some(_) => ask(&client, node, &["lb"]).await?,
        None => Answers::new(),
    };
    if place.output == Output::Json {
        print(&serde_json::to_string_pretty(&raw(&services, &rows, name.as_deref()))?);
        return Ok(exit_code(complete));
    }
    let view = View::of(&parse(&services, &rows));
    match &name {
        None => print(&screen::list(&view)),
        Some(name) => match view.services.get(name) {
            Some(found) => print(&screen::get(name, found, view.nodes.len())),
            None if view.nodes.is_empty() => print(&screen::silence(&view)),
            None => bail!(
                "no node carries out a Service {name}: `kubectl get services -A` lists those of the API, and its label service.kubernetes.io/service-proxy-name, type ExternalName or clusterIP None keep one from the nodes"
            ),
        },
    }
    Ok(exit_code(complete))
}

fn exit_code(complete: bool) -> ExitCode {
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn full_name(name: &str) -> Result<String> {
    match name.split('/').collect::<Vec<_>>()[..] {
        [name] if !name.is_empty() => Ok(format!("default/{name}")),
        [namespace, name] if !namespace.is_empty() && !name.is_empty() => Ok(format!("{namespace}/{name}")),
        _ => bail!("{name:?} is no Service: give NAMESPACE/NAME"),
    }
}

fn parse(services: &Answers, rows: &Answers) -> BTreeMap<String, NodeAnswer> {
    let read = |answer: &Value| answer.as_array().cloned().unwrap_or_default();
    let nodes = services.iter().map(|(node, answer)| {
        let parsed = match answer {
            Ok(answer) => NodeAnswer::Told {
                services: read(answer)
                    .into_iter()
                    .filter_map(|row| serde_json::from_value(row).ok())
                    .collect(),
                rows: rows
                    .get(node)
                    .and_then(|answer| answer.as_ref().ok())
                    .map(read)
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|row| serde_json::from_value(row).ok())
                    .collect(),
            },
            Err(error) => NodeAnswer::Silent(error.to_string()),
        };
        (node.clone(), parsed)
    });
    nodes.collect()
}

/// What the agents said, by node.
fn raw(services: &Answers, rows: &Answers, name: Option<&str>) -> Value {
    let chosen = |answer: Option<&Value>| -> Value {
        let all = answer.and_then(Value::as_array).cloned().unwrap_or_default();
        let of = |row: &Value| row["service"].as_str().unwrap_or_default().to_owned();
        all.into_iter().filter(|row| name.is_none_or(|name| is_service(&of(row), name))).collect()
    };
    let node = |(node, answer): (&String, &Result<Value, _>)| {
        let value = match answer {
            Err(error) => json!({"error": ToString::to_string(error)}),
            Ok(answer) if name.is_none() => chosen(Some(answer)),
            Ok(answer) => json!({"services": chosen(Some(answer)),
                "frontends": chosen(rows.get(node).and_then(|rows| rows.as_ref().ok()))}),
        };
        (node.clone(), value)
    };
    Value::Object(services.iter().map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::AgentError;

    #[test]
    fn a_name_without_namespace_is_a_default_one() {
        assert_eq!(full_name("web").unwrap(), "default/web");
        assert_eq!(full_name("a/b").unwrap(), "a/b");
        assert!(["", "a/b/c", "/b"].iter().all(|name| full_name(name).is_err()));
    }

    #[test]
    fn json_holds_one_service_with_its_frontends_and_errors_by_node() {
        let services = Answers::from([
            ("node-1".to_owned(), Ok(json!([{"service": "a/b"}, {"service": "a/c"}]))),
            ("node-2".to_owned(), Err(AgentError::NoAgent("node-2".into()))),
        ]);
        let rows = Answers::from([("node-1".to_owned(), Ok(json!([{"service": "a/b", "frontend": "x"}])))]);
        let value = raw(&services, &rows, Some("a/b"));
        assert_eq!(value["node-1"]["services"], json!([{"service": "a/b"}]));
        assert_eq!(value["node-1"]["frontends"][0]["frontend"], "x");
        assert!(value["node-2"]["error"].as_str().unwrap().contains("no agent"));
        assert_eq!(raw(&services, &Answers::new(), None)["node-1"].as_array().unwrap().len(), 2);
    }
}
