//! The door: opens the data path, attaches it, hands out its tables.

use std::{
    fs,
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use aya::programs::{CgroupSockAddr, SchedClassifier, Xdp};
use skep_abi::{
    V4, V6, maps,
    programs::{self, Classifier},
};
use skep_model::IpCidr;
use tracing::{info, warn};

use crate::{
    attach::{AttachKind, AttachReport, Attacher, device_name, remove_pin},
    cgroup,
    codec::{Backends, Endpoints, Ipcache, Maglev, Services, Sources},
    config::DatapathConfig,
    error::DatapathError,
    kernel::{DualTable, KernelTable},
    load::Objects,
    pins::{MapReport, PinnedMaps},
    rows::{
        BackendAddress, BackendSlot, Endpoint, Frontend, FrontendKey, MaglevChunk, MaglevKey, Peer,
        SourceRange,
    },
    sys,
    table::MapTable,
    test_run::{self, TestOutcome, TestPacket},
    upkeep::Upkeep,
    xdp::{self, XdpMode},
};

/// The typed tables that desired state is reconciled into.
#[derive(Clone)]
pub struct Tables {
    /// Pods of this node by address.
    pub endpoints: Arc<dyn MapTable<IpAddr, Endpoint>>,
    /// Who is behind a prefix.
    pub ipcache: Arc<dyn MapTable<IpCidr, Peer>>,
    /// Frontends of Services.
    pub frontends: Arc<dyn MapTable<FrontendKey, Frontend>>,
    /// Slots of sets.
    pub backends: Arc<dyn MapTable<BackendSlot, BackendAddress>>,
    /// Maglev tables of sets, in parts.
    pub maglev: Arc<dyn MapTable<MaglevKey, MaglevChunk>>,
    /// Which outside clients a set admits.
    pub sources: Arc<dyn MapTable<SourceRange, ()>>,
}

impl Tables {
    fn on(maps: &PinnedMaps) -> Result<Self, DatapathError> {
        let get = |spec| maps.get(spec);
        Ok(Self {
            endpoints: Arc::new(DualTable::<Endpoints<V4>, Endpoints<V6>>::new(
                get(&maps::ENDPOINTS4)?,
                get(&maps::ENDPOINTS6)?,
            )),
            ipcache: Arc::new(DualTable::<Ipcache<V4>, Ipcache<V6>>::new(
                get(&maps::IPCACHE4)?,
                get(&maps::IPCACHE6)?,
            )),
            frontends: Arc::new(DualTable::<Services<V4>, Services<V6>>::new(
                get(&maps::SERVICES4)?,
                get(&maps::SERVICES6)?,
            )),
            backends: Arc::new(DualTable::<Backends<V4>, Backends<V6>>::new(
                get(&maps::BACKENDS4)?,
                get(&maps::BACKENDS6)?,
            )),
            maglev: Arc::new(KernelTable::<Maglev>::new(get(&maps::MAGLEV)?)),
            sources: Arc::new(DualTable::<Sources<V4>, Sources<V6>>::new(
                get(&maps::SOURCES4)?,
                get(&maps::SOURCES6)?,
            )),
        })
    }
}

/// The node's programs and maps.
///
/// # What the programs expect of the node
///
/// All calls that name an interface run on a thread inside the node's network namespace.
///
/// - `skep_vxlan`: external mode, UDP 8472, no learning. Packets for this node's own addresses are handed to the stack
///   as if they came in on `skep_host`.
/// - `skep_host`/`skep_net`: a veth pair, both up, [`Datapath::attach_host`] on `skep_net`. `skep_host` holds the gateway
///   address as a /32. Two routes go to it (scope link): the whole cluster pod range with the underlay address as
///   preferred source, and the Service range with the *gateway* as preferred source, so that answers of other nodes'
///   backends come back through the tunnel and not past it. Packets of host processes to Services that the socket
///   programs did not translate, and to pods of other nodes, are taken up there. ARP on it is answered by the program,
///   so no neighbour entries are needed. Local pods have a more specific /32 route to the host side of their veth.
/// - Pod veths: MTU of the uplink less 50 on both ends, in the pod a default route through the gateway (onlink, or with
///   a scope-link route to it). `net.ipv4.conf.DEVICE.forwarding=0` on the host side, on `skep_vxlan`,
///   `skep_host` and `skep_net`: a lost program means lost traffic. `rp_filter` 0 or 2 on
///   `skep_host` and `skep_vxlan`.
/// - Packets between this node's pods and other nodes' addresses travel in the tunnel both ways, so that the outer
///   source can be checked; host-to-host traffic does not.
/// - Uplinks: [`Datapath::attach_uplink`] on each device that outside clients reach the node through, and where it is
///   wanted [`Datapath::attach_xdp`]. `forwarding` must be on there for packets that leave the node by its routes.
/// - IPv6: the routes of pods and Services go `via` a link-local address on `skep_host` with a permanent neighbour, the
///   link-layer address of `skep_net`; pods and their gateway know each other by permanent neighbours, too.
pub struct Datapath {
    config: DatapathConfig,
    pub(crate) maps: PinnedMaps,
    objects: Objects,
    attacher: Attacher,
    reports: Mutex<Vec<AttachReport>>,
    tables: Tables,
    /// Programs of before run on; ours wait until their tables are filled.
    waiting: AtomicBool,
    deferred: Mutex<Vec<Deferred>>,
    pub(crate) upkeep: Upkeep,
}

/// An attachment that would replace a program whose tables are still the full ones.
enum Deferred {
    Classifier(&'static Classifier, u32),
    Sock(PathBuf),
    Xdp(u32, XdpMode),
}

const POD: &[&Classifier] = &[&programs::FROM_POD, &programs::TO_POD];
const UPLINK: &[&Classifier] = &[&programs::FROM_UPLINK, &programs::TO_UPLINK];

impl Datapath {
    /// Opens the data path: adopts, migrates or creates the pinned maps, loads the programs, and puts them behind every
    /// link that an earlier process left pinned. Traffic is not interrupted; when anything fails, the old programs go on.
    ///
    /// When a table had to be built anew (see [`Datapath::map_reports`]), the old programs go on with the old maps until
    /// the caller has filled the new ones and says so with [`Datapath::synced`]. Devices that have no program yet are
    /// attached at once even so.
    ///
    /// # Errors
    /// When there are no compiled programs, without root, or when the kernel refuses.
    pub fn open(config: DatapathConfig) -> Result<Self, DatapathError> {
        sys::lift_memory_limit();
        let folders = Folders::create(&config.pin_root)?;
        let maps = PinnedMaps::open(&folders.maps, &config.sizes, config.node.families())?;
        for report in maps.reports() {
            info!(map = report.map, origin = ?report.origin, carried = report.carried, "map opened");
        }
        let objects = Objects::load(&config, &maps)?;
        let tables = Tables::on(&maps)?;
        let attacher = Attacher::new(folders.links, config.force_clsact);
        let waiting = maps.needs_rows();
        let datapath = Self {
            config,
            maps,
            objects,
            attacher,
            reports: Mutex::default(),
            tables,
            waiting: AtomicBool::new(waiting),
            deferred: Mutex::default(),
            upkeep: Upkeep::default(),
        };
        if waiting {
            warn!(
                "tables were built anew: programs on devices go on with the old ones until these are filled"
            );
        } else {
            datapath.adopt()?;
        }
        Ok(datapath)
    }

    /// The caller has filled every table: programs that had to wait for that are put in place. Does nothing when none
    /// had to. Runs on a thread in the node's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses a program; the others are in place then, and calling again tries the rest.
    pub fn synced(&self) -> Result<(), DatapathError> {
        if !self.waiting.load(Ordering::Acquire) {
            return Ok(());
        }
        self.adopt()?;
        self.waiting.store(false, Ordering::Release);
        let deferred = std::mem::take(&mut *lock(&self.deferred));
        let mut first_error = Ok(());
        for attachment in deferred {
            let result = match &attachment {
                Deferred::Classifier(classifier, ifindex) => self.attach(classifier, *ifindex),
                Deferred::Sock(cgroup) => self.attach_sock(cgroup),
                Deferred::Xdp(ifindex, mode) => self.attach_xdp_as(*ifindex, *mode).map(drop),
            };
            first_error = first_error.and(result);
        }
        first_error
    }

    /// What became of each map when the data path was opened.
    #[must_use]
    pub fn map_reports(&self) -> Vec<MapReport> {
        self.maps.reports()
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Attaches both programs to the host side of a pod's veth. Repeating it replaces the programs in place.
    ///
    /// # Errors
    /// When the interface does not exist in this namespace or the kernel refuses.
    pub fn attach_pod(&self, ifindex: u32) -> Result<(), DatapathError> {
        self.attach(&programs::FROM_POD, ifindex)?;
        self.attach(&programs::TO_POD, ifindex)
    }

    /// Detaches a pod's programs. Its endpoint row must be gone already; a device that is gone is fine.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_pod(&self, ifindex: u32) -> Result<(), DatapathError> {
        self.detach(POD, ifindex)
    }

    /// Interface indexes that have a pod's programs attached, as far as this process knows.
    #[must_use]
    pub fn attached_pods(&self) -> Vec<u32> {
        let reports = lock(&self.reports);
        let mut pods: Vec<u32> = reports
            .iter()
            .filter(|report| report.program == programs::FROM_POD.name)
            .map(|report| report.ifindex)
            .collect();
        pods.sort_unstable();
        pods.dedup();
        pods
    }

    /// Attaches the tunnel's programs to `skep_vxlan`.
    ///
    /// # Errors
    /// When the interface does not exist in this namespace or the kernel refuses.
    pub fn attach_overlay(&self, ifindex: u32) -> Result<(), DatapathError> {
        self.attach(&programs::FROM_OVERLAY, ifindex)?;
        self.attach(&programs::TO_OVERLAY, ifindex)
    }

    /// Attaches the host's program to `skep_net`, the programs' side of the node-side veth pair.
    ///
    /// # Errors
    /// When the interface does not exist in this namespace or the kernel refuses.
    pub fn attach_host(&self, net_ifindex: u32) -> Result<(), DatapathError> {
        self.attach(&programs::FROM_HOST, net_ifindex)
    }

    /// Attaches both programs to a device that outside clients reach the node through.
    ///
    /// # Errors
    /// When the interface does not exist in this namespace or the kernel refuses.
    pub fn attach_uplink(&self, ifindex: u32) -> Result<(), DatapathError> {
        self.attach(&programs::FROM_UPLINK, ifindex)?;
        self.attach(&programs::TO_UPLINK, ifindex)
    }

    /// Detaches an uplink's programs, the one before the stack included; a device that is gone is fine.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_uplink(&self, ifindex: u32) -> Result<(), DatapathError> {
        self.detach_xdp(ifindex)?;
        self.detach(UPLINK, ifindex)
    }

    /// Attaches the program that sees a device's packets before the stack, in the driver where that works (see
    /// [`XdpMode::for_device`]). The classifiers of the uplink are needed beside it. A refusal leaves everything as it
    /// was.
    ///
    /// # Errors
    /// When the kernel or the driver refuses, or the object does not load on this kernel: the error says why.
    pub fn attach_xdp(&self, ifindex: u32) -> Result<XdpMode, DatapathError> {
        self.attach_xdp_as(ifindex, XdpMode::for_device(&device_name(ifindex)?))
    }

    /// As [`Datapath::attach_xdp`], in a mode of the caller's choice.
    ///
    /// # Errors
    /// As there.
    pub fn attach_xdp_as(&self, ifindex: u32, mode: XdpMode) -> Result<XdpMode, DatapathError> {
        let pin = self.attacher.pin_path(programs::XDP_PROGRAM, ifindex);
        if self.waiting.load(Ordering::Acquire) && sys::open_pin(&pin).is_ok() {
            lock(&self.deferred).push(Deferred::Xdp(ifindex, mode));
            return Ok(mode);
        }
        self.objects.also(programs::OBJECT_XDP, &self.config, &self.maps)?;
        let report =
            self.objects.with(programs::OBJECT_XDP, programs::XDP_PROGRAM, |program: &mut Xdp| {
                xdp::attach(program, programs::XDP_PROGRAM, ifindex, mode, &pin)
            })?;
        self.remember(report);
        Ok(mode)
    }

    /// Detaches the program before the stack; none there is fine.
    ///
    /// # Errors
    /// When the pin cannot be removed.
    pub fn detach_xdp(&self, ifindex: u32) -> Result<(), DatapathError> {
        remove_pin(&self.attacher.pin_path(programs::XDP_PROGRAM, ifindex))?;
        lock(&self.reports)
            .retain(|report| report.ifindex != ifindex || report.program != programs::XDP_PROGRAM);
        Ok(())
    }

    /// Attaches the socket programs to a cgroup: the root of the cgroup2 mount, or of the node's part of it.
    ///
    /// A Service without backends refuses the call with `EPERM`: before kernel 5.18 a program cannot choose the error.
    ///
    /// # Errors
    /// When the folder is no cgroup2 or the kernel refuses.
    pub fn attach_sock(&self, cgroup: &Path) -> Result<(), DatapathError> {
        for name in programs::SOCK_PROGRAMS {
            let pin = self.config.pin_root.join("links").join(name);
            if self.waiting.load(Ordering::Acquire) && sys::open_pin(&pin).is_ok() {
                lock(&self.deferred).push(Deferred::Sock(cgroup.into()));
                return Ok(());
            }
            let report = self.objects.with(programs::OBJECT_SOCK, name, |program: &mut CgroupSockAddr| {
                cgroup::attach(program, name, cgroup, &pin)
            })?;
            self.remember(report);
        }
        Ok(())
    }

    /// What is attached where, and how.
    #[must_use]
    pub fn attach_report(&self) -> Vec<AttachReport> {
        lock(&self.reports).clone()
    }

    /// Runs a classifier on a packet without any network.
    ///
    /// # Errors
    /// When the kernel refuses, for example a packet shorter than an Ethernet header.
    pub fn test_run(
        &self,
        classifier: &Classifier,
        packet: &TestPacket<'_>,
    ) -> Result<TestOutcome, DatapathError> {
        self.objects.with(classifier.object, classifier.name, |program: &mut SchedClassifier| {
            test_run::run(program, packet).map_err(|source| DatapathError::Program {
                name: classifier.name.into(),
                target: "a test run".into(),
                source: Box::new(source),
            })
        })
    }

    /// Runs the program before the stack on a packet without any network.
    ///
    /// # Errors
    /// When the kernel refuses, or the object does not load.
    pub fn test_run_xdp(&self, packet: &TestPacket<'_>) -> Result<TestOutcome, DatapathError> {
        self.objects.also(programs::OBJECT_XDP, &self.config, &self.maps)?;
        self.objects.with(programs::OBJECT_XDP, programs::XDP_PROGRAM, |program: &mut Xdp| {
            test_run::run_xdp(program, packet).map_err(|source| DatapathError::Program {
                name: programs::XDP_PROGRAM.into(),
                target: "a test run".into(),
                source: Box::new(source),
            })
        })
    }

    fn attach(&self, classifier: &'static Classifier, ifindex: u32) -> Result<(), DatapathError> {
        let waiting = self.waiting.load(Ordering::Acquire);
        let report =
            self.objects.with(classifier.object, classifier.name, |program: &mut SchedClassifier| {
                if waiting {
                    self.attacher.attach_new(program, classifier, ifindex)
                } else {
                    self.attacher.attach(program, classifier, ifindex).map(Some)
                }
            })?;
        match report {
            Some(report) => self.remember(report),
            None => lock(&self.deferred).push(Deferred::Classifier(classifier, ifindex)),
        }
        Ok(())
    }

    fn detach(&self, classifiers: &[&'static Classifier], ifindex: u32) -> Result<(), DatapathError> {
        self.attacher.detach(classifiers, ifindex)?;
        let of_these =
            |report: &AttachReport| classifiers.iter().any(|classifier| classifier.name == report.program);
        lock(&self.reports).retain(|report| report.ifindex != ifindex || !of_these(report));
        Ok(())
    }

    /// Moves the pins of new maps to their place, puts the new programs behind every pinned link, and lets the old maps
    /// go. An end between these steps leaves programs with the maps they were loaded with.
    fn adopt(&self) -> Result<(), DatapathError> {
        self.maps.settle()?;
        let has_xdp = self.attacher.pinned()?.iter().any(|(_, program, _)| program == programs::XDP_PROGRAM);
        if has_xdp && let Err(error) = self.objects.also(programs::OBJECT_XDP, &self.config, &self.maps) {
            warn!(%error, "the program before the stack does not load: an older one is detached");
            for (path, program, _) in self.attacher.pinned()? {
                if program == programs::XDP_PROGRAM {
                    remove_pin(&path)?;
                }
            }
        }
        let reports = self.attacher.adopt(|name| self.successor(name))?;
        for report in reports {
            self.remember(report);
        }
        self.maps.retire()
    }

    /// The loaded program of a name, for a pinned link to a device.
    fn successor(&self, name: &str) -> Option<(&'static str, AttachKind, std::os::fd::OwnedFd)> {
        if name == programs::XDP_PROGRAM {
            let fd = self
                .objects
                .with(programs::OBJECT_XDP, name, |program: &mut Xdp| Ok(owned(program.fd().ok())))
                .ok()??;
            return Some((programs::XDP_PROGRAM, AttachKind::XdpNative, fd));
        }
        let classifier = programs::CLASSIFIERS.iter().find(|classifier| classifier.name == name)?;
        let fd = self
            .objects
            .with(classifier.object, name, |program: &mut SchedClassifier| Ok(owned(program.fd().ok())))
            .ok()??;
        Some((classifier.name, AttachKind::Tcx, fd))
    }

    fn remember(&self, report: AttachReport) {
        let mut reports = lock(&self.reports);
        reports.retain(|old| {
            (old.program, old.ifindex, &old.target) != (report.program, report.ifindex, &report.target)
        });
        reports.push(report);
    }
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath").field("config", &self.config).finish_non_exhaustive()
    }
}

struct Folders {
    maps: PathBuf,
    links: PathBuf,
}

impl Folders {
    fn create(root: &Path) -> Result<Self, DatapathError> {
        let folders = Self { maps: root.join("maps"), links: root.join("links") };
        for path in [&folders.maps, &folders.links] {
            fs::create_dir_all(path).map_err(|source| DatapathError::File {
                action: "cannot create the pin folder (is a bpffs mounted there?)",
                path: path.clone(),
                source,
            })?;
        }
        Ok(folders)
    }
}

fn owned(fd: Option<&aya::programs::ProgramFd>) -> Option<std::os::fd::OwnedFd> {
    fd?.as_fd().try_clone_to_owned().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_path_may_be_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Datapath>();
        shared::<Tables>();
    }
}
