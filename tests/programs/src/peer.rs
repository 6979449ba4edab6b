//! Runs `skep-test-peer` in namespaces.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context, ensure};

use crate::netns::Netns;

/// A running peer; it ends with its value.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `program` (the path of `skep-test-peer`) in a namespace, inside a cgroup if one is given.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        program: &str,
        netns: &Netns,
        cgroup: Option<&Path>,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = netns.command(program);
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the peer")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, input, output })
    }

    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn serve(program: &str, netns: &Netns, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut peer = Self::start(program, netns, None, arguments)?;
        let line = peer.line()?;
        ensure!(line == "ready", "{arguments:?} said {line:?}");
        Ok(peer)
    }

    /// Runs a client to its end and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(
        program: &str,
        netns: &Netns,
        cgroup: Option<&Path>,
        arguments: &[&str],
    ) -> anyhow::Result<Vec<String>> {
        let mut peer = Self::start(program, netns, cgroup, arguments)?;
        let mut lines = Vec::new();
        while let Ok(line) = peer.line() {
            lines.push(line);
        }
        let status = peer.child.wait()?;
        ensure!(status.success(), "{arguments:?} failed after {lines:?}");
        Ok(lines)
    }

    /// The next line that it prints.
    ///
    /// # Errors
    /// When it has ended.
    pub fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let count = self.output.read_line(&mut line)?;
        ensure!(count > 0, "the peer has ended");
        Ok(line.trim_end().to_owned())
    }

    /// Writes a line to it and returns the line it prints.
    ///
    /// # Errors
    /// When it has ended.
    pub fn exchange(&mut self, line: &str) -> anyhow::Result<String> {
        writeln!(self.input, "{line}")?;
        self.input.flush()?;
        self.line()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _best_effort = self.child.kill();
        let _best_effort = self.child.wait();
    }
}
