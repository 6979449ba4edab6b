//! A PKCS #10 certificate request, parsed and its signature verified (RFC 2986).

use std::net::IpAddr;

use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, PublicKey};
use rustls_pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::{PkiError, Subject, Usage};

/// A request whose signature proves possession of its key.
#[derive(Debug)]
pub struct CertificateRequest {
    /// Whom the certificate is to be for.
    pub subject: Subject,
    /// URI alternative names; [`crate::Authority::sign`] leaves them out, signers refuse requests that have any.
    pub uris: Vec<String>,
    /// E-mail alternative names; treated like [`CertificateRequest::uris`].
    pub emails: Vec<String>,
    /// The uses it asks for, as far as they are server or client authentication.
    pub usages: Vec<Usage>,
    public_key: PublicKey,
}

impl CertificateRequest {
    /// Parses a PEM request and verifies its signature.
    pub fn parse(text: &str) -> Result<Self, PkiError> {
        let block = pem::parse(text).map_err(|error| refused(&error))?;
        if block.tag() != "CERTIFICATE REQUEST" {
            return Err(PkiError::Request { reason: format!("it is a PEM block of type {:?}", block.tag()) });
        }
        let der = CertificateSigningRequestDer::from(block.contents());
        let verified = CertificateSigningRequestParams::from_der(&der).map_err(|error| refused(&error))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|error| refused(&error))?;
        let info = &parsed.certification_request_info;
        let mut request = Self {
            subject: subject(&info.subject)?,
            uris: Vec::new(),
            emails: Vec::new(),
            usages: usages(&verified),
            public_key: verified.public_key,
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                for name in &names.general_names {
                    request.alternative_name(name)?;
                }
            }
        }
        Ok(request)
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn alternative_name(&mut self, name: &GeneralName<'_>) -> Result<(), PkiError> {
        match name {
            GeneralName::DNSName(name) => self.subject.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => self.subject.ip_addresses.push(address(bytes)?),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::RFC822Name(email) => self.emails.push((*email).to_owned()),
            other => {
                return Err(PkiError::Request {
                    reason: format!("it has an alternative name of kind {other}"),
                });
            }
        }
        Ok(())
    }
}

fn refused(error: &dyn std::fmt::Display) -> PkiError {
    PkiError::Request { reason: error.to_string() }
}

fn usages(verified: &CertificateSigningRequestParams) -> Vec<Usage> {
    let known = |purpose: &ExtendedKeyUsagePurpose| match purpose {
        ExtendedKeyUsagePurpose::ServerAuth => Some(Usage::Server),
        ExtendedKeyUsagePurpose::ClientAuth => Some(Usage::Client),
        _ => None,
    };
    verified.params.extended_key_usages.iter().filter_map(known).collect()
}

/// Only common name and organizations; other attributes would be lost in the certificate, so they are refused.
fn subject(name: &X509Name<'_>) -> Result<Subject, PkiError> {
    let known = name.iter_common_name().count() + name.iter_organization().count();
    if name.iter_attributes().count() != known {
        let reason = "its subject has more than a common name and organizations".to_owned();
        return Err(PkiError::Request { reason });
    }
    let common_name = match name.iter_common_name().collect::<Vec<_>>().as_slice() {
        [one] => text(one)?,
        [] => String::new(),
        _ => return Err(PkiError::Request { reason: "its subject has several common names".to_owned() }),
    };
    let organizations = name.iter_organization().map(text).collect::<Result<_, _>>()?;
    Ok(Subject { common_name, organizations, ..Subject::default() })
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Result<String, PkiError> {
    attribute.as_str().map(str::to_owned).map_err(|error| refused(&error))
}

fn address(bytes: &[u8]) -> Result<IpAddr, PkiError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let length = bytes.len();
    let v6 = <[u8; 16]>::try_from(bytes)
        .map_err(|_| PkiError::Request { reason: format!("it has an address of {length} bytes") })?;
    Ok(v6.into())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn pem(edit: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        edit(&mut params);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn reads_names_addresses_and_uses() {
        let request = CertificateRequest::parse(&pem(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("node-a".try_into().unwrap()),
                SanType::IpAddress("10.0.0.1".parse().unwrap()),
                SanType::URI("spiffe://x/y".try_into().unwrap()),
            ];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }))
        .unwrap();
        assert_eq!(request.subject.dns_names, ["node-a"]);
        assert_eq!(request.subject.ip_addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(request.uris, ["spiffe://x/y"]);
        assert_eq!(request.usages, [Usage::Server]);
    }

    #[test]
    fn refuses_a_broken_signature() {
        let good = pem(|_| {});
        let mut block = pem::parse(&good).unwrap().into_contents();
        let last = block.len() - 1;
        block[last] ^= 1;
        let bad = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", block));
        assert!(matches!(CertificateRequest::parse(&bad), Err(PkiError::Request { .. })));
    }

    #[test]
    fn refuses_subjects_it_would_lose_parts_of() {
        let country = pem(|params| params.distinguished_name.push(DnType::CountryName, "CH"));
        assert!(CertificateRequest::parse(&country).is_err());
        assert!(CertificateRequest::parse("no pem").is_err());
    }
}
