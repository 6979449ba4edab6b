//! One plain HTTP request, for health ports.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result};

const WAIT: Duration = Duration::from_secs(3);

/// The answer as it comes, headers included.
pub(crate) fn fetch(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").context("only http:// is spoken here")?;
    let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = server.to_socket_addrs().with_context(|| format!("{server:?} is no ADDRESS:PORT"))?.next();
    let mut stream = TcpStream::connect_timeout(&address.context("the name has no address")?, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
