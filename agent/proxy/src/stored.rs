//! The last view on disk, so that a proxy that restarts while the agent is down still answers.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use prost::Message;
use skep_model::DnsView;
use skep_wire::{
    dns::DnsWireError,
    proxy::{DnsPosition, DnsSnapshot, StoredView},
};

/// Why the stored view is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StoredViewError {
    /// The file system.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The bytes are not a view.
    #[error("the stored view is damaged; it will be replaced by the agent's next snapshot")]
    Decode(#[from] prost::DecodeError),
    /// The bytes hold a view that makes no sense.
    #[error("the stored view is damaged; it will be replaced by the agent's next snapshot")]
    Content(#[from] DnsWireError),
}

/// The file that holds the view.
#[derive(Debug, Clone)]
pub struct ViewFile(PathBuf);

impl ViewFile {
    /// The file in the proxy's folder.
    pub fn new(folder: &Path) -> Self {
        Self(folder.join("dns-view.pb"))
    }

    /// Reads the view; `None` when there is none yet.
    ///
    /// # Errors
    /// When the file is there but cannot be used.
    pub fn load(&self) -> Result<Option<(Option<DnsPosition>, DnsView)>, StoredViewError> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io(source)),
        };
        let stored = StoredView::decode(bytes.as_slice())?;
        Ok(Some((stored.position, stored.view.unwrap_or_default().try_into()?)))
    }

    /// Replaces the view in one step.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn save(&self, position: Option<DnsPosition>, view: &DnsView) -> Result<(), StoredViewError> {
        let bytes = StoredView { position, view: Some(DnsSnapshot::from(view)) }.encode_to_vec();
        let staging = self.0.with_extension("tmp");
        let write = || {
            if let Some(folder) = self.0.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&staging, &bytes)?;
            fs::rename(&staging, &self.0)
        };
        write().map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> StoredViewError {
        StoredViewError::Io { path: self.0.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use skep_model::{DnsTarget, NamespacedName};

    use super::*;

    #[test]
    fn a_view_survives_a_restart_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = ViewFile::new(&folder.path().join("proxy"));
        assert!(file.load().unwrap().is_none());
        let view = DnsView {
            services: [(NamespacedName::new("a", "b"), DnsTarget::External("example.com".into()))].into(),
            namespaces: ["a".to_owned()].into(),
        };
        let position = Some(DnsPosition { instance: "i".into(), sequence: 4 });
        file.save(position.clone(), &view).unwrap();
        assert_eq!(file.load().unwrap(), Some((position, view)));
        fs::write(&file.0, [0xff; 9]).unwrap();
        assert!(file.load().unwrap_err().to_string().contains("damaged"));
    }
}
