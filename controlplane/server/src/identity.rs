//! Keys and certificates of this process, and the administrator's kubeconfig.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use skep_apiserver::{ApiServerConfig, KubeletClientConfig, TlsConfig};
use skep_model::IpCidr;
use skep_pki::{Authority, ClusterPki, Credential, Kubeconfig, Profile};

use crate::args::Args;

/// Certificates are made anew at each start and last this long.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Names of the `kubernetes` Service.
const SERVICE_NAMES: [&str; 5] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
];

/// The PKI of the data directory.
pub(crate) struct Identities {
    pki: ClusterPki,
}

impl Identities {
    /// Loads the PKI, or makes it on first start.
    pub(crate) fn open(args: &Args) -> Result<Self> {
        let directory = args.data_dir.join("pki");
        let pki = ClusterPki::open(&directory).context("cannot open the cluster's keys")?;
        Ok(Self { pki })
    }

    /// The cluster's CA.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.pki.cluster)
    }

    /// Its certificate.
    pub(crate) fn ca_pem(&self) -> &str {
        self.pki.cluster.certificate_pem()
    }

    /// Everything the API server is told.
    pub(crate) fn api_server_config(&self, args: &Args) -> Result<ApiServerConfig> {
        let serving =
            self.pki.cluster.issue(&serving_profile(args)).context("cannot issue the serving certificate")?;
        // Kubelets know it by its name. It has no group: a node that names the API server's own address as its
        // kubelet must gain nothing by it.
        let profile = Profile::client("kube-apiserver-kubelet-client", &[], YEAR);
        let kubelet =
            self.pki.cluster.issue(&profile).context("cannot issue the kubelet client certificate")?;
        let key = self.pki.service_accounts.private_pem();
        let mut config = ApiServerConfig::new(args.advertise_address, key);
        config.advertise_port = args.bind.port();
        config.service_cidr = args.service_cidr.to_string();
        config.tls = Some(TlsConfig {
            cert_pem: serving.certificate_pem,
            key_pem: serving.key_pem,
            client_ca_pem: self.ca_pem().to_owned(),
        });
        config.kubelet = Some(KubeletClientConfig {
            cert_pem: kubelet.certificate_pem,
            key_pem: kubelet.key_pem,
            ca_pem: self.ca_pem().to_owned(),
        });
        Ok(config)
    }

    /// Writes `admin.kubeconfig`, for use on this machine.
    pub(crate) fn write_admin_kubeconfig(&self, args: &Args) -> Result<()> {
        let profile = Profile::client("kubernetes-admin", &["system:masters"], YEAR);
        let identity =
            self.pki.cluster.issue(&profile).context("cannot issue the administrator's certificate")?;
        let kubeconfig = Kubeconfig {
            cluster: "skep".to_owned(),
            server: format!("https://127.0.0.1:{}", args.bind.port()),
            ca_pem: self.ca_pem().to_owned(),
            user: "kubernetes-admin".to_owned(),
            credential: Credential::Certificate(identity),
        };
        kubeconfig.write(&args.data_dir.join("admin.kubeconfig")).context("cannot write admin.kubeconfig")
    }
}

/// The names and addresses under which the API server is reached.
fn serving_profile(args: &Args) -> Profile {
    let mut names: Vec<&str> = SERVICE_NAMES.to_vec();
    let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
    addresses.push(args.advertise_address);
    addresses.extend(args.service_cidr.iter().filter_map(first_address));
    addresses.extend(Some(args.bind.ip()).filter(|address| !address.is_unspecified()));
    for extra in &args.extra_san {
        match extra.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(extra),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    Profile::server("kube-apiserver", &names, &addresses, YEAR)
}

/// The address of the `kubernetes` Service: the first behind the network's own.
fn first_address(range: IpCidr) -> Option<IpAddr> {
    let first = match range.network() {
        IpAddr::V4(network) => IpAddr::from(network.to_bits().checked_add(1)?.to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from(network.to_bits().checked_add(1)?.to_be_bytes()),
    };
    Some(first).filter(|first| range.contains(*first))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_serving_certificate_covers_service_advertised_and_extra_addresses() {
        let args = Args::parse_from([
            "skep-controlplane",
            "--advertise-address",
            "10.89.0.11",
            "--extra-san",
            "192.0.2.7,api.example.org",
            "--service-cidr",
            "10.96.0.0/16,fd00:96::/112",
        ]);
        let profile = serving_profile(&args);
        for address in ["10.96.0.1", "fd00:96::1", "10.89.0.11", "127.0.0.1", "192.0.2.7"] {
            assert!(profile.subject.ip_addresses.contains(&address.parse().unwrap()), "{address}");
        }
        assert!(profile.subject.dns_names.iter().any(|name| name == "api.example.org"));
        assert!(profile.subject.dns_names.iter().any(|name| name == "kubernetes.default.svc"));
    }

    #[test]
    fn the_first_service_address_follows_the_network() {
        assert_eq!(first_address("10.96.0.0/16".parse().unwrap()), Some("10.96.0.1".parse().unwrap()));
        assert_eq!(first_address("fd00::/108".parse().unwrap()), Some("fd00::1".parse().unwrap()));
    }

    #[test]
    fn the_data_directory_gets_a_private_kubeconfig_for_this_machine() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap();
        let args =
            Args::parse_from(["skep-controlplane", "--advertise-address", "10.89.0.11", "--data-dir", data]);
        Identities::open(&args).unwrap().write_admin_kubeconfig(&args).unwrap();
        let path = directory.path().join("admin.kubeconfig");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let kubeconfig = kube::config::Kubeconfig::read_from(&path).unwrap();
        let server = kubeconfig.clusters[0].cluster.as_ref().unwrap().server.clone();
        assert_eq!(server.as_deref(), Some("https://127.0.0.1:6443"));
    }
}
