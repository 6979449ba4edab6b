//! What people ask of a node's load balancing: answered as JSON on the admin port, and asked there by
//! `skep-agent show`, so that whoever may execute a command in the agent's pod gets an answer.
//!
//! Map: [`routes`] answers, [`lb`], [`flows`] and [`services`] make rows; this file asks and prints.

mod flows;
mod lb;
pub(crate) mod routes;
mod services;

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use serde_json::Value;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Topic {
    /// Frontends and backends.
    Lb,
    /// Flows.
    Ct,
    /// Flows with another source.
    Nat,
    /// Maglev tables.
    Maglev,
    /// Clients that stay with a backend.
    Affinity,
    /// Services as this node carries them out.
    Services,
    /// Pods of this node.
    Endpoints,
    /// Health, uplinks, maps, kube-proxy.
    Health,
}

impl Topic {
    fn path(self) -> &'static str {
        match self {
            Topic::Lb => "/v1/bpf/lb",
            Topic::Ct => "/v1/bpf/ct",
            Topic::Nat => "/v1/bpf/nat",
            Topic::Maglev => "/v1/bpf/maglev",
            Topic::Affinity => "/v1/bpf/affinity",
            Topic::Services => "/v1/services",
            Topic::Endpoints => "/v1/endpoints",
            Topic::Health => "/v1/health",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Asks the agent of this node.
#[derive(Clone, Copy, Debug, Parser)]
#[command(name = "skep-agent show")]
pub(crate) struct ShowTool {
    /// What to show.
    topic: Topic,
    /// How to print it.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    /// The agent's admin port.
    #[arg(long, env = "SKEP_ADMIN", default_value = "127.0.0.1:9870")]
    admin: SocketAddr,
}

/// Asks and prints.
#[allow(clippy::print_stdout, reason = "the answer to a command")]
pub(crate) fn run(tool: ShowTool) -> anyhow::Result<()> {
    let body = get(tool.admin, tool.topic.path())?;
    let answer: Value = serde_json::from_str(&body).context("the agent's answer is not JSON")?;
    match tool.output {
        Output::Json => println!("{answer}"),
        Output::Table => print!("{}", table(&answer)),
    }
    Ok(())
}

/// The body of an answer. HTTP/1.0, so that it comes in one piece.
fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = asked().with_context(|| format!("ask the agent at {admin}: does it run on this node?"))?;
    let (head, body) = text.split_once("\r\n\r\n").context("the agent's answer has no body")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("the agent answers {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}

/// Rows of objects as columns; anything else as JSON.
fn table(answer: &Value) -> String {
    let rows: Vec<_> = answer.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
    let Some(first) = rows.first() else {
        return if answer.is_array() { "none\n".into() } else { format!("{answer:#}\n") };
    };
    let heads: Vec<String> = first.keys().map(|key| key.to_uppercase()).collect();
    let mut lines = vec![heads];
    lines.extend(rows.iter().map(|row| row.values().map(cell).collect::<Vec<String>>()));
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => fields.get("address").map_or_else(|| value.to_string(), cell),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_columns_and_lists_are_joined() {
        let answer = json!([
            {"frontend": "10.96.0.1:443/TCP", "flags": ["external", "split"], "backends": [{"address": "10.0.0.1:1", "slot": 0}]},
            {"frontend": "x", "flags": [], "backends": []},
        ]);
        let text = table(&answer);
        assert_eq!(
            text.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["FRONTEND", "FLAGS", "BACKENDS"]
        );
        assert!(text.contains("10.96.0.1:443/TCP  external,split  10.0.0.1:1"));
        assert_eq!(table(&json!([])), "none\n");
    }
}
