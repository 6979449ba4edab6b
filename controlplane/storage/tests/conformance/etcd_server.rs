//! A real etcd of Debian's etcd-server package on free loopback ports, in a directory of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running etcd; dropped, it is stopped and its data removed.
pub struct EtcdServer {
    child: Child,
    client: SocketAddr,
    _data: tempfile::TempDir,
}

impl EtcdServer {
    /// Starts etcd with its data under `parent` and waits until it serves.
    pub fn start(parent: &Path) -> io::Result<Self> {
        // Another process may take a free port before etcd does; then it exits and the next try takes others.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(parent)? {
                return Ok(server);
            }
        }
        Err(io::Error::other("etcd did not start: run `etcd` by hand to see why"))
    }

    /// The URL of its client port.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.client)
    }

    /// Its process id.
    #[allow(dead_code, reason = "only some users of this file measure the process")]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn try_start(parent: &Path) -> io::Result<Option<Self>> {
        let data = tempfile::Builder::new().prefix("etcd-").tempdir_in(parent)?;
        let (client, peer) = (free_address()?, free_address()?);
        let started = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            .args(["--logger", "zap", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let missing = |error: io::Error| {
            let reason = format!("cannot start etcd ({error}): install the Debian package etcd-server");
            io::Error::new(error.kind(), reason)
        };
        let mut server = Self { child: started.map_err(missing)?, client, _data: data };
        Ok(server.serves().then_some(server))
    }

    /// Waits for the port to accept, which etcd opens once it has a leader.
    fn serves(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            if TcpStream::connect_timeout(&self.client, Duration::from_millis(200)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        // Already gone is as good as stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
