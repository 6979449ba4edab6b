//! The programs that do the least possible, for benchmarks: loaded beside a data path, never on a node.

use std::{path::Path, sync::Mutex};

use aya::{Ebpf, EbpfLoader, programs::SchedClassifier};

use crate::{
    attach::device_name,
    error::DatapathError,
    objects,
    test_run::{self, TestOutcome, TestPacket},
};

/// Does nothing.
pub const NOOP: &str = "limit_noop";
/// Sends a pod's packets out of the uplink.
pub const FROM_POD: &str = "limit_from_pod";
/// Gives the uplink's packets to the pod.
pub const FROM_UPLINK: &str = "limit_from_uplink";

const OBJECT: &str = "limits";

/// The loaded programs; what they are attached to loses them with this value.
pub struct Limits {
    ebpf: Mutex<Ebpf>,
}

impl Limits {
    /// Loads them for one uplink and one pod.
    ///
    /// # Errors
    /// When there are no compiled programs, without root, or when the kernel refuses.
    pub fn open(object_dir: Option<&Path>, uplink: u32, pod: u32) -> Result<Self, DatapathError> {
        let bytes = objects::object(OBJECT, object_dir)?;
        let failed = |source| DatapathError::Object { name: OBJECT.into(), source: Box::new(source) };
        let mut ebpf = EbpfLoader::new()
            .override_global("LIMIT_UPLINK", &uplink, false)
            .override_global("LIMIT_POD", &pod, false)
            .load(&bytes)
            .map_err(failed)?;
        for name in [NOOP, FROM_POD, FROM_UPLINK] {
            let program = classifier(&mut ebpf, name)?;
            program.load().map_err(|source| program_error(name, "the kernel", source))?;
        }
        Ok(Self { ebpf: Mutex::new(ebpf) })
    }

    /// Attaches one to the ingress of a device of the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses or has no TCX.
    pub fn attach(&self, name: &str, ifindex: u32) -> Result<(), DatapathError> {
        let device = device_name(ifindex)?;
        let mut ebpf = self.lock();
        let program = classifier(&mut ebpf, name)?;
        program
            .attach(&device, aya::programs::TcAttachType::Ingress)
            .map(drop)
            .map_err(|source| program_error(name, &device, source))
    }

    /// Runs one on a packet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn test_run(&self, name: &str, packet: &TestPacket<'_>) -> Result<TestOutcome, DatapathError> {
        let mut ebpf = self.lock();
        let program = classifier(&mut ebpf, name)?;
        test_run::run(program, packet).map_err(|source| program_error(name, "a test run", source))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, DatapathError> {
    ebpf.program_mut(name)
        .and_then(|program| <&mut SchedClassifier>::try_from(program).ok())
        .ok_or_else(|| DatapathError::Incompatible { object: OBJECT.into(), what: format!("program {name}") })
}

fn program_error(name: &str, target: &str, source: aya::programs::ProgramError) -> DatapathError {
    DatapathError::Program { name: name.into(), target: target.into(), source: Box::new(source) }
}
