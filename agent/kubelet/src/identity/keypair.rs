//! A certificate with its key, in one PEM file of mode 0600 that is replaced at once.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

/// A file that is no key pair.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeypairError {
    /// The disk said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The content is not a certificate and a key.
    #[error("{0}: it holds no usable certificate and key; remove it and start again")]
    Content(String),
}

/// A certificate chain and its key.
#[derive(Debug, Clone)]
pub(crate) struct Keypair {
    /// The chain, PEM.
    pub(crate) cert: String,
    /// The key, PEM.
    pub(crate) key: String,
    /// When it becomes valid.
    pub(crate) not_before: Timestamp,
    /// When it expires.
    pub(crate) not_after: Timestamp,
}

impl Keypair {
    /// Reads the validity of `cert`.
    pub(crate) fn new(cert: String, key: String) -> Result<Self, KeypairError> {
        let bad = |what: &str| KeypairError::Content(what.to_owned());
        let block = pem::parse_many(&cert)
            .ok()
            .and_then(|blocks| blocks.into_iter().find(|b| b.tag() == "CERTIFICATE"))
            .ok_or_else(|| bad("certificate"))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(block.contents()).map_err(|error| bad(&error.to_string()))?;
        let time = |second: i64| Timestamp::from_second(second).map_err(|error| bad(&error.to_string()));
        let validity = parsed.validity();
        let not_before = time(validity.not_before.timestamp())?;
        let not_after = time(validity.not_after.timestamp())?;
        Ok(Self { cert, key, not_before, not_after })
    }

    /// Reads a file; none if there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, KeypairError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeypairError::Io { path: path.to_owned(), source }),
        };
        let blocks = pem::parse_many(&text).map_err(|error| KeypairError::Content(error.to_string()))?;
        let join = |is_key: bool| -> String {
            let of = blocks.iter().filter(|b| b.tag().ends_with("KEY") == is_key);
            of.map(pem::encode).collect()
        };
        Self::new(join(false), join(true)).map(Some)
    }

    /// Writes the file.
    pub(crate) fn store(&self, path: &Path) -> Result<(), KeypairError> {
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(self.cert.as_bytes())?;
            file.write_all(self.key.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|source| KeypairError::Io { path: path.to_owned(), source })
    }

    /// When to ask for the next one: `fraction` of its life, e.g. 0.8.
    pub(crate) fn renew_at(&self, fraction: f64) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before).as_secs();
        let life = Duration::from_secs(u64::try_from(life).unwrap_or(0));
        self.not_before + life.mul_f64(fraction)
    }

    /// Whether it can still be used.
    pub(crate) fn is_valid(&self, now: Timestamp) -> bool {
        now < self.not_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Keypair {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["n".to_owned()]).unwrap().self_signed(&key).unwrap();
        Keypair::new(cert.pem(), key.serialize_pem()).unwrap()
    }

    #[test]
    fn survives_the_disk() {
        let path = std::env::temp_dir().join(format!("skep-keypair-{:016x}.pem", rand::random::<u64>()));
        assert!(Keypair::load(&path).unwrap().is_none());
        let pair = pair();
        pair.store(&path).unwrap();
        let loaded = Keypair::load(&path).unwrap().unwrap();
        assert_eq!(loaded.not_after, pair.not_after);
        assert!(loaded.key.contains("PRIVATE KEY") && !loaded.cert.contains("PRIVATE KEY"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn renews_within_its_life() {
        let pair = pair();
        let at = pair.renew_at(0.8);
        assert!(at > pair.not_before && at < pair.not_after);
    }
}
