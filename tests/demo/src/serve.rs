//! The server. A line is answered by a line; `bulk N` by a line of N bytes; a line that begins with
//! `GET` is taken for the first one of an HTTP request. Datagrams are answered like lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use socket2::{Domain, Protocol, Socket, Type};

/// While this file exists, `GET /ready` is answered with 503.
const UNREADY: &str = "/tmp/unready";
/// The protocol number of SCTP.
const SCTP: i32 = 132;
/// Largest answer to `bulk`.
const MOST: usize = 4 << 20;

/// Where to listen.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// TCP ports, with HTTP on each.
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<u16>,
    /// UDP ports.
    #[arg(long, value_delimiter = ',')]
    udp: Vec<u16>,
    /// SCTP ports; said and left out where the kernel has none.
    #[arg(long, value_delimiter = ',')]
    sctp: Vec<u16>,
    /// Seconds to go on serving after SIGTERM.
    #[arg(long, default_value_t = 0)]
    linger: u64,
}

/// Serves until SIGTERM.
pub(crate) fn serve(options: &Serve) -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Before any thread starts: they inherit it.
    signals.thread_block()?;
    for port in options.tcp.iter().copied() {
        let socket = listen(port, Protocol::TCP).with_context(|| format!("cannot listen on TCP {port}"))?;
        thread::spawn(move || accept(&socket, port));
    }
    for port in options.sctp.iter().copied() {
        match listen(port, Protocol::from(SCTP)) {
            Ok(socket) => drop(thread::spawn(move || accept(&socket, port))),
            Err(error) => eprintln!("no SCTP on {port}: {error}"),
        }
    }
    for port in options.udp.iter().copied() {
        let socket =
            bind(port, Type::DGRAM, Protocol::UDP).with_context(|| format!("cannot listen on UDP {port}"))?;
        thread::spawn(move || datagrams(&socket.into(), port));
    }
    eprintln!("serving as {}", name());
    signals.wait()?;
    thread::sleep(Duration::from_secs(options.linger));
    Ok(())
}

/// Both families by one socket, or IPv4 where the kernel has no IPv6.
fn bind(port: u16, kind: Type, protocol: Protocol) -> std::io::Result<Socket> {
    let open = |domain, address: IpAddr| {
        let socket = Socket::new(domain, kind, Some(protocol))?;
        socket.set_reuse_address(true)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.bind(&SocketAddr::new(address, port).into())?;
        Ok(socket)
    };
    open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())
        .or_else(|_: std::io::Error| open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()))
}

fn listen(port: u16, protocol: Protocol) -> std::io::Result<Socket> {
    let socket = bind(port, Type::STREAM, protocol)?;
    socket.listen(1024)?;
    Ok(socket)
}

fn accept(socket: &Socket, port: u16) {
    while let Ok((connection, from)) = socket.accept() {
        let from = from.as_socket();
        thread::spawn(move || {
            // A client that goes away in the middle is its own affair.
            let _ = converse(&connection, port, from);
        });
    }
}

fn converse(connection: &Socket, port: u16, from: Option<SocketAddr>) -> std::io::Result<()> {
    let answer = answer(port, from);
    let mut lines = BufReader::new(connection);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        if let Some(request) = line.strip_prefix("GET ") {
            let ready = !request.starts_with("/ready") || !Path::new(UNREADY).exists();
            http(&mut lines, connection, &answer, ready)?;
        } else {
            (&*connection).write_all(format!("{}\n", reply(&line, &answer)).as_bytes())?;
        }
        line.clear();
    }
    Ok(())
}

fn http(
    lines: &mut BufReader<impl Read>,
    mut connection: impl Write,
    answer: &str,
    ready: bool,
) -> std::io::Result<()> {
    let mut head = String::new();
    while lines.read_line(&mut head)? > 2 {
        head.clear();
    }
    let status = if ready { "200 OK" } else { "503 Service Unavailable" };
    let length = answer.len() + 1;
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{answer}\n"
    );
    connection.write_all(text.as_bytes())
}

fn datagrams(socket: &UdpSocket, port: u16) {
    let mut bytes = vec![0; 65536];
    loop {
        // An error is an ICMP answer to a client that went away.
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let line = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let _ = socket.send_to(reply(&line, &answer(port, Some(from))).as_bytes(), from);
    }
}

fn reply(line: &str, answer: &str) -> String {
    match line.trim().strip_prefix("bulk ").and_then(|size| size.parse::<usize>().ok()) {
        Some(size) => "x".repeat(size.min(MOST)),
        None => answer.to_owned(),
    }
}

fn answer(port: u16, from: Option<SocketAddr>) -> String {
    let node = std::env::var("NODE_NAME").unwrap_or_else(|_| "an unknown node".into());
    let from = from.map_or_else(
        || "an unknown client".to_owned(),
        |from| SocketAddr::new(from.ip().to_canonical(), from.port()).to_string(),
    );
    format!("{} on {node} port {port} from {from}", name())
}

/// The pod's name; the host's name is a pod's, but not on the host's network.
fn name() -> String {
    std::env::var("POD_NAME")
        .ok()
        .or_else(|| nix::unistd::gethostname().ok()?.into_string().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_client_without_its_mapping() {
        let from = "[::ffff:10.0.0.1]:5".parse().ok();
        assert!(answer(80, from).ends_with("port 80 from 10.0.0.1:5"));
    }

    #[test]
    fn bulk_is_as_long_as_asked_and_bounded() {
        assert_eq!(reply("bulk 5\n", "a"), "xxxxx");
        assert_eq!(reply("bulk 99999999999", "a").len(), MOST);
        assert_eq!(reply("?", "a"), "a");
    }
}
