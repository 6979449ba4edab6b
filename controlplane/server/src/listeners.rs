//! The API server's listening sockets: its own, and those inherited from the parent.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

/// Takes over the inherited descriptors.
pub(crate) fn adopt(inherited: &[i32]) -> Result<Vec<TcpListener>> {
    for (position, fd) in inherited.iter().enumerate() {
        ensure!(!inherited[..position].contains(fd), "--listen-fd {fd} is given twice");
    }
    let each = |fd: &i32| adopt_one(*fd).with_context(|| format!("--listen-fd {fd} is not usable"));
    inherited.iter().map(each).collect()
}

/// Binds `address` and puts it before the inherited listeners.
pub(crate) fn bind(address: SocketAddr, inherited: Vec<TcpListener>) -> Result<Vec<TcpListener>> {
    let own = TcpListener::bind(address).with_context(|| match address.port() {
        0..1024 => format!("cannot listen on {address}: ports below 1024 need root or CAP_NET_BIND_SERVICE"),
        _ => format!("cannot listen on {address}: is another control plane running? Choose another --bind"),
    })?;
    let listeners: Vec<_> = std::iter::once(own).chain(inherited).collect();
    for listener in &listeners {
        listener.set_nonblocking(true).context("cannot make a listener non-blocking")?;
    }
    Ok(listeners)
}

fn adopt_one(fd: i32) -> Result<TcpListener> {
    ensure!(
        fd == 0 || fd > 2,
        "descriptors 1 and 2 are the process's output: pass the socket as another one"
    );
    ensure!(Path::new("/proc/self/fd").join(fd.to_string()).exists(), "the parent has not passed it");
    let listener = TcpListener::from(own(fd)?);
    let listening = SockRef::from(&listener).is_listener().unwrap_or(false) && listener.local_addr().is_ok();
    ensure!(listening, "it is not a listening TCP socket");
    Ok(listener)
}

fn own(fd: i32) -> io::Result<OwnedFd> {
    if fd == 0 {
        return io::stdin().as_fd().try_clone_to_owned();
    }
    // SAFETY: the descriptor exists, as the caller has checked, and was passed to this process for this use alone:
    // nothing here opens one before the command line names it, and each is adopted once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn adopts_a_listening_socket() {
        let passed = TcpListener::bind(ANY).unwrap();
        let address = passed.local_addr().unwrap();
        let listeners = bind(ANY.parse().unwrap(), adopt(&[passed.into_raw_fd()]).unwrap()).unwrap();
        assert_eq!(listeners[1].local_addr().unwrap(), address);
    }

    #[test]
    fn refuses_what_is_not_a_listening_socket() {
        let error = |fds: &[i32]| format!("{:#}", adopt(fds).unwrap_err());
        assert!(error(&[1]).contains("descriptors 1 and 2"));
        assert!(error(&[5, 5]).contains("given twice"));
        assert!(error(&[987]).contains("the parent has not passed it"));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(error(&[file.into_raw_fd()]).contains("not a"));
    }

    #[test]
    fn says_when_the_address_is_taken() {
        let taken = TcpListener::bind(ANY).unwrap();
        assert!(taken.as_raw_fd() > 2);
        let error = bind(taken.local_addr().unwrap(), Vec::new()).unwrap_err();
        assert!(error.to_string().contains("Choose another --bind"));
    }
}
