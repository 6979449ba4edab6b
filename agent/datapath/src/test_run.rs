//! Runs a loaded classifier on a packet that never was on a wire: for tests and for benchmarks.

use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};

/// What goes in.
#[derive(Clone, Debug, Default)]
pub struct TestPacket<'a> {
    /// The packet from its Ethernet header on.
    pub bytes: &'a [u8],
    /// Interface that it is seen on; zero stands for loopback. Looked up in the calling thread's network namespace.
    pub ifindex: u32,
    /// Interface that it came in on; zero stands for "made by this node".
    pub ingress_ifindex: u32,
    /// How often the program runs on it; zero means once.
    pub repeat: u32,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// The classifier's verdict: 0 pass, 2 drop, 7 redirect.
    pub verdict: u32,
    /// The packet as the program left it.
    pub bytes: Vec<u8>,
    /// Average duration of a run.
    pub duration: Duration,
}

const CONTEXT_SIZE: usize = 192;
const INGRESS_IFINDEX_AT: usize = 36;
const IFINDEX_AT: usize = 40;

/// Runs a program.
pub(crate) fn run(program: &SchedClassifier, packet: &TestPacket<'_>) -> Result<TestOutcome, ProgramError> {
    let mut context = [0u8; CONTEXT_SIZE];
    context[INGRESS_IFINDEX_AT..INGRESS_IFINDEX_AT + 4]
        .copy_from_slice(&packet.ingress_ifindex.to_ne_bytes());
    context[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&packet.ifindex.to_ne_bytes());
    let mut out = vec![0u8; packet.bytes.len() + 256];
    let result = program.test_run(TestRunOptions {
        data_in: Some(packet.bytes),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        repeat: packet.repeat.max(1),
        ..TestRunOptions::new()
    })?;
    out.truncate(result.data_size_out as usize);
    Ok(TestOutcome { verdict: result.return_value, bytes: out, duration: result.duration })
}

/// Runs the program before the stack. The kernel takes no interface for it: packets are seen on loopback.
pub(crate) fn run_xdp(program: &Xdp, packet: &TestPacket<'_>) -> Result<TestOutcome, ProgramError> {
    let mut out = vec![0u8; packet.bytes.len() + 256];
    let result = program.test_run(TestRunOptions {
        data_in: Some(packet.bytes),
        data_out: Some(&mut out),
        repeat: packet.repeat.max(1),
        ..TestRunOptions::new()
    })?;
    out.truncate(result.data_size_out as usize);
    Ok(TestOutcome { verdict: result.return_value, bytes: out, duration: result.duration })
}
