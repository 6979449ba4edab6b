//! Container Runtime Interface v1: the generated client, and how to dial a runtime's unix socket.
//!
//! The messages are a trimmed form of the public interface (see `proto/cri.proto`); conversions to the kubelet's
//! own nouns live in the kubelet, the only speaker.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// The generated messages and clients.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated; the .proto file holds the documentation"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// The largest gRPC answer taken from a runtime: lists of a full node and captured command output fit.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A channel to the runtime listening on `socket`. Nothing is dialled until the first call, and a lost
/// connection is dialled again by the next call, so a restarted runtime needs no new channel.
pub fn connect_lazy(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://cri.local").connect_with_connector_lazy(connector)
}
