//! Socket programs on a cgroup: pinned links, replaced in place.

use std::{fs::File, io, os::fd::AsFd, path::Path};

use aya::programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink};

use crate::{
    attach::{AttachKind, AttachReport, remove_pin},
    error::DatapathError,
    sys,
};

/// Puts a loaded socket program on a cgroup (a folder of a cgroup2 mount), or behind the link pinned at `pin`.
pub(crate) fn attach(
    program: &mut CgroupSockAddr,
    name: &'static str,
    cgroup: &Path,
    pin: &Path,
) -> Result<AttachReport, DatapathError> {
    let target = cgroup.display().to_string();
    let failed = |source| DatapathError::Program {
        name: name.into(),
        target: target.clone(),
        source: Box::new(source),
    };
    let report = |adopted| AttachReport {
        program: name,
        target: target.clone(),
        ifindex: 0,
        kind: AttachKind::CgroupLink,
        adopted,
    };
    if let Ok(link) = sys::open_pin(pin) {
        let fd = program.fd().map_err(failed)?;
        if sys::update_link(&link, &fd.as_fd()).is_ok() {
            return Ok(report(true));
        }
        remove_pin(pin)?;
    }
    let folder = File::open(cgroup).map_err(|source| DatapathError::File {
        action: "cannot open the cgroup",
        path: cgroup.into(),
        source,
    })?;
    // A link allows other programs beside it by itself; the kernel refuses the flag that would say so.
    let link = program
        .attach(&folder, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .map_err(failed)?;
    let link = FdLink::try_from(link)
        .map_err(|source| DatapathError::Link { path: pin.into(), source: Box::new(source) })?;
    link.pin(pin).map_err(|source| DatapathError::File {
        action: "cannot pin the link",
        path: pin.into(),
        source: io::Error::other(source),
    })?;
    Ok(report(false))
}
