//! A cluster of this suite's own, with a name, a port and a folder that collide with no other.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{Said, eventually, run};
use crate::outside;

/// How long bringing a cluster up may take.
const UP: Duration = Duration::from_secs(300);
/// How long a kubectl command may take.
const KUBECTL: Duration = Duration::from_secs(120);

/// A lab cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    prefix: &'static str,
    port: u16,
    dir: PathBuf,
    target: PathBuf,
    images: PathBuf,
}

impl Cluster {
    /// A cluster that is not up yet, on a port that is free now.
    pub fn new(prefix: &'static str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self::on_port(prefix, port))
    }

    /// A cluster that is not up yet.
    pub fn on_port(prefix: &'static str, port: u16) -> Self {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), PathBuf::from);
        let images = std::env::var_os("SKEP_IMAGES_DIR").map_or_else(|| target.join("images"), PathBuf::from);
        Self { prefix, port, dir: target.join("lab").join(prefix), target, images }
    }

    /// The cluster's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of a node's namespace and cgroup on this machine.
    pub fn machine(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// Name of the router's namespace on this machine.
    pub fn router(&self) -> String {
        self.machine("router")
    }

    /// A program of this workspace.
    pub fn program(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// The `skep` program with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program("skep"));
        command.args(arguments).env("KUBECONFIG", self.dir.join("kubeconfig"));
        command
    }

    /// `skep` with a question about this cluster.
    pub fn ask_skep(&self, line: &str) -> Result<Said> {
        self.skep(&line.split_whitespace().collect::<Vec<_>>(), KUBECTL)
    }

    fn skep(&self, arguments: &[&str], limit: Duration) -> Result<Said> {
        run(&mut self.command(arguments), b"", limit)
    }

    /// The arguments of `skep up` for this cluster.
    pub fn up_command(&self, more: &[&str]) -> Command {
        let port = self.port.to_string();
        let mut command = self.command(&["up", "--prefix", self.prefix, "--api-port", &port]);
        command.arg("--dir").arg(&self.dir).arg("--images-dir").arg(&self.images).args(more);
        command
    }

    /// Brings it up, or repairs it; returns what was printed.
    pub fn up(&self, more: &[&str]) -> Result<String> {
        fs::create_dir_all(self.dir.parent().unwrap_or(&self.dir))?;
        run(&mut self.up_command(more), b"", UP)?.ok()
    }

    /// Takes it down.
    pub fn down(&self) -> Result<String> {
        outside::remove(self)?;
        let dir = self.dir.to_string_lossy().into_owned();
        self.skep(&["down", "--prefix", self.prefix, "--dir", &dir], UP)?.ok()
    }

    /// Turns a node's power switch.
    pub fn power(&self, switch: &str, node: &str) -> Result<String> {
        let dir = self.dir.to_string_lossy().into_owned();
        self.skep(&["node", switch, node, "--dir", &dir], UP)?.ok()
    }

    /// `skep status`.
    pub fn status(&self, arguments: &[&str]) -> Result<Said> {
        let mut all = vec!["status"];
        all.extend(arguments);
        self.skep(&all, KUBECTL)
    }

    /// kubectl, with a result that may be a failure. Words are split at spaces; see [`Self::kubectl_words`].
    pub fn try_kubectl(&self, line: &str) -> Result<Said> {
        self.kubectl_words(&line.split_whitespace().collect::<Vec<_>>(), b"")
    }

    /// kubectl with words that may hold spaces, and an input.
    pub fn kubectl_words(&self, words: &[&str], input: &[u8]) -> Result<Said> {
        run(&mut self.kubectl_command(words), input, KUBECTL)
    }

    /// kubectl, not started.
    pub fn kubectl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(words)
            .env("KUBECONFIG", self.dir.join("kubeconfig"))
            .env("HOME", self.dir.with_file_name("home"));
        command
    }

    /// kubectl that must succeed.
    pub fn kubectl(&self, line: &str) -> Result<String> {
        self.try_kubectl(line)?.ok().with_context(|| format!("kubectl {line}"))
    }

    /// kubectl's JSON.
    pub fn json(&self, line: &str) -> Result<Value> {
        let text = self.kubectl(&format!("{line} -o json"))?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {line} printed no JSON"))
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.with_manifest(&["apply"], manifest)?.ok()
    }

    /// kubectl with a manifest in YAML as its input.
    pub fn with_manifest(&self, words: &[&str], manifest: &str) -> Result<Said> {
        // A text that begins with a brace would be taken for JSON.
        self.kubectl_words(&[words, &["-f", "-"]].concat(), format!("---\n{manifest}").as_bytes())
    }

    /// Runs a script in the demo's client pod.
    pub fn in_client(&self, script: &str) -> Result<String> {
        self.kubectl_words(&["exec", "deploy/client", "--", "sh", "-c", script], b"")?.ok()
    }

    /// Asks the demo's Service from its client pod, so many times.
    pub fn ask_web(&self, times: u32) -> Result<Vec<String>> {
        let script =
            format!("i=0; while [ $i -lt {times} ]; do timeout 3 wget -qO- http://web; i=$((i+1)); done");
        Ok(self.in_client(&script)?.lines().map(str::to_owned).collect())
    }

    /// The web Service answers.
    pub fn web_answers(&self) -> Result<()> {
        let answers = self.ask_web(5)?;
        if answers.len() < 5 {
            bail!("{} of 5 requests were answered", answers.len());
        }
        Ok(())
    }

    /// Names of the nodes whose Ready condition is this.
    pub fn nodes_with_ready(&self, wanted: &str) -> Result<Vec<String>> {
        let nodes = self.json("get nodes")?;
        let ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == wanted)
        };
        let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
        let names =
            nodes.iter().filter(|node| ready(node)).filter_map(|node| node["metadata"]["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Waits until so many nodes are Ready.
    pub fn wait_ready(&self, wanted: usize, limit: Duration) -> Result<()> {
        eventually(limit, || {
            let ready = self.nodes_with_ready("True")?;
            if ready.len() != wanted {
                bail!("Ready: {ready:?}");
            }
            Ok(())
        })
    }

    /// Names and nodes of the running, ready pods with this label.
    pub fn ready_pods(&self, label: &str) -> Result<Vec<(String, String)>> {
        let pods = self.json(&format!("get pods -A -l {label}"))?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            pod["metadata"]["deletionTimestamp"].is_null()
                && conditions
                    .iter()
                    .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(pods
            .iter()
            .filter(ready)
            .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"])))
            .collect())
    }

    /// Everything that explains a failure.
    pub fn explain(&self) {
        for line in ["get nodes -o wide", "get pods -A -o wide", "get events -A"] {
            if let Ok(said) = self.try_kubectl(line) {
                let text = format!("{}{}", said.out, said.err);
                let tail: Vec<&str> = text.lines().rev().take(40).collect();
                eprintln!("--- kubectl {line}");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        if let Ok(said) = self.status(&[]) {
            eprintln!("--- skep status\n{}{}", said.out, said.err);
        }
    }
}
