//! The client: questions over fresh or kept connections, for a number or for a time.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tally::Tally;

/// What to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Ask {
    /// The protocol.
    #[arg(value_enum)]
    protocol: Kind,
    /// Address or name, and port.
    server: String,
    /// How many questions.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Go on for so many seconds instead.
    #[arg(long)]
    seconds: Option<f64>,
    /// Milliseconds between two questions.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Milliseconds until a question counts as lost.
    #[arg(long, default_value_t = 2000)]
    wait: u64,
    /// Ask all over one connection, or one connected socket.
    #[arg(long)]
    keep: bool,
    /// Leave UDP sockets unconnected: each datagram says where it goes, and the answer where it comes from.
    #[arg(long)]
    unconnected: bool,
    /// Ask for so many bytes at once instead of for names.
    #[arg(long)]
    bulk: Option<usize>,
}

/// Protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A line each way.
    Tcp,
    /// A datagram each way.
    Udp,
    /// A line each way, where the kernel has SCTP.
    Sctp,
}

/// A way to the server.
enum Line {
    Stream(Box<BufReader<Socket>>),
    Datagrams(UdpSocket, Option<SocketAddr>),
}

/// Asks it all.
pub(crate) fn ask(options: &Ask) -> Result<Tally> {
    let server = options
        .server
        .to_socket_addrs()
        .with_context(|| format!("{:?} is no address with a port, and no name of one", options.server))?
        .next()
        .context("the name has no address")?;
    let mut tally = Tally::default();
    let mut kept = None;
    let start = Instant::now();
    while more(options, tally.asked(), start) {
        let since = Instant::now();
        let result = question(options, server, &mut kept);
        if result.is_err() || !options.keep {
            kept = None;
        }
        tally.count(&result, since.elapsed());
        sleep(Duration::from_millis(options.pause));
    }
    Ok(tally)
}

fn more(options: &Ask, asked: u64, start: Instant) -> bool {
    match options.seconds {
        Some(seconds) => start.elapsed().as_secs_f64() < seconds,
        None => asked < options.count,
    }
}

fn question(options: &Ask, server: SocketAddr, kept: &mut Option<Line>) -> Result<String> {
    let mut line = match kept.take() {
        Some(line) => line,
        None => open(options, server)?,
    };
    let text = options.bulk.map_or_else(|| "?".to_owned(), |size| format!("bulk {size}"));
    let answer = line.exchange(&text)?;
    if let Some(size) = options.bulk {
        ensure!(answer.len() == size, "{} of {size} bytes came back", answer.len());
    }
    *kept = Some(line);
    Ok(answer)
}

fn open(options: &Ask, server: SocketAddr) -> Result<Line> {
    let wait = Duration::from_millis(options.wait);
    if options.protocol == Kind::Udp {
        let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(wait))?;
        if options.unconnected {
            return Ok(Line::Datagrams(socket, Some(server)));
        }
        socket.connect(server).context("connect")?;
        return Ok(Line::Datagrams(socket, None));
    }
    let protocol = if options.protocol == Kind::Tcp { Protocol::TCP } else { Protocol::from(132) };
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(protocol))?;
    socket.set_read_timeout(Some(wait))?;
    socket.set_write_timeout(Some(wait))?;
    socket.connect_timeout(&server.into(), wait).context("connect")?;
    Ok(Line::Stream(Box::new(BufReader::new(socket))))
}

impl Line {
    fn exchange(&mut self, text: &str) -> Result<String> {
        match self {
            Self::Stream(stream) => {
                stream.get_mut().write_all(format!("{text}\n").as_bytes()).context("send")?;
                let mut answer = String::new();
                ensure!(stream.read_line(&mut answer).context("receive")? > 0, "the server hung up");
                Ok(answer.trim_end().to_owned())
            }
            Self::Datagrams(socket, server) => exchange_datagrams(socket, *server, text),
        }
    }
}

fn exchange_datagrams(socket: &UdpSocket, server: Option<SocketAddr>, text: &str) -> Result<String> {
    let mut bytes = vec![0; 65536];
    let length = match server {
        None => {
            socket.send(text.as_bytes()).context("send")?;
            socket.recv(&mut bytes).context("receive")?
        }
        Some(server) => {
            socket.send_to(text.as_bytes(), server).context("send")?;
            let (length, from) = socket.recv_from(&mut bytes).context("receive")?;
            if from != server {
                bail!("asked {server}, the answer came from {from}");
            }
            length
        }
    };
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}
