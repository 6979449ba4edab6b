//! Loads objects: programs that are bound to the pinned maps and to the facts about the node.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use skep_abi::{NodeConfig, node::NODE_CONFIG, programs};

use crate::{config::DatapathConfig, error::DatapathError, objects, pins::PinnedMaps};

struct PlainConfig(NodeConfig);

impl PlainConfig {
    fn bytes(&self) -> &[u8] {
        let start = std::ptr::from_ref(&self.0).cast::<u8>();
        // SAFETY: NodeConfig is Plain: every byte is initialised.
        unsafe { std::slice::from_raw_parts(start, size_of::<NodeConfig>()) }
    }
}

/// The loaded objects.
pub(crate) struct Objects {
    loaded: Mutex<Vec<(&'static str, Ebpf)>>,
}

impl Objects {
    /// Loads every object that a node cannot do without. The one that sees packets before the stack comes later, and
    /// only if it is asked for.
    pub(crate) fn load(config: &DatapathConfig, maps: &PinnedMaps) -> Result<Self, DatapathError> {
        let mut loaded = Vec::with_capacity(programs::OBJECTS.len());
        for name in programs::OBJECTS {
            if *name != programs::OBJECT_XDP {
                loaded.push((*name, load(name, config, &maps.paths())?));
            }
        }
        Ok(Self { loaded: Mutex::new(loaded) })
    }

    /// Loads an object that is not loaded yet.
    pub(crate) fn also(
        &self,
        name: &'static str,
        config: &DatapathConfig,
        maps: &PinnedMaps,
    ) -> Result<(), DatapathError> {
        let mut loaded = self.lock();
        if loaded.iter().all(|(known, _)| *known != name) {
            loaded.push((name, load(name, config, &maps.paths())?));
        }
        Ok(())
    }

    /// Works with a program.
    pub(crate) fn with<P, T>(
        &self,
        object: &str,
        name: &str,
        work: impl FnOnce(&mut P) -> Result<T, DatapathError>,
    ) -> Result<T, DatapathError>
    where
        for<'a> &'a mut P: TryFrom<&'a mut Program>,
    {
        let missing =
            || DatapathError::Incompatible { object: object.into(), what: format!("program {name}") };
        let mut loaded = self.lock();
        let program = loaded
            .iter_mut()
            .find(|(known, _)| *known == object)
            .and_then(|(_, ebpf)| ebpf.program_mut(name))
            .ok_or_else(missing)?;
        work(<&mut P>::try_from(program).map_err(|_other_type| missing())?)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Ebpf)>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(
    name: &str,
    config: &DatapathConfig,
    maps: &[(&'static str, PathBuf)],
) -> Result<Ebpf, DatapathError> {
    let bytes = objects::object(name, config.object_dir.as_deref())?;
    let node = PlainConfig(config.node.to_abi());
    let failed = |source| DatapathError::Object { name: name.into(), source: Box::new(source) };
    let mut loader = EbpfLoader::new();
    loader.override_global(NODE_CONFIG, node.bytes(), false);
    for (map, path) in maps {
        loader.map_pin_path(map, path.as_path());
    }
    let mut ebpf = loader.load(&bytes).map_err(failed)?;
    for (program_name, program) in ebpf.programs_mut() {
        load_program(program).map_err(|source| DatapathError::Program {
            name: program_name.into(),
            target: "the kernel".into(),
            source: Box::new(source),
        })?;
    }
    Ok(ebpf)
}

pub(crate) fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => Ok(()),
    }
}
