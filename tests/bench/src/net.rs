//! Request/response between pods of two nodes, beside what the same kernel does without us.
//!
//! Four setups live side by side in namespaces of this machine: our overlay; the kernel's own VXLAN device with plain
//! routing; pods whose programs do nothing but redirect (the limit of native routing); and the bare link between two
//! nodes. Rounds of all setups alternate, so that a busy moment hits each alike; medians are compared.

mod setups;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use skep_test_programs::netns::Netns;
use socket2::SockRef;

use crate::report::{Goal, Peer, Report};
use setups::Setups;

/// Options.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Rounds per setup and pattern.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Milliseconds a round.
    #[arg(long, default_value_t = 250)]
    milliseconds: u64,
}

/// How a client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    /// One connection, a byte there and a byte back.
    RequestResponse,
    /// A connection for each byte.
    ConnectRequestResponse,
    /// One connection, as many bytes as go through.
    Stream,
}

impl Pattern {
    const ALL: [Pattern; 3] = [Pattern::RequestResponse, Pattern::ConnectRequestResponse, Pattern::Stream];

    fn name(self) -> &'static str {
        match self {
            Pattern::RequestResponse => "request/response",
            Pattern::ConnectRequestResponse => "connect/request/response",
            Pattern::Stream => "stream",
        }
    }

    fn unit(self) -> &'static str {
        if self == Pattern::Stream { "MB/s" } else { "1/s" }
    }
}

const PORT: u16 = 5201;
const PATIENCE: Duration = Duration::from_secs(5);
const STREAM_BLOCK: usize = 128 * 1024;

/// A client's and a server's place in one setup.
pub(crate) struct Path<'a> {
    /// Where the client runs.
    client: &'a Netns,
    /// Where the server runs.
    server: &'a Netns,
    /// The server's address.
    address: Ipv4Addr,
}

/// Measures and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    let setups = Setups::new()?;
    let paths = setups.paths();
    let mut report = Report::new("net");
    for pattern in Pattern::ALL {
        let mut rates = vec![Vec::new(); paths.len()];
        for round in 0..=args.rounds {
            for (rates, path) in rates.iter_mut().zip(&paths) {
                let rate = measure(path, pattern, Duration::from_millis(args.milliseconds))?;
                // The first round warms caches and neighbour tables up.
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        let [ours, vxlan, limit, bare] = &rates[..] else { anyhow::bail!("four setups") };
        let ours = median(ours)?;
        let mut add = |peer, rates, goal| -> Result<()> {
            let peer = Peer { name: peer, value: median(rates)? };
            report.add(format!("overlay, {}", pattern.name()), ours, pattern.unit(), peer, goal);
            Ok(())
        };
        add("the kernel's own VXLAN", vxlan, Goal::AtLeast(0.90))?;
        add("redirect-only programs, native", limit, Goal::None)?;
        add("bare link between nodes", bare, Goal::None)?;
    }
    setups.check_no_drops()?;
    report.finish()
}

fn median(rates: &[f64]) -> Result<f64> {
    let mut sorted = rates.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().context("no rounds")
}

/// Transactions a second.
fn measure(path: &Path<'_>, pattern: Pattern, time: Duration) -> Result<f64> {
    let address = SocketAddr::from((path.address, PORT));
    let listener = path.server.within(|| Ok(TcpListener::bind(address)?))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, pattern, &done));
        let rate = path.client.within(|| match pattern {
            Pattern::RequestResponse => request_response(address, time),
            Pattern::ConnectRequestResponse => connect_request_response(address, time),
            Pattern::Stream => stream(address, time),
        });
        done.store(true, Ordering::Relaxed);
        // One more connection, from beside it, wakes the server, which then sees that it is done.
        drop(path.server.within(|| Ok(connect(address)?)));
        server.join().map_err(|_panic| anyhow::anyhow!("the server panicked"))??;
        rate.with_context(|| format!("from {} to {}", path.client.name(), path.server.name()))
    })
}

fn serve(listener: &TcpListener, pattern: Pattern, done: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; STREAM_BLOCK];
    while !done.load(Ordering::Relaxed) {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        if pattern == Pattern::Stream {
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
            continue;
        }
        let mut byte = [0];
        // A reset ends a connection like a close does.
        while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
    }
    Ok(())
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

fn request_response(address: SocketAddr, time: Duration) -> Result<f64> {
    let mut stream = connect(address).context("cannot connect")?;
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < time {
        exchange(&mut stream)?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn connect_request_response(address: SocketAddr, time: Duration) -> Result<f64> {
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < time {
        let mut stream = connect(address).context("cannot connect")?;
        exchange(&mut stream)?;
        // A reset instead of a close: otherwise the ports would run out before the time.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// Megabytes a second that the client got rid of.
fn stream(address: SocketAddr, time: Duration) -> Result<f64> {
    let mut stream = connect(address).context("cannot connect")?;
    let block = vec![7; STREAM_BLOCK];
    let (start, mut bytes) = (Instant::now(), 0usize);
    while start.elapsed() < time {
        stream.write_all(&block)?;
        bytes += block.len();
    }
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}
