//! A certificate authority: issues certificates for keys of its own making and signs requests.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{CertificateRequest, PkiError, Profile, SigningPolicy, files, profile};

const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate with its private key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
}

impl Identity {
    /// The pair as rustls takes it.
    pub fn der(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let unreadable =
            |error: rustls_pki_types::pem::Error| PkiError::Request { reason: error.to_string() };
        let chain = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(unreadable)?;
        Ok((chain, key))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// A certificate authority with its key in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    not_after: SystemTime,
}

impl Authority {
    /// Loads `NAME.crt` and `NAME.key` from a directory, or makes them on first use.
    pub fn load_or_create(directory: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        let certificate = directory.join(format!("{name}.crt"));
        let key = directory.join(format!("{name}.key"));
        match (files::read(&certificate)?, files::read(&key)?) {
            (Some(certificate_pem), Some(key_pem)) => {
                let what = "private key";
                let wrong = |source| PkiError::Content { path: key.clone(), what, source };
                let key = KeyPair::from_pem(&key_pem).map_err(wrong)?;
                Self::from_parts(certificate_pem, key, &certificate)
            }
            (Some(_), None) => Err(PkiError::HalfPair { present: certificate, missing: key }),
            (None, Some(_)) => Err(PkiError::HalfPair { present: key, missing: certificate }),
            (None, None) => {
                let made = Self::create(common_name)?;
                // The certificate last: a crash between the two leaves a clear half pair, not a silent new CA.
                files::write_private(&key, &made.issuer.key().serialize_pem())?;
                files::write_public(&certificate, &made.certificate_pem)?;
                Ok(made)
            }
        }
    }

    /// A new authority, in memory only.
    pub fn create(common_name: &str) -> Result<Self, PkiError> {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = (now - Duration::from_secs(300)).into();
        params.not_after = (now + TEN_YEARS).into();
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Self::from_parts(certificate_pem, key, Path::new("ca.crt"))
    }

    fn from_parts(certificate_pem: String, key: KeyPair, path: &Path) -> Result<Self, PkiError> {
        let wrong = |source| PkiError::Content { path: path.into(), what: "CA certificate", source };
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| wrong(rcgen::Error::CouldNotParseCertificate))?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|_| wrong(rcgen::Error::CouldNotParseCertificate))?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::Mismatch { path: path.into() });
        }
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(wrong)?;
        Ok(Self { issuer, certificate_pem, not_after })
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A new key with a certificate for it.
    pub fn issue(&self, profile: &Profile) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let params = profile::leaf(&profile.subject, &profile.usages, self.bounded(profile.lifetime))?;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate_pem, key_pem: key.serialize_pem() })
    }

    /// Signs a request: subject and names as requested (check them before), uses and lifetime by `policy`.
    /// Returns the certificate, PEM.
    pub fn sign(&self, request: &CertificateRequest, policy: &SigningPolicy) -> Result<String, PkiError> {
        let params = profile::leaf(&request.subject, &policy.usages, self.bounded(policy.lifetime))?;
        Ok(params.signed_by(request.public_key(), &self.issuer)?.pem())
    }

    fn bounded(&self, lifetime: Duration) -> Duration {
        lifetime.min(self.not_after.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::Usage;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn parse<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        look(&X509Certificate::from_der(&der).unwrap().1)
    }

    #[test]
    fn the_same_authority_is_loaded_again() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(directory.path(), "ca", "cluster").unwrap();
        let second = Authority::load_or_create(directory.path(), "ca", "cluster").unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        let issued = second.issue(&Profile::client("jane", &["dev"], DAY)).unwrap();
        let ca = CertificateDer::from_pem_slice(first.certificate_pem().as_bytes()).unwrap();
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        parse(&issued.certificate_pem, |leaf| {
            leaf.verify_signature(Some(ca.public_key())).unwrap();
            assert_eq!(leaf.issuer(), ca.subject());
        });
    }

    #[test]
    fn half_a_pair_is_an_error_not_a_new_authority() {
        let directory = tempfile::tempdir().unwrap();
        Authority::load_or_create(directory.path(), "ca", "cluster").unwrap();
        std::fs::remove_file(directory.path().join("ca.key")).unwrap();
        let error = Authority::load_or_create(directory.path(), "ca", "cluster").unwrap_err();
        assert!(matches!(error, PkiError::HalfPair { .. }));
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        Authority::load_or_create(directory.path(), "ca", "cluster").unwrap();
        let other = Authority::create("other").unwrap();
        std::fs::write(directory.path().join("ca.crt"), other.certificate_pem()).unwrap();
        let error = Authority::load_or_create(directory.path(), "ca", "cluster").unwrap_err();
        assert!(matches!(error, PkiError::Mismatch { .. }));
    }

    #[test]
    fn client_certificates_carry_user_and_groups() {
        let authority = Authority::create("cluster").unwrap();
        let issued = authority.issue(&Profile::client("jane", &["dev", "ops"], DAY)).unwrap();
        parse(&issued.certificate_pem, |leaf| {
            let subject = leaf.subject();
            let groups: Vec<_> = subject.iter_organization().map(|o| o.as_str().unwrap()).collect();
            assert_eq!(subject.iter_common_name().next().unwrap().as_str(), Ok("jane"));
            assert_eq!(groups, ["dev", "ops"]);
            let usage = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth);
            assert!(!leaf.is_ca());
        });
        let three = Profile::client("jane", &["a", "b", "c"], DAY);
        assert!(matches!(authority.issue(&three), Err(PkiError::Organizations(3))));
    }

    #[test]
    fn server_certificates_carry_names_and_addresses() {
        let authority = Authority::create("cluster").unwrap();
        let addresses: [IpAddr; 2] = ["10.96.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let profile = Profile::server("kube-apiserver", &["kubernetes.default.svc"], &addresses, DAY);
        let issued = authority.issue(&profile).unwrap();
        parse(&issued.certificate_pem, |leaf| {
            let names = leaf.subject_alternative_name().unwrap().unwrap().value;
            assert_eq!(names.general_names.len(), 3);
        });
        let (chain, _) = issued.der().unwrap();
        assert_eq!(chain.len(), 1);
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let authority = Authority::create("cluster").unwrap();
        let issued = authority.issue(&Profile::client("jane", &[], TEN_YEARS * 2)).unwrap();
        let end = parse(&issued.certificate_pem, |leaf| leaf.validity().not_after.timestamp());
        let ca_end = parse(authority.certificate_pem(), |ca| ca.validity().not_after.timestamp());
        assert!(end <= ca_end);
    }

    #[test]
    fn signing_grants_the_policy_not_the_request() {
        let authority = Authority::create("cluster").unwrap();
        let key = KeyPair::generate().unwrap();
        let mut asked = CertificateParams::default();
        asked.distinguished_name = DistinguishedName::new();
        asked.distinguished_name.push(DnType::CommonName, "system:node:a");
        asked.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        asked.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
        let pem = asked.serialize_request(&key).unwrap().pem().unwrap();
        let request = CertificateRequest::parse(&pem).unwrap();
        assert_eq!(request.subject.organizations, ["system:nodes"]);
        let policy = SigningPolicy { usages: vec![Usage::Client], lifetime: DAY };
        let certificate = authority.sign(&request, &policy).unwrap();
        parse(&certificate, |leaf| {
            let usage = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.code_signing);
            assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
            assert_eq!(leaf.subject().iter_common_name().next().unwrap().as_str(), Ok("system:node:a"));
        });
    }
}
