//! A virtual machine: QEMU without KVM, two serial ports, no disk and no network card.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::shell::{command, end_group};
use crate::signals::{Group, spawn};

/// Panics end the machine at once, so that a crash is not taken for a slow test.
const KERNEL_LINE: &str = "console=ttyS0 loglevel=4 panic=-1 mitigations=off rdinit=/init";

/// How a machine ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It switched itself off, or died.
    ByItself,
    /// It was ended at the limit.
    AtTheLimit,
}

/// Runs a machine to its end, hands on each line of its second serial port, and keeps the first one's in `console`.
pub(crate) fn boot(
    kernel: &Path,
    initramfs: &Path,
    console: &Path,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<Ended> {
    let deadline = Instant::now() + limit;
    let mut qemu = qemu(kernel, initramfs, console);
    let mut child = spawn(qemu.stdin(Stdio::null()).stdout(Stdio::piped())).context("cannot run QEMU")?;
    let _ends_with_us = Group::of(&child);
    let output = child.stdout.take().context("no output to read")?;
    let (send, lines) = channel();
    let reader = std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if send.send(text).is_err() {
                return;
            }
        }
    });
    let ended = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break Ended::ByItself,
            Err(RecvTimeoutError::Timeout) => break Ended::AtTheLimit,
        }
    };
    if ended == Ended::AtTheLimit {
        end_group(&mut child)?;
    }
    child.wait()?;
    let _no_panic_inside = reader.join();
    Ok(ended)
}

fn qemu(kernel: &Path, initramfs: &Path, console: &Path) -> Command {
    // Should this process be killed, the machine ends too.
    let mut qemu = command("setpriv", &["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    qemu.args(["-machine", "q35,accel=tcg,usb=off", "-cpu", "max,la57=off", "-smp", "1", "-m", "1536"]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", KERNEL_LINE]);
    qemu
}
