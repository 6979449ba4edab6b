//! Unix sockets between processes of one node: root only, replaced without a gap.
//!
//! A socket is bound under a temporary name, restricted, and renamed into place, so it is never reachable with wider
//! rights and a client never finds it missing while its server restarts. The peer's credentials are checked on each
//! connection as well (unix(7), SO_PEERCRED).

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::transport::{Channel, Endpoint, Uri};

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The folder cannot be made.
    #[error("cannot create the folder {path} for a socket")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be bound, restricted or moved into place.
    #[error("cannot listen on the socket {path}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The server cannot be reached.
    #[error("nobody answers on the socket {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Listens on `path` with mode 0600, replacing a socket left behind by an earlier process.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(|source| SocketError::Folder { path: folder.into(), source })?;
    }
    bind_and_rename(path).map_err(|source| SocketError::Listen { path: path.into(), source })
}

fn bind_and_rename(path: &Path) -> io::Result<UnixListener> {
    let staging = path.with_extension(format!("{}.tmp", std::process::id()));
    match fs::remove_file(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&staging)?;
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o600))?;
    fs::rename(&staging, path)?;
    Ok(listener)
}

/// The connections of `listener` whose peer runs as root or as this process's own user; others are closed.
pub fn trusted_connections(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    UnixListenerStream::new(listener).filter(|connection| connection.as_ref().map_or(true, is_trusted))
}

fn is_trusted(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || Some(peer.uid()) == own_uid())
}

fn own_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

/// Connects to the server behind `path` now.
pub async fn connect(path: &Path) -> Result<Channel, SocketError> {
    let target = path.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let target = target.clone();
        async move { UnixStream::connect(target).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|source| SocketError::Connect { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("skep-wire-{name}-{}", std::process::id()))
    }

    #[tokio::test]
    async fn a_socket_is_private_and_replaces_a_stale_one() {
        let folder = scratch("private");
        let path = folder.join("agent.sock");
        drop(listen(&path).unwrap());
        let listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut connections = Box::pin(trusted_connections(listener));
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), connections.next());
        assert!(client.is_ok() && accepted.is_some_and(|stream| stream.is_ok()));
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_missing_server_is_named_in_the_error() {
        let error = connect(&scratch("missing")).await.unwrap_err();
        assert!(error.to_string().contains("skep-wire-missing"), "{error}");
    }
}
