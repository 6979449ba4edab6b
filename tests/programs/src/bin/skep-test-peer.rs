//! A client or a server for tests in namespaces: every behaviour is one argument list.
//!
//! `[--cgroup DIR] tcp-echo ADDR NAME | udp-echo ADDR NAME | tcp-get ADDR | udp-get ADDR | bulk ADDR BYTES | hold ADDR |
//! ping IP SIZE whole|fragments`

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--cgroup") {
        let cgroup = arguments.get(1).context("--cgroup needs a folder")?;
        fs::write(format!("{cgroup}/cgroup.procs"), "0").context("cannot join the cgroup")?;
        arguments.drain(..2);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["tcp-echo", address, name] => tcp_echo(address, name),
        ["udp-echo", address, name] => udp_echo(address, name),
        ["tcp-get", address] => tcp_get(address),
        ["udp-get", address] => udp_get(address),
        ["bulk", address, bytes] => bulk(address, bytes.parse()?),
        ["hold", address] => hold(address),
        ["ping", address, size, "whole"] => ping(address, size.parse()?, Fragments::Never),
        ["ping", address, size, "fragments"] => ping(address, size.parse()?, Fragments::Allowed),
        other => bail!("no such behaviour: {other:?}"),
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Greets with its name and the client's address, then echoes until the end.
fn tcp_echo(address: &str, name: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)?;
    say("ready")?;
    for stream in listener.incoming() {
        let (stream, name) = (stream?, name.to_owned());
        std::thread::spawn(move || serve(&stream, &name));
    }
    Ok(())
}

fn serve(mut stream: &TcpStream, name: &str) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    writeln!(stream, "{name} {}", stream.peer_addr()?.ip())?;
    let mut buffer = vec![0; 65_536];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}

fn udp_echo(address: &str, name: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(address)?;
    say("ready")?;
    let mut buffer = vec![0; 65_536];
    loop {
        let (count, from) = socket.recv_from(&mut buffer)?;
        let mut answer = format!("{name} {} ", from.ip()).into_bytes();
        answer.extend(&buffer[..count]);
        socket.send_to(&answer, from)?;
    }
}

fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address.parse()?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Prints the greeting and who the socket says its peer is.
fn tcp_get(address: &str) -> anyhow::Result<()> {
    let stream = connect(address)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    say(&format!("{} peer={}", line.trim_end(), stream.peer_addr()?))
}

/// Sends twice from one unconnected socket, and prints both answers and their senders.
fn udp_get(address: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 65_536];
    for word in ["one", "two"] {
        socket.send_to(word.as_bytes(), address)?;
        let (count, from) = socket.recv_from(&mut buffer)?;
        say(&format!("{} from={from}", String::from_utf8_lossy(&buffer[..count])))?;
    }
    Ok(())
}

/// Sends bytes and reads them back, compared.
fn bulk(address: &str, bytes: usize) -> anyhow::Result<()> {
    let stream = connect(address)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut String::new())?;
    let writer = std::thread::spawn(move || {
        let pattern: Vec<u8> = (0..=250u8).cycle().take(251 * 64).collect();
        let mut left = bytes;
        while left > 0 {
            let part = left.min(pattern.len());
            (&stream).write_all(&pattern[..part])?;
            left -= part;
        }
        std::io::Result::Ok(())
    });
    let (mut seen, mut buffer) = (0usize, vec![0; 65_536]);
    while seen < bytes {
        let count = reader.read(&mut buffer)?;
        ensure!(count > 0, "the connection ended after {seen} bytes");
        for byte in &buffer[..count] {
            ensure!(usize::from(*byte) == seen % 251, "byte {seen} is wrong");
            seen += 1;
        }
    }
    writer.join().map_err(|_panic| anyhow::anyhow!("the writer panicked"))??;
    say(&format!("bulk {seen}"))
}

/// One connection: for each line of its input, sends it and prints what comes back.
fn hold(address: &str) -> anyhow::Result<()> {
    let stream = connect(address)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut greeting = String::new();
    reader.read_line(&mut greeting)?;
    say(greeting.trim_end())?;
    for line in std::io::stdin().lines() {
        writeln!(&stream, "{}", line?)?;
        let mut answer = String::new();
        reader.read_line(&mut answer)?;
        say(answer.trim_end())?;
    }
    Ok(())
}

/// Whether a ping may travel in pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fragments {
    Allowed,
    Never,
}

/// Sends echo requests with this many bytes of payload, and wants each answered with the same bytes.
fn ping(address: &str, size: usize, fragments: Fragments) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    if fragments == Fragments::Never {
        refuse_fragments(&socket)?;
    }
    let to = SocketAddr::new(address.parse::<IpAddr>()?, 0);
    let id = (std::process::id() as u16).to_be_bytes();
    for sequence in 1..=3u16 {
        let mut request = vec![8, 0, 0, 0];
        request.extend(id);
        request.extend(sequence.to_be_bytes());
        request.extend((0..size).map(|at| at as u8));
        let checksum = skep_packet::csum::checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&checksum);
        socket.send_to(&request, &to.into())?;
        while !is_answer(&receive(&socket)?, &request) {}
    }
    say(&format!("pong {size}"))
}

fn receive(socket: &Socket) -> anyhow::Result<Vec<u8>> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 65_536];
    let count = socket.recv(&mut buffer).context("no answer")?;
    // SAFETY: the kernel has filled this many bytes.
    Ok(buffer[..count].iter().map(|byte| unsafe { byte.assume_init() }).collect())
}

/// Whether a received packet, IP header included, answers the request.
fn is_answer(packet: &[u8], request: &[u8]) -> bool {
    let header = usize::from(packet[0] & 0xf) * 4;
    packet.get(header) == Some(&0) && packet.get(header + 4..) == Some(&request[4..])
}

fn refuse_fragments(socket: &Socket) -> anyhow::Result<()> {
    let value: libc::c_int = libc::IP_PMTUDISC_DO;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and size describe `value`, which lives during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            std::ptr::from_ref(&value).cast(),
            size,
        )
    };
    ensure!(result == 0, "IP_MTU_DISCOVER: {}", std::io::Error::last_os_error());
    Ok(())
}
