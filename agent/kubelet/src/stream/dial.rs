//! Dials the runtime's streaming server and upgrades to SPDY/3.1.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A stream that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The runtime gave no usable URL.
    #[error("the container runtime gave the streaming URL {0:?}, which cannot be dialled")]
    Url(String),
    /// The connection failed.
    #[error("cannot reach the container runtime's streaming server: {0}")]
    Io(#[from] io::Error),
    /// The runtime did not upgrade.
    #[error("the container runtime's streaming server answered {0:?}")]
    Refused(String),
}

/// An upgraded connection.
#[derive(Debug)]
pub(crate) struct Upgraded {
    /// The connection.
    pub(crate) stream: TcpStream,
    /// Bytes that came right behind the answer.
    pub(crate) early: Vec<u8>,
    /// The stream protocol that was agreed on.
    pub(crate) protocol: Option<String>,
}

const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: usize = 16 * 1024;

/// Opens `url` offering `protocols`.
pub(crate) async fn spdy(url: &str, protocols: &[String]) -> Result<Upgraded, DialError> {
    let bad = || DialError::Url(url.to_owned());
    let uri: http::Uri = url.parse().map_err(|_invalid| bad())?;
    let authority = uri.authority().ok_or_else(bad)?.as_str().to_owned();
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let exchange = async {
        let mut stream = TcpStream::connect(&authority).await?;
        stream.set_nodelay(true)?;
        stream.write_all(request(&authority, &path, protocols).as_bytes()).await?;
        answer(stream).await
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(DialError::Io(io::Error::new(io::ErrorKind::TimedOut, elapsed))))
}

fn request(authority: &str, path: &str, protocols: &[String]) -> String {
    let offers: String = protocols.iter().map(|p| format!("X-Stream-Protocol-Version: {p}\r\n")).collect();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         Content-Length: 0\r\n{offers}\r\n"
    )
}

async fn answer(mut stream: TcpStream) -> Result<Upgraded, DialError> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if bytes.len() > LONGEST_ANSWER {
            return Err(DialError::Refused("an endless header".to_owned()));
        }
        let mut chunk = [0; 2048];
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(DialError::Refused("nothing".to_owned()));
        }
        bytes.extend_from_slice(&chunk[..read]);
    };
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
        return Err(DialError::Refused(format!("{status} {body}").trim().to_owned()));
    }
    let protocol = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("x-stream-protocol-version").then(|| value.trim().to_owned())
    });
    Ok(Upgraded { stream, early: bytes.split_off(end + 4), protocol })
}
