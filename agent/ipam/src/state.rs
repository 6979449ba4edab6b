//! The state file: replaced atomically, synced before an address is used, refused when it is not ours.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    allocator::{Allocation, AttachmentKey},
    pool::UnixSeconds,
};

/// Format of the file. A newer one is refused rather than misread.
const VERSION: u32 = 1;

/// An address that rests after use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestingAddress {
    /// The address.
    pub address: IpAddr,
    /// When it may be used again.
    pub until: UnixSeconds,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredState", into = "StoredState")]
pub struct State {
    /// Attachments and their addresses.
    pub allocations: BTreeMap<AttachmentKey, Allocation>,
    /// Addresses that rest.
    pub quarantine: Vec<RestingAddress>,
    /// Where allocation goes on.
    pub last_v4: Option<Ipv4Addr>,
    /// Where allocation goes on.
    pub last_v6: Option<Ipv6Addr>,
}

/// The same, shaped for JSON, whose map keys are strings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredState {
    allocations: Vec<StoredAllocation>,
    quarantine: Vec<RestingAddress>,
    last_v4: Option<Ipv4Addr>,
    last_v6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredAllocation {
    #[serde(flatten)]
    key: AttachmentKey,
    #[serde(flatten)]
    allocation: Allocation,
}

impl From<StoredState> for State {
    fn from(stored: StoredState) -> Self {
        State {
            allocations: stored.allocations.into_iter().map(|entry| (entry.key, entry.allocation)).collect(),
            quarantine: stored.quarantine,
            last_v4: stored.last_v4,
            last_v6: stored.last_v6,
        }
    }
}

impl From<State> for StoredState {
    fn from(state: State) -> Self {
        let stored = |(key, allocation)| StoredAllocation { key, allocation };
        StoredState {
            allocations: state.allocations.into_iter().map(stored).collect(),
            quarantine: state.quarantine,
            last_v4: state.last_v4,
            last_v6: state.last_v6,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Document<S> {
    version: u32,
    #[serde(flatten)]
    state: S,
}

#[derive(Deserialize)]
struct Header {
    version: u32,
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("cannot {action} the address state {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is not what this version writes.
    #[error("the address state {path} does not parse; if no pod runs on this node, remove the file")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where parsing stopped.
        #[source]
        source: serde_json::Error,
    },
    /// The file comes from a newer agent.
    #[error("the address state {path} has version {found}, this agent knows {VERSION}: run the newer agent")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// The file's place.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// A state file at `path`; nothing is touched yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        StateFile { path }
    }

    /// Reads the state; an absent file is an empty state.
    pub fn load(&self) -> Result<State, StateError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(source) => return Err(self.io("read", source)),
        };
        let malformed = |source| StateError::Malformed { path: self.path.clone(), source };
        let header: Header = serde_json::from_slice(&text).map_err(malformed)?;
        if header.version > VERSION {
            return Err(StateError::Newer { path: self.path.clone(), found: header.version });
        }
        let document: Document<State> = serde_json::from_slice(&text).map_err(malformed)?;
        Ok(document.state)
    }

    /// Replaces the state; when this returns, it survives a power failure.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(|source| self.io("create the folder of", source))?;
        let text = serde_json::to_vec(&Document { version: VERSION, state })
            .map_err(|source| StateError::Malformed { path: self.path.clone(), source })?;
        self.replace(folder, &text).map_err(|source| self.io("write", source))
    }

    fn replace(&self, folder: &Path, text: &[u8]) -> io::Result<()> {
        let staging = self.path.with_extension("tmp");
        let mut file = File::create(&staging)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&staging, &self.path)?;
        File::open(folder)?.sync_all()
    }

    fn io(&self, action: &'static str, source: io::Error) -> StateError {
        StateError::Io { action, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::Attachment;

    fn state() -> State {
        let key = AttachmentKey { container_id: "c1".into(), ifname: "eth0".into() };
        let attachment = Attachment {
            netns: "/var/run/netns/x".into(),
            pod_namespace: "default".into(),
            pod_name: "web".into(),
            pod_uid: "u".into(),
        };
        let allocation = Allocation { attachment, v4: Some([10, 0, 0, 2].into()), v6: None };
        State {
            allocations: [(key, allocation)].into(),
            quarantine: vec![RestingAddress { address: [10, 0, 0, 3].into(), until: UnixSeconds(7) }],
            last_v4: Some([10, 0, 0, 3].into()),
            last_v6: None,
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("agent/ipam.json"));
        assert_eq!(file.load().unwrap(), State::default());
        file.save(&state()).unwrap();
        assert_eq!(file.load().unwrap(), state());
    }

    #[test]
    fn a_torn_or_newer_file_is_refused_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ipam.json");
        let file = StateFile::new(path.clone());
        fs::write(&path, "{\"version\":1,\"allo").unwrap();
        assert!(matches!(file.load(), Err(StateError::Malformed { .. })));
        fs::write(&path, "{\"version\":2}").unwrap();
        assert!(matches!(file.load(), Err(StateError::Newer { found: 2, .. })));
    }
}
