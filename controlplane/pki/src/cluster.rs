//! The PKI directory of a control plane.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Authority, PkiError, ServiceAccountKey, files};

/// A cluster's authorities and keys.
#[derive(Debug)]
pub struct ClusterPki {
    /// Signs servers, clients and kubelets: `ca.crt`, `ca.key`.
    pub cluster: Arc<Authority>,
    /// Signs what proves the API server to extension servers: `front-proxy-ca.crt`, `front-proxy-ca.key`.
    pub front_proxy: Authority,
    /// Signs service-account tokens: `sa.key`.
    pub service_accounts: ServiceAccountKey,
    directory: PathBuf,
}

impl ClusterPki {
    /// Loads the directory, or fills it on first use.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        files::ensure_directory(directory)?;
        let service_accounts = ServiceAccountKey::load_or_create(&directory.join("sa.key"))?;
        files::write_public(&directory.join("sa.pub"), &service_accounts.public_pem())?;
        Ok(Self {
            cluster: Arc::new(Authority::load_or_create(directory, "ca", "skep-cluster-ca")?),
            front_proxy: Authority::load_or_create(directory, "front-proxy-ca", "skep-front-proxy-ca")?,
            service_accounts,
            directory: directory.to_owned(),
        })
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_private_and_stable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pki");
        let first = ClusterPki::open(&path).unwrap();
        let second = ClusterPki::open(&path).unwrap();
        assert_eq!(first.cluster.certificate_pem(), second.cluster.certificate_pem());
        assert_eq!(first.service_accounts.key_id(), second.service_accounts.key_id());
        for key in ["ca.key", "front-proxy-ca.key", "sa.key"] {
            let mode = std::fs::metadata(path.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }
}
