//! The program that sees an uplink's packets before the stack: a pinned link, replaced in place.
//!
//! A device has room for one such program. Where another is attached already, or the driver cannot run one, the caller
//! is told and goes on without: the classifier of the uplink does the same work later.

use std::{io, os::fd::AsFd, path::Path};

use aya::programs::{Xdp, links::FdLink, xdp};

use crate::{
    attach::{AttachKind, AttachReport, device_name, remove_pin},
    error::DatapathError,
    sys,
};

/// Where in the device's path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel makes a packet buffer.
    Native,
    /// After the buffer is made, for drivers without support: works, and gains nothing.
    Generic,
}

impl XdpMode {
    /// Short name for tables and labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            XdpMode::Native => "xdp-native",
            XdpMode::Generic => "xdp-generic",
        }
    }

    /// The mode that works on a device: in the driver, but not on one end of a veth pair. What a program there sends
    /// back is dropped unless the other end, which is not ours, happens to poll (GRO, or a program of its own).
    #[must_use]
    pub fn for_device(name: &str) -> Self {
        let folder = Path::new("/sys/class/net").join(name);
        let sends = ["bonding", "tun_flags"].iter().any(|file| folder.join(file).exists());
        folder.canonicalize().map_or(XdpMode::Native, |path| Self::at(&path, sends))
    }

    /// Of the virtual devices, only bonds and TUN have drivers that send back by themselves.
    fn at(path: &Path, sends: bool) -> Self {
        let is_virtual = path.components().any(|part| part.as_os_str() == "virtual");
        if is_virtual && !sends { XdpMode::Generic } else { XdpMode::Native }
    }

    fn kind(self) -> AttachKind {
        match self {
            XdpMode::Native => AttachKind::XdpNative,
            XdpMode::Generic => AttachKind::XdpGeneric,
        }
    }
}

/// Puts the loaded program on a device, or behind the link pinned at `pin`.
pub(crate) fn attach(
    program: &mut Xdp,
    name: &'static str,
    ifindex: u32,
    mode: XdpMode,
    pin: &Path,
) -> Result<AttachReport, DatapathError> {
    let target = device_name(ifindex)?;
    let failed = |source| DatapathError::Program {
        name: name.into(),
        target: target.clone(),
        source: Box::new(source),
    };
    let report =
        |adopted| AttachReport { program: name, target: target.clone(), ifindex, kind: mode.kind(), adopted };
    if let Ok(link) = sys::open_pin(pin) {
        let fd = program.fd().map_err(failed)?;
        if sys::update_link(&link, &fd.as_fd()).is_ok() {
            return Ok(report(true));
        }
        remove_pin(pin)?;
    }
    let flags = match mode {
        XdpMode::Native => xdp::XdpMode::Driver,
        XdpMode::Generic => xdp::XdpMode::Skb,
    };
    let link =
        program.attach_to_if_index(ifindex, flags).and_then(|id| program.take_link(id)).map_err(failed)?;
    let link = FdLink::try_from(link)
        .map_err(|source| DatapathError::Link { path: pin.into(), source: Box::new(source) })?;
    link.pin(pin).map(|_pinned| report(false)).map_err(|source| DatapathError::File {
        action: "cannot pin the link",
        path: pin.into(),
        source: io::Error::other(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veth_is_not_trusted_to_send_back_and_other_drivers_are() {
        let virtual_device = Path::new("/sys/devices/virtual/net/eth0");
        assert_eq!(XdpMode::at(virtual_device, false), XdpMode::Generic);
        assert_eq!(XdpMode::at(virtual_device, true), XdpMode::Native);
        assert_eq!(XdpMode::at(Path::new("/sys/devices/pci0000:00/net/eth0"), false), XdpMode::Native);
    }
}
