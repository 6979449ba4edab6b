//! What a certificate says: subject, names, uses, lifetime.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use crate::PkiError;

/// How far certificates reach back, for clocks that lag.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// The OID of an organization, to carry a second one beside [`DnType::OrganizationName`].
const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// To authenticate a server.
    Server,
    /// To authenticate a client.
    Client,
}

/// Whom a certificate is for: a user name and groups for clients, host names and addresses for servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The common name: the user name of a client.
    pub common_name: String,
    /// The organizations: the groups of a client. At most two.
    pub organizations: Vec<String>,
    /// DNS names of a server.
    pub dns_names: Vec<String>,
    /// Addresses of a server.
    pub ip_addresses: Vec<IpAddr>,
}

/// What to write into a certificate with a key of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Whom it is for.
    pub subject: Subject,
    /// What it may be used for.
    pub usages: Vec<Usage>,
    /// How long it is valid.
    pub lifetime: Duration,
}

impl Profile {
    /// A client certificate: a user name and its groups.
    #[must_use]
    pub fn client(user: &str, groups: &[&str], lifetime: Duration) -> Self {
        let subject = Subject {
            common_name: user.to_owned(),
            organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Subject::default()
        };
        Self { subject, usages: vec![Usage::Client], lifetime }
    }

    /// A server certificate: a common name and what the server is reached as.
    #[must_use]
    pub fn server(name: &str, dns_names: &[&str], ip_addresses: &[IpAddr], lifetime: Duration) -> Self {
        let subject = Subject {
            common_name: name.to_owned(),
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            ip_addresses: ip_addresses.to_vec(),
            ..Subject::default()
        };
        Self { subject, usages: vec![Usage::Server], lifetime }
    }
}

/// What a signer grants to a request: the request itself decides none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningPolicy {
    /// What the certificate may be used for.
    pub usages: Vec<Usage>,
    /// How long it is valid; never longer than the authority itself.
    pub lifetime: Duration,
}

/// A certificate for these, valid from now.
pub(crate) fn leaf(
    subject: &Subject,
    usages: &[Usage],
    lifetime: Duration,
) -> Result<CertificateParams, PkiError> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(subject)?;
    params.subject_alt_names = alternative_names(subject)?;
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages
        .iter()
        .map(|usage| match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        })
        .collect();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn distinguished_name(subject: &Subject) -> Result<DistinguishedName, PkiError> {
    let mut name = DistinguishedName::new();
    let mut kinds = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION.to_vec())].into_iter();
    for organization in &subject.organizations {
        let kind = kinds.next().ok_or(PkiError::Organizations(subject.organizations.len()))?;
        name.push(kind, organization.as_str());
    }
    name.push(DnType::CommonName, subject.common_name.as_str());
    Ok(name)
}

fn alternative_names(subject: &Subject) -> Result<Vec<SanType>, PkiError> {
    let dns = subject.dns_names.iter().map(|name| {
        let wrong = |_| PkiError::Name { name: name.clone(), what: "a DNS name" };
        Ia5String::try_from(name.as_str()).map(SanType::DnsName).map_err(wrong)
    });
    let addresses = subject.ip_addresses.iter().map(|address| Ok(SanType::IpAddress(*address)));
    dns.chain(addresses).collect()
}
