//! Carries bytes between an upgraded client and the runtime, in both directions at once: neither may wait for
//! the other, or a process that echoes its input would block both.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream::SplitSink};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::tcp::OwnedWriteHalf,
    sync::Mutex,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    channels::Channel,
    dial::Upgraded,
    spdy::{self, Frame, Writer},
};

/// The client's side of an upgraded HTTP connection.
pub(crate) type ClientIo = TokioIo<hyper::upgrade::Upgraded>;
type Socket = WebSocketStream<ClientIo>;

/// Why a session ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    /// The runtime's side.
    #[error("container runtime: {0}")]
    Runtime(#[from] std::io::Error),
    /// The client's side.
    #[error("client: {0}")]
    Client(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// A frame that is too large to be true.
    #[error("the container runtime sent a frame of {0} bytes")]
    TooLarge(usize),
}

impl From<tokio_tungstenite::tungstenite::Error> for BridgeError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::Client(Box::new(error))
    }
}

/// Pipes bytes: the client speaks SPDY as the runtime does.
pub(crate) async fn pipe(mut client: ClientIo, mut runtime: Upgraded) -> Result<(), BridgeError> {
    client.write_all(&runtime.early).await?;
    client.flush().await?;
    tokio::io::copy_bidirectional(&mut client, &mut runtime.stream).await?;
    Ok(())
}

/// Pipes SPDY bytes that the client wraps in binary messages.
pub(crate) async fn tunnel(socket: Socket, runtime: Upgraded) -> Result<(), BridgeError> {
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_runtime, mut to_runtime) = runtime.stream.into_split();
    let upward = async {
        while let Some(message) = from_client.next().await {
            match message? {
                Message::Binary(bytes) => to_runtime.write_all(&bytes).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        to_runtime.shutdown().await?;
        Ok::<(), BridgeError>(())
    };
    let downward = async {
        if !runtime.early.is_empty() {
            to_client.send(Message::Binary(runtime.early.into())).await?;
        }
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = from_runtime.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            to_client.send(Message::Binary(Bytes::copy_from_slice(&buffer[..read]))).await?;
        }
        close(&mut to_client).await
    };
    tokio::select! {
        result = downward => result,
        result = upward => result,
    }
}

async fn close(client: &mut SplitSink<Socket, Message>) -> Result<(), BridgeError> {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    client.send(Message::Close(Some(frame))).await?;
    Ok(())
}

/// Which stream a channel is, and back.
struct Table {
    streams: BTreeMap<u8, u32>,
    numbers: BTreeMap<u32, u8>,
    writable: BTreeSet<u8>,
}

/// Translates channels to streams and back until the runtime has said everything.
pub(crate) async fn translate(
    socket: Socket,
    runtime: Upgraded,
    channels: &[Channel],
    greetings: &[Vec<u8>],
) -> Result<(), BridgeError> {
    let (mut to_client, from_client) = socket.split();
    let (from_runtime, mut to_runtime) = runtime.stream.into_split();
    let table = open(&mut to_runtime, channels).await?;
    for greeting in greetings {
        to_client.send(Message::Binary(Bytes::copy_from_slice(greeting))).await?;
    }
    let to_runtime = Mutex::new(to_runtime);
    let open: BTreeSet<u32> = channels
        .iter()
        .filter(|c| c.keeps_open)
        .filter_map(|c| table.streams.get(&c.number).copied())
        .collect();
    let source = runtime.early.as_slice().chain(from_runtime);
    let downward = downward(source, &mut to_client, &to_runtime, &table, open);
    tokio::select! {
        result = downward => result,
        result = upward(from_client, &to_runtime, &table) => result,
    }
}

async fn open(runtime: &mut OwnedWriteHalf, channels: &[Channel]) -> Result<Table, BridgeError> {
    let mut table = Table { streams: BTreeMap::new(), numbers: BTreeMap::new(), writable: BTreeSet::new() };
    let mut writer = Writer::default();
    for (id, channel) in (1u32..).step_by(2).zip(channels) {
        let headers: Vec<_> = channel.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        runtime.write_all(&writer.open(id, false, &headers)).await?;
        table.streams.insert(channel.number, id);
        table.numbers.insert(id, channel.number);
        if channel.from_client {
            table.writable.insert(channel.number);
        }
    }
    Ok(table)
}

/// The client's input; returns when the client goes.
async fn upward(
    mut client: impl StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
    runtime: &Mutex<OwnedWriteHalf>,
    table: &Table,
) -> Result<(), BridgeError> {
    const CLOSE_CHANNEL: u8 = 255;
    while let Some(message) = client.next().await {
        let bytes = match message? {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => break,
            _ => continue,
        };
        let Some((number, payload)) = bytes.split_first() else { continue };
        let (number, fin, payload) = match (*number, payload) {
            (CLOSE_CHANNEL, [closed, ..]) => (*closed, true, &[][..]),
            (number, payload) => (number, false, payload),
        };
        let writable = table.writable.contains(&number).then(|| table.streams.get(&number)).flatten();
        let Some(stream) = writable.filter(|_| fin || !payload.is_empty()) else { continue };
        runtime.lock().await.write_all(&spdy::data(*stream, fin, payload)).await?;
    }
    Ok(())
}

/// The runtime's output; returns when every stream that keeps the session open has ended.
async fn downward(
    mut runtime: impl AsyncRead + Unpin,
    client: &mut SplitSink<Socket, Message>,
    answers: &Mutex<OwnedWriteHalf>,
    table: &Table,
    mut open: BTreeSet<u32>,
) -> Result<(), BridgeError> {
    while !open.is_empty() {
        let Some(frame) = read(&mut runtime).await? else { break };
        match frame {
            Frame::Data { stream, fin, payload } => {
                if let Some(number) = table.numbers.get(&stream).filter(|_| !payload.is_empty()) {
                    let mut message = Vec::with_capacity(payload.len() + 1);
                    message.push(*number);
                    message.extend_from_slice(&payload);
                    client.send(Message::Binary(message.into())).await?;
                }
                if fin {
                    open.remove(&stream);
                }
            }
            Frame::Reply { stream, fin: true } | Frame::Reset(stream) => {
                open.remove(&stream);
            }
            Frame::Ping(id) => answers.lock().await.write_all(&spdy::pong(id)).await?,
            Frame::GoAway => break,
            Frame::Reply { .. } | Frame::Other => {}
        }
    }
    close(client).await
}

/// The next frame; none at the end.
async fn read(runtime: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, BridgeError> {
    let mut head = [0; spdy::HEAD];
    match runtime.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let head = spdy::head(head);
    if head.length > spdy::LARGEST {
        return Err(BridgeError::TooLarge(head.length));
    }
    let mut payload = vec![0; head.length];
    runtime.read_exact(&mut payload).await?;
    Ok(Some(spdy::frame(head, payload.into())))
}
