//! The door: opens the data path, attaches it, hands out its tables.

use std::{
    fs,
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier},
};
use skep_abi::{
    NodeConfig, maps,
    node::NODE_CONFIG,
    programs::{self, Classifier},
};
use skep_model::{FrontendAddress, IpCidr};
use tracing::info;

use crate::{
    attach::{AttachReport, Attacher},
    cgroup,
    config::DatapathConfig,
    conntrack::{self, CtEntry, GcReport, Timeouts},
    counters::{self, CounterRow},
    error::DatapathError,
    events::EventReader,
    kernel::{Backends4, Endpoints4, Ipcache4, KernelTable, Services4},
    objects,
    pins::PinnedMaps,
    rows::{BackendAddress, BackendSlot, Endpoint, Frontend, Peer},
    sys,
    table::MapTable,
    test_run::{self, TestOutcome, TestPacket},
};

/// The typed tables that desired state is reconciled into.
#[derive(Clone)]
pub struct Tables {
    /// Pods of this node by address.
    pub endpoints: Arc<dyn MapTable<IpAddr, Endpoint>>,
    /// Who is behind a prefix.
    pub ipcache: Arc<dyn MapTable<IpCidr, Peer>>,
    /// Frontends of Services.
    pub frontends: Arc<dyn MapTable<FrontendAddress, Frontend>>,
    /// Slots of frontends.
    pub backends: Arc<dyn MapTable<BackendSlot, BackendAddress>>,
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
pub struct Datapath {
    config: DatapathConfig,
    maps: PinnedMaps,
    objects: Mutex<Vec<(&'static str, Ebpf)>>,
    attacher: Attacher,
    reports: Mutex<Vec<AttachReport>>,
    tables: Tables,
}

struct PlainConfig(NodeConfig);

impl PlainConfig {
    fn bytes(&self) -> &[u8] {
        let start = std::ptr::from_ref(&self.0).cast::<u8>();
        // SAFETY: NodeConfig is Plain: every byte is initialised.
        unsafe { std::slice::from_raw_parts(start, size_of::<NodeConfig>()) }
    }
}

const POD: &[&Classifier] = &[&programs::FROM_POD, &programs::TO_POD];

impl Datapath {
    /// Opens the data path: adopts or creates the pinned maps, loads the programs, and puts them behind every link
    /// that an earlier process left pinned. Traffic is not interrupted; when anything fails, the old programs go on.
    ///
    /// A debt: a table whose size or layout differs from what is pinned (conntrack aside) is made anew and empty, and
    /// traffic that needs it stops until the caller has filled it. Its rows should be copied, or the new programs be
    /// put in place only then.
    ///
    /// # Errors
    /// When there are no compiled programs, without root, or when the kernel refuses.
    pub fn open(config: DatapathConfig) -> Result<Self, DatapathError> {
        sys::lift_memory_limit();
        let folders = Folders::create(&config.pin_root)?;
        let maps = PinnedMaps::open(&folders.maps, &config.sizes)?;
        for (map, origin) in maps.origins() {
            info!(map, ?origin, "map opened");
        }
        let mut loaded = Vec::with_capacity(programs::OBJECTS.len());
        for name in programs::OBJECTS {
            loaded.push((*name, load(name, &config, &folders.maps)?));
        }
        let tables = Tables {
            endpoints: Arc::new(KernelTable::<Endpoints4>::new(maps.get(&maps::ENDPOINTS4)?)),
            ipcache: Arc::new(KernelTable::<Ipcache4>::new(maps.get(&maps::IPCACHE4)?)),
            frontends: Arc::new(KernelTable::<Services4>::new(maps.get(&maps::SERVICES4)?)),
            backends: Arc::new(KernelTable::<Backends4>::new(maps.get(&maps::BACKENDS4)?)),
        };
        let attacher = Attacher::new(folders.links, config.force_clsact);
        let datapath = Self {
            config,
            maps,
            objects: Mutex::new(loaded),
            attacher,
            reports: Mutex::new(Vec::new()),
            tables,
        };
        datapath.adopt()?;
        Ok(datapath)
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
        self.attacher.detach(POD, ifindex)?;
        let of_pod = |report: &AttachReport| POD.iter().any(|classifier| classifier.name == report.program);
        lock(&self.reports).retain(|report| report.ifindex != ifindex || !of_pod(report));
        Ok(())
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

    /// Attaches the socket programs to a cgroup: the root of the cgroup2 mount, or of the node's part of it.
    ///
    /// A Service without backends refuses the call with `EPERM`: before kernel 5.18 a program cannot choose the error.
    ///
    /// # Errors
    /// When the folder is no cgroup2 or the kernel refuses.
    pub fn attach_sock(&self, cgroup: &Path) -> Result<(), DatapathError> {
        let mut objects = lock(&self.objects);
        for name in programs::SOCK_PROGRAMS {
            let program: &mut CgroupSockAddr = program_mut(&mut objects, programs::OBJECT_SOCK, name)?;
            let pin = self.config.pin_root.join("links").join(name);
            let report = cgroup::attach(program, name, cgroup, &pin)?;
            self.remember(report);
        }
        Ok(())
    }

    /// What is attached where, and how.
    #[must_use]
    pub fn attach_report(&self) -> Vec<AttachReport> {
        lock(&self.reports).clone()
    }

    /// Every flow.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn conntrack(&self) -> Result<Vec<CtEntry>, DatapathError> {
        Ok(conntrack::dump(&self.maps.get(&maps::CONNTRACK4)?)?)
    }

    /// Removes flows that have been idle for longer than their state allows; call it every half minute.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn collect_garbage(&self, timeouts: &Timeouts) -> Result<GcReport, DatapathError> {
        Ok(conntrack::collect(&self.maps.get(&maps::CONNTRACK4)?, timeouts)?)
    }

    /// Exact counters per hook and reason, those that are not zero.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Vec<CounterRow>, DatapathError> {
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| DatapathError::File {
            action: "cannot read",
            path: path.into(),
            source,
        })?;
        Ok(counters::read(&self.maps.get(&maps::COUNTERS)?, cpus)?)
    }

    /// The reader of sampled drops; at most one at a time.
    ///
    /// # Errors
    /// When the ring buffer cannot be mapped.
    pub fn events(&self) -> Result<EventReader, DatapathError> {
        EventReader::open(&self.config.pin_root.join("maps").join(maps::EVENTS.name))
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
        let mut objects = lock(&self.objects);
        let program: &mut SchedClassifier = program_mut(&mut objects, classifier.object, classifier.name)?;
        test_run::run(program, packet).map_err(|source| DatapathError::Program {
            name: classifier.name.into(),
            target: "a test run".into(),
            source: Box::new(source),
        })
    }

    fn attach(&self, classifier: &'static Classifier, ifindex: u32) -> Result<(), DatapathError> {
        let mut objects = lock(&self.objects);
        let program: &mut SchedClassifier = program_mut(&mut objects, classifier.object, classifier.name)?;
        let report = self.attacher.attach(program, classifier, ifindex)?;
        self.remember(report);
        Ok(())
    }

    fn adopt(&self) -> Result<(), DatapathError> {
        let mut objects = lock(&self.objects);
        let reports = self.attacher.adopt(|name| {
            let classifier = programs::CLASSIFIERS.iter().find(|classifier| classifier.name == name)?;
            let program: &mut SchedClassifier = program_mut(&mut objects, classifier.object, name).ok()?;
            let fd = program.fd().ok()?.as_fd().try_clone_to_owned().ok()?;
            Some((classifier, fd))
        })?;
        for report in reports {
            self.remember(report);
        }
        Ok(())
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

fn load(name: &str, config: &DatapathConfig, maps: &Path) -> Result<Ebpf, DatapathError> {
    let bytes = objects::object(name, config.object_dir.as_deref())?;
    let node = PlainConfig(config.node.to_abi());
    let failed = |source| DatapathError::Object { name: name.into(), source: Box::new(source) };
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(maps)
        .override_global(NODE_CONFIG, node.bytes(), false)
        .load(&bytes)
        .map_err(failed)?;
    for (program_name, program) in ebpf.programs_mut() {
        load_program(program).map_err(|source| DatapathError::Program {
            name: program_name.into(),
            target: "the kernel".into(),
            source: Box::new(source),
        })?;
    }
    Ok(ebpf)
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => Ok(()),
    }
}

fn program_mut<'a, P>(
    objects: &'a mut [(&'static str, Ebpf)],
    object: &str,
    name: &str,
) -> Result<&'a mut P, DatapathError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    let missing = || DatapathError::Incompatible { object: object.into(), what: format!("program {name}") };
    objects
        .iter_mut()
        .find(|(loaded, _)| *loaded == object)
        .and_then(|(_, ebpf)| ebpf.program_mut(name))
        .and_then(|program| <&mut P>::try_from(program).ok())
        .ok_or_else(missing)
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
