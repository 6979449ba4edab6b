//! The key that signs service-account tokens, ES256, and the public view that others verify with (RFC 7517).

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use sha2::{Digest, Sha256};

use crate::{PkiError, files};

/// An ECDSA P-256 key pair.
pub struct ServiceAccountKey {
    key: KeyPair,
    key_id: String,
}

impl ServiceAccountKey {
    /// Loads the private key from a file, or makes it on first use.
    pub fn load_or_create(path: &Path) -> Result<Self, PkiError> {
        match files::read(path)? {
            Some(text) => {
                let wrong =
                    |source| PkiError::Content { path: path.into(), what: "ES256 private key", source };
                let key = KeyPair::from_pem(&text).map_err(wrong)?;
                if !key.is_compatible(&PKCS_ECDSA_P256_SHA256) {
                    return Err(wrong(rcgen::Error::UnsupportedSignatureAlgorithm));
                }
                Ok(Self::from_key(key))
            }
            None => {
                let made = Self::create()?;
                files::write_private(path, &made.private_pem())?;
                Ok(made)
            }
        }
    }

    /// A new key, in memory only.
    pub fn create() -> Result<Self, PkiError> {
        Ok(Self::from_key(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    fn from_key(key: KeyPair) -> Self {
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.subject_public_key_info()));
        Self { key, key_id }
    }

    /// The private key, PKCS #8 PEM.
    #[must_use]
    pub fn private_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The public key, PEM.
    #[must_use]
    pub fn public_pem(&self) -> String {
        self.key.public_key_pem()
    }

    /// The `kid` of tokens: a digest of the public key.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The JSON Web Key Set with this key's public half.
    #[must_use]
    pub fn jwks(&self) -> String {
        // An uncompressed point: one byte of form, then x and y, 32 bytes each.
        let point = self.key.public_key_raw().get(1..).unwrap_or_default();
        let (x, y) = point.split_at_checked(32).unwrap_or_default();
        format!(
            r#"{{"keys":[{{"use":"sig","kty":"EC","kid":"{}","crv":"P-256","alg":"ES256","x":"{}","y":"{}"}}]}}"#,
            self.key_id,
            URL_SAFE_NO_PAD.encode(x),
            URL_SAFE_NO_PAD.encode(y),
        )
    }
}

impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceAccountKey {}", self.key_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_is_loaded_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sa.key");
        let first = ServiceAccountKey::load_or_create(&path).unwrap();
        let second = ServiceAccountKey::load_or_create(&path).unwrap();
        assert_eq!(first.key_id(), second.key_id());
        assert_eq!(first.jwks(), second.jwks());
    }

    #[test]
    fn the_jwks_view_shows_both_coordinates() {
        let jwks = ServiceAccountKey::create().unwrap().jwks();
        for member in [r#""x":""#, r#""y":""#] {
            let at = jwks.find(member).unwrap() + member.len();
            assert_eq!(jwks[at..].find('"'), Some(43), "32 bytes in base64url");
        }
    }
}
