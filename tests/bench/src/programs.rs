//! Nanoseconds a packet spends in our programs, beside a program that does nothing.
//!
//! Paths that leave the packet as it was run hot, many times in a row. Paths that translate it cannot: the next run would
//! see another packet. They run once per call, beside the empty program measured the same way.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use skep_abi::programs::{Classifier, FROM_HOST, FROM_POD, FROM_UPLINK, TO_POD};
use skep_datapath::{Frontend, FrontendFlags, Limits, Scope, TestPacket, limits, verify::verify};
use skep_model::Protocol;
use skep_test_programs::{
    Bench, Crafted, Segment,
    bench::{
        BpfFs, DROP, GATEWAY, HOST_MAC, LOOPBACK, NEIGHBOUR, NET_MAC, NODE, PASS, POD, POD_HOST_MAC, POD_MAC,
        REDIRECT, REMOTE_POD, VIP, WORLD,
    },
    craft::{ACK, SYN},
};

use crate::report::{Goal, Peer, Report};

const NODE_PORT: u16 = 30_080;
/// The router that the world is behind.
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// Options.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Runs per measurement of a path that can run hot.
    #[arg(long, default_value_t = 1_000_000)]
    repeat: u32,
    /// Calls per measurement of a path that translates.
    #[arg(long, default_value_t = 20_000)]
    calls: u32,
}

/// Measures and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    let bench = Bench::new()?;
    bench.loop_neighbour()?;
    let limits = Limits::open(None, 0, 0)?;
    let mut report = Report::new("programs");
    hot(&bench, &limits, args, &mut report)?;
    single(&bench, &limits, args, &mut report)?;
    verifier(&mut report)?;
    report.finish()
}

fn tcp(from: u16, to: u16, flags: u8) -> Segment {
    Segment::Tcp(from, to, flags, vec![0; 64])
}

fn from_pod(dst: std::net::Ipv4Addr, segment: Segment) -> Vec<u8> {
    Crafted::new(POD_MAC, POD_HOST_MAC, POD, dst, segment).bytes()
}

fn seen(bytes: &[u8], repeat: u32) -> TestPacket<'_> {
    TestPacket { bytes, ifindex: LOOPBACK, ingress_ifindex: 0, repeat }
}

/// Link-layer address of the device of a test run: the loopback's.
const OWN_MAC: [u8; 6] = [0; 6];

/// The fastest of several measurements: the others were interrupted.
fn fastest(mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        best = best.min(measure()?);
    }
    Ok(best)
}

fn hot(bench: &Bench, limits: &Limits, args: &Args, report: &mut Report) -> Result<()> {
    let local = from_pod(NEIGHBOUR, tcp(4000, 80, ACK));
    let noop =
        fastest(
            || Ok(limits.test_run(limits::NOOP, &seen(&local, args.repeat))?.duration.as_nanos() as f64),
        )?;
    let peer = Peer { name: "a program that does nothing", value: noop };
    let from_world = |to| Crafted::new(ROUTER_MAC, OWN_MAC, WORLD, NODE, tcp(5000, to, ACK)).bytes();
    let paths: [(&str, &Classifier, Vec<u8>, u32); 8] = [
        ("from a pod to a neighbour (tracked, redirected)", &FROM_POD, local.clone(), REDIRECT),
        ("from a pod into the tunnel", &FROM_POD, from_pod(REMOTE_POD, tcp(4000, 80, ACK)), REDIRECT),
        ("from a pod to its node", &FROM_POD, from_pod(NODE, tcp(4000, 80, ACK)), PASS),
        (
            "from the node to a pod",
            &TO_POD,
            Crafted::new(POD_HOST_MAC, POD_MAC, NODE, POD, tcp(5000, 80, ACK)).bytes(),
            PASS,
        ),
        (
            "from the node into the tunnel",
            &FROM_HOST,
            Crafted::new(HOST_MAC, NET_MAC, NODE, REMOTE_POD, tcp(5000, 80, ACK)).bytes(),
            REDIRECT,
        ),
        ("at the uplink, no port of a Service", &FROM_UPLINK, from_world(22), PASS),
        (
            "at the uplink, in the range of node ports, none of ours",
            &FROM_UPLINK,
            from_world(NODE_PORT + 1),
            PASS,
        ),
        (
            "spoofed source, dropped",
            &FROM_POD,
            Crafted::new(POD_MAC, POD_HOST_MAC, WORLD, NEIGHBOUR, tcp(1, 2, ACK)).bytes(),
            DROP,
        ),
    ];
    for (name, program, bytes, verdict) in paths {
        let value = fastest(|| {
            let outcome = bench.datapath().test_run(program, &seen(&bytes, args.repeat))?;
            ensure!(outcome.verdict == verdict, "{name}: verdict {}", outcome.verdict);
            Ok(outcome.duration.as_nanos() as f64)
        })?;
        report.add(name, value, "ns", peer, Goal::None);
    }
    Ok(())
}

/// The median of single runs.
fn median(calls: u32, mut measure: impl FnMut(u32) -> Result<u64>) -> Result<f64> {
    let mut all = Vec::with_capacity(calls as usize);
    for call in 0..calls {
        all.push(measure(call)?);
    }
    all.sort_unstable();
    Ok(*all.get(all.len() / 2).context("no calls")? as f64)
}

/// A node port with a backend on this node: its packets are known by their flow, or new.
fn node_port(bench: &Bench, calls: u32, add: &mut impl FnMut(&str, f64)) -> Result<()> {
    let flags = FrontendFlags { external: true, node_port: true, ..FrontendFlags::default() };
    let backends = [(IpAddr::V4(NEIGHBOUR), 8080)];
    let place = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), NODE_PORT, Protocol::Tcp);
    bench.frontend(place, Scope::Inside, Frontend { flags, ..Frontend::new(3, 0) }, &backends)?;
    let run = |from: u16, flags: u8| -> Result<u64> {
        let packet = Crafted::new(ROUTER_MAC, OWN_MAC, WORLD, NODE, tcp(from, NODE_PORT, flags)).bytes();
        let outcome = bench.datapath().test_run(&FROM_UPLINK, &seen(&packet, 1))?;
        ensure!(outcome.verdict == REDIRECT, "verdict {}", outcome.verdict);
        Ok(outcome.duration.as_nanos() as u64)
    };
    run(5000, SYN)?;
    add("one run: node port, known flow, DNAT to a pod here", median(calls, |_| run(5000, ACK))?);
    let fresh = |call: u32| run(1 + (call % 60_000) as u16, SYN);
    add("one run: first packet to a node port", median(calls, fresh)?);
    Ok(())
}

/// What this kernel's verifier looked at, and how long it took.
fn verifier(report: &mut Report) -> Result<()> {
    let pins = BpfFs::mount()?;
    for fact in verify(None, pins.path(), &[])? {
        ensure!(fact.refused.is_none(), "{} is refused: {:?}", fact.program, fact.refused);
        let name = format!("verified instructions of {}", fact.program);
        let limit = Peer { name: "the kernel's limit", value: 1_000_000.0 };
        report.add(name, f64::from(fact.verified), "", limit, Goal::AtMost(1.0));
        let seconds = Peer { name: "a second", value: 1000.0 };
        let name = format!("time to load {}", fact.program);
        report.add(name, fact.duration.as_secs_f64() * 1000.0, "ms", seconds, Goal::None);
    }
    Ok(())
}

fn single(bench: &Bench, limits: &Limits, args: &Args, report: &mut Report) -> Result<()> {
    bench.service(1, Protocol::Tcp, 80, &[(NEIGHBOUR, 8080), (REMOTE_POD, 8080)])?;
    bench.service(2, Protocol::Tcp, 81, &[(POD, 8080)])?;
    let nanoseconds = |program: &Classifier, bytes: &[u8]| -> Result<u64> {
        let outcome = bench.datapath().test_run(program, &seen(bytes, 1))?;
        ensure!(outcome.verdict == REDIRECT, "verdict {}", outcome.verdict);
        Ok(outcome.duration.as_nanos() as u64)
    };
    let plain = from_pod(NEIGHBOUR, tcp(4000, 80, ACK));
    let noop = median(args.calls, |_| {
        Ok(limits.test_run(limits::NOOP, &seen(&plain, 1))?.duration.as_nanos() as u64)
    })?;
    let peer = Peer { name: "a program that does nothing, one run a call", value: noop };
    let mut add = |name: &str, value: f64| report.add(name, value, "ns", peer, Goal::None);

    add("one run: from a pod to a neighbour", median(args.calls, |_| nanoseconds(&FROM_POD, &plain))?);
    let service = from_pod(VIP, tcp(6000, 80, ACK));
    add("one run: Service, known flow, DNAT", median(args.calls, |_| nanoseconds(&FROM_POD, &service))?);
    let asked = Crafted::new(HOST_MAC, NET_MAC, GATEWAY, VIP, tcp(7000, 81, SYN)).bytes();
    nanoseconds(&FROM_HOST, &asked)?;
    let answer = from_pod(GATEWAY, tcp(8080, 7000, ACK));
    add("one run: Service, reply, source back", median(args.calls, |_| nanoseconds(&FROM_POD, &answer))?);
    let fresh = |call: u32| from_pod(NEIGHBOUR, tcp(1 + (call % 60_000) as u16, 9, SYN));
    add("one run: first packet of a flow", median(args.calls, |call| nanoseconds(&FROM_POD, &fresh(call)))?);
    let fresh = |call: u32| from_pod(VIP, tcp(1 + (call % 60_000) as u16, 80, SYN));
    add(
        "one run: first packet to a Service",
        median(args.calls, |call| nanoseconds(&FROM_POD, &fresh(call)))?,
    );
    node_port(bench, args.calls, &mut add)
}
