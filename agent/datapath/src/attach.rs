//! Classifiers on devices: TCX links where the kernel has them (6.6), clsact filters otherwise.
//!
//! A TCX link is pinned as `PROGRAM-IFINDEX`; replacing its program is one atomic update. A clsact filter has a fixed
//! priority and handle and stays when this process ends; replacing it is one netlink message. Nothing is detached
//! before its successor is in place.

use std::{
    fmt, fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkOrder},
    tc::{
        NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact,
    },
};
use skep_abi::programs::Classifier;
use tracing::{info, warn};

use crate::{error::DatapathError, sys};

const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachKind {
    /// A TCX link (kernel 6.6 or later).
    Tcx,
    /// A filter of the clsact queueing discipline.
    Clsact,
    /// A link to a cgroup.
    CgroupLink,
    /// A link to a device, before the stack, in the driver.
    XdpNative,
    /// A link to a device, before the stack, where the driver has no support.
    XdpGeneric,
}

impl AttachKind {
    /// Short name for tables and labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            AttachKind::Tcx => "tcx",
            AttachKind::Clsact => "clsact",
            AttachKind::CgroupLink => "cgroup-link",
            AttachKind::XdpNative => "xdp-native",
            AttachKind::XdpGeneric => "xdp-generic",
        }
    }
}

impl fmt::Display for AttachKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One attached program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachReport {
    /// Name of the program.
    pub program: &'static str,
    /// Where: a device's name (its index when it is gone) or a cgroup's path.
    pub target: String,
    /// Interface index; zero for cgroups.
    pub ifindex: u32,
    /// How.
    pub kind: AttachKind,
    /// Whether an older attachment was taken over.
    pub adopted: bool,
}

/// Attaches classifiers and remembers whether this kernel has TCX.
#[derive(Debug)]
pub(crate) struct Attacher {
    links: PathBuf,
    tcx: AtomicBool,
}

impl Attacher {
    /// An attacher that pins its links below `links`.
    pub(crate) fn new(links: PathBuf, force_clsact: bool) -> Self {
        Self { links, tcx: AtomicBool::new(!force_clsact) }
    }

    /// Puts a loaded program on a device of the calling thread's network namespace.
    pub(crate) fn attach(
        &self,
        program: &mut SchedClassifier,
        classifier: &'static Classifier,
        ifindex: u32,
    ) -> Result<AttachReport, DatapathError> {
        let device = device_name(ifindex)?;
        let report = |kind, adopted| AttachReport {
            program: classifier.name,
            target: device.clone(),
            ifindex,
            kind,
            adopted,
        };
        let path = self.pin_path(classifier.name, ifindex);
        if self.tcx.load(Ordering::Relaxed) {
            match self.attach_tcx(program, classifier, &device, &path) {
                Ok(adopted) => return Ok(report(AttachKind::Tcx, adopted)),
                Err(error) if lacks_tcx(&error) => {
                    info!(program = classifier.name, %error, "no TCX on this kernel: using clsact");
                    self.tcx.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        let adopted = attach_clsact(program, classifier, &device, ifindex)?;
        remove_pin(&path)?;
        Ok(report(AttachKind::Clsact, adopted))
    }

    /// Puts a loaded program on a device that has none of ours; `None` where an older one is, which stays, or where the
    /// kernel refuses: the caller attaches again later and learns why.
    pub(crate) fn attach_new(
        &self,
        program: &mut SchedClassifier,
        classifier: &'static Classifier,
        ifindex: u32,
    ) -> Result<Option<AttachReport>, DatapathError> {
        if sys::open_pin(&self.pin_path(classifier.name, ifindex)).is_ok() {
            return Ok(None);
        }
        if self.tcx.load(Ordering::Relaxed) {
            return self.attach(program, classifier, ifindex).map(Some);
        }
        let device = device_name(ifindex)?;
        if add_clsact(program, classifier, &device).is_err() {
            return Ok(None);
        }
        let (program, kind) = (classifier.name, AttachKind::Clsact);
        Ok(Some(AttachReport { program, target: device, ifindex, kind, adopted: false }))
    }

    /// Removes programs of a device; a device that is already gone has taken them with it.
    pub(crate) fn detach(
        &self,
        classifiers: &[&'static Classifier],
        ifindex: u32,
    ) -> Result<(), DatapathError> {
        for classifier in classifiers {
            remove_pin(&self.pin_path(classifier.name, ifindex))?;
            if let Ok(device) = device_name(ifindex)
                && let Ok(link) = clsact_link(&device, classifier)
            {
                // Dropping the link removes the filter; there may be none.
                drop(link);
            }
        }
        Ok(())
    }

    /// Puts new programs behind every pinned link, and removes the pins of devices that are gone.
    pub(crate) fn adopt<F>(&self, mut program: F) -> Result<Vec<AttachReport>, DatapathError>
    where
        F: FnMut(&str) -> Option<(&'static str, AttachKind, std::os::fd::OwnedFd)>,
    {
        let mut reports = Vec::new();
        for (path, name, ifindex) in self.pinned()? {
            let Some((program, kind, fd)) = program(&name) else {
                warn!(link = %path.display(), "pinned link of an unknown program: left alone");
                continue;
            };
            let updated = sys::open_pin(&path).and_then(|link| sys::update_link(&link, &fd));
            if let Err(error) = updated {
                info!(link = %path.display(), %error, "pinned link is dead: removed");
                remove_pin(&path)?;
                continue;
            }
            let target = device_name(ifindex).unwrap_or_else(|_| ifindex.to_string());
            reports.push(AttachReport { program, target, ifindex, kind, adopted: true });
        }
        Ok(reports)
    }

    fn attach_tcx(
        &self,
        program: &mut SchedClassifier,
        classifier: &'static Classifier,
        device: &str,
        path: &Path,
    ) -> Result<bool, DatapathError> {
        if let Ok(link) = sys::open_pin(path) {
            let fd = program.fd().map_err(|source| program_error(classifier, device, source))?;
            if sys::update_link(&link, &fd.as_fd()).is_ok() {
                return Ok(true);
            }
            remove_pin(path)?;
        }
        let link = program
            .attach_with_options(
                device,
                attach_type(classifier),
                TcAttachOptions::TcxOrder(LinkOrder::default()),
            )
            .and_then(|id| program.take_link(id))
            .map_err(|source| program_error(classifier, device, source))?;
        let link = FdLink::try_from(link)
            .map_err(|source| DatapathError::Link { path: path.into(), source: Box::new(source) })?;
        link.pin(path).map(|_pinned| false).map_err(|source| DatapathError::File {
            action: "cannot pin the link",
            path: path.into(),
            source: io::Error::other(source),
        })
    }

    /// Where the link of a program to a device is pinned.
    pub(crate) fn pin_path(&self, program: &str, ifindex: u32) -> PathBuf {
        self.links.join(format!("{program}-{ifindex}"))
    }

    /// Pinned links: path, program, device.
    pub(crate) fn pinned(&self) -> Result<Vec<(PathBuf, String, u32)>, DatapathError> {
        let failed = |source| DatapathError::File { action: "cannot list", path: self.links.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.links).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if let Some((program, ifindex)) = name.rsplit_once('-')
                && let Ok(ifindex) = ifindex.parse()
            {
                found.push((path.clone(), program.to_owned(), ifindex));
            }
        }
        Ok(found)
    }
}

fn attach_type(classifier: &Classifier) -> TcAttachType {
    if classifier.ingress { TcAttachType::Ingress } else { TcAttachType::Egress }
}

fn clsact_link(device: &str, classifier: &Classifier) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, attach_type(classifier), PRIORITY, HANDLE, None)
}

/// Replaces our filter, or adds it where there is none. Says whether there was one.
fn attach_clsact(
    program: &mut SchedClassifier,
    classifier: &'static Classifier,
    device: &str,
    ifindex: u32,
) -> Result<bool, DatapathError> {
    let existing =
        clsact_link(device, classifier).map_err(|source| DatapathError::NoInterface { ifindex, source })?;
    let Ok(id) = program.attach_to_link(existing) else {
        add_clsact(program, classifier, device)?;
        return Ok(false);
    };
    keep(program, classifier, device, id)?;
    Ok(true)
}

/// Adds our filter where there is none; an error where there is one.
fn add_clsact(
    program: &mut SchedClassifier,
    classifier: &'static Classifier,
    device: &str,
) -> Result<(), DatapathError> {
    // The queueing discipline may be there already, ours or somebody else's: attaching decides.
    let _already_there = qdisc_add_clsact(device);
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    let id = program
        .attach_with_options(device, attach_type(classifier), TcAttachOptions::Netlink(options))
        .map_err(|source| program_error(classifier, device, source))?;
    keep(program, classifier, device, id)
}

/// A netlink link detaches when dropped; the filter has to outlive this process.
fn keep(
    program: &mut SchedClassifier,
    classifier: &Classifier,
    device: &str,
    id: SchedClassifierLinkId,
) -> Result<(), DatapathError> {
    let link = program.take_link(id).map_err(|source| program_error(classifier, device, source))?;
    std::mem::forget(link);
    Ok(())
}

fn lacks_tcx(error: &DatapathError) -> bool {
    let DatapathError::Program { source, .. } = error else { return false };
    match source.as_ref() {
        ProgramError::SyscallError(error) => {
            matches!(error.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
        }
        _ => false,
    }
}

fn program_error(classifier: &Classifier, device: &str, source: ProgramError) -> DatapathError {
    DatapathError::Program { name: classifier.name.into(), target: device.into(), source: Box::new(source) }
}

pub(crate) fn remove_pin(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::File { action: "cannot remove the pin", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

pub(crate) fn device_name(ifindex: u32) -> Result<String, DatapathError> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call demands.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return Err(DatapathError::NoInterface { ifindex, source: io::Error::last_os_error() });
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}
