//! What goes wrong with keys and certificates.

use std::path::PathBuf;

/// A key, certificate or request that could not be made, read or accepted.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the PKI directory holds something else than it should.
    #[error("{} is not a valid {what}: restore it from a backup, or remove its pair to have a new one made", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it was refused.
        #[source]
        source: rcgen::Error,
    },
    /// One half of a certificate and key pair is missing.
    #[error("{} exists without {}: restore the missing file, or remove both", present.display(), missing.display())]
    HalfPair {
        /// The file that is there.
        present: PathBuf,
        /// The one that is not.
        missing: PathBuf,
    },
    /// The certificate in a file was made for another key.
    #[error("{} does not belong to the key beside it", path.display())]
    Mismatch {
        /// The certificate.
        path: PathBuf,
    },
    /// A key or certificate could not be made.
    #[error("cannot make a certificate")]
    Generate(#[from] rcgen::Error),
    /// A certificate request is malformed or its signature is wrong.
    #[error("the certificate request is not acceptable: {reason}")]
    Request {
        /// Why.
        reason: String,
    },
    /// A name cannot be written into a certificate.
    #[error("{name:?} cannot stand in a certificate as {what}")]
    Name {
        /// The name.
        name: String,
        /// As what.
        what: &'static str,
    },
    /// More organizations than a certificate of ours can carry.
    #[error("a certificate can carry two organizations, not {0}")]
    Organizations(usize),
}
