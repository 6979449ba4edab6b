//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use skep_model::Ranges;
use skep_runtime::telemetry;

/// Skep's control plane: API server, scheduler and controllers.
#[derive(Clone, Debug, Parser)]
#[command(name = "skep-controlplane", version)]
pub(crate) struct Args {
    /// Where state lives: pki/, store/ and the kubeconfigs.
    #[arg(long, env = "SKEP_DATA_DIR", default_value = "/var/lib/skep/controlplane")]
    pub(crate) data_dir: PathBuf,
    /// Where objects are stored: `embedded`, or `etcd=URL[,URL]` for more than one machine.
    #[arg(long, env = "SKEP_STORE", default_value = "embedded")]
    pub(crate) store: StoreChoice,
    /// Least distance between the store's own revisions and the served ones. After restoring a backup, give a number
    /// larger than any resourceVersion served before.
    #[arg(long, env = "SKEP_REVISION_OFFSET", default_value_t = 0)]
    pub(crate) revision_offset: u64,
    /// Copies the store into this one, which must be empty, and exits. Give it as --store from then on.
    #[arg(long, value_name = "STORE")]
    pub(crate) migrate_to: Option<StoreChoice>,
    /// Address and port of the API server.
    #[arg(long, env = "SKEP_BIND", default_value = "0.0.0.0:6443")]
    pub(crate) bind: SocketAddr,
    /// A listening socket inherited from the parent, served as well; may be repeated.
    #[arg(long, value_name = "FD")]
    pub(crate) listen_fd: Vec<i32>,
    /// Address under which nodes reach the API server, of the primary family.
    #[arg(long, env = "SKEP_ADVERTISE_ADDRESS")]
    pub(crate) advertise_address: IpAddr,
    /// Range of Service addresses, or one a family with the primary one first: 10.96.0.0/16,fd00:96::/112.
    #[arg(long, env = "SKEP_SERVICE_CIDR", default_value = "10.96.0.0/16")]
    pub(crate) service_cidr: Ranges,
    /// Range that the nodes' pod ranges are cut from, or one a family: 10.244.0.0/16,fd00:244::/56.
    #[arg(long, env = "SKEP_CLUSTER_CIDR", default_value = "10.244.0.0/16")]
    pub(crate) cluster_cidr: Ranges,
    /// What this process does.
    #[arg(
        long,
        env = "SKEP_ROLES",
        value_enum,
        value_delimiter = ',',
        default_value = "apiserver,scheduler,controllers"
    )]
    pub(crate) roles: Vec<Role>,
    /// Further names or addresses in the API server's certificate; may be repeated.
    #[arg(long, value_name = "NAME_OR_ADDRESS", value_delimiter = ',')]
    pub(crate) extra_san: Vec<String>,
    /// How scheduler and controllers reach the API server when it is not one of the roles.
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Loopback address of healthz, readyz, metrics and log-level.
    #[arg(long, env = "SKEP_ADMIN", default_value = "127.0.0.1:9873")]
    pub(crate) admin: SocketAddr,
    /// How log lines look.
    #[arg(long, env = "SKEP_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

impl Args {
    /// Whether a role is among those asked for.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// A part of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Serves the Kubernetes API.
    Apiserver,
    /// Binds pods to nodes.
    Scheduler,
    /// Runs the controllers.
    Controllers,
}

impl Role {
    /// The name in elections, logs and readiness.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Apiserver => "apiserver",
            Self::Scheduler => "scheduler",
            Self::Controllers => "controllers",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogFormat> for telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// Which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    /// A file in the data directory.
    Embedded,
    /// An etcd cluster at these URLs.
    Etcd(Vec<String>),
}

impl FromStr for StoreChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        let wrong =
            || format!("{text:?} is no store: use `embedded` or `etcd=http://HOST:2379[,http://HOST:2379]`");
        let urls: Vec<_> =
            text.strip_prefix("etcd=").ok_or_else(wrong)?.split(',').map(str::to_owned).collect();
        if let Some(url) = urls.iter().find(|url| url.starts_with("https://")) {
            return Err(format!(
                "{url} asks for TLS, which this build does not speak to etcd: use http on loopback"
            ));
        }
        if urls.iter().all(|url| url.len() > "http://".len() && url.starts_with("http://")) {
            Ok(Self::Etcd(urls))
        } else {
            Err(wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &[&str]) -> Result<Args, clap::Error> {
        let base = ["skep-controlplane", "--advertise-address", "10.89.0.11"];
        Args::try_parse_from(base.iter().chain(extra))
    }

    #[test]
    fn defaults_are_a_whole_control_plane_on_the_embedded_store() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.store, StoreChoice::Embedded);
        assert!(args.has(Role::Apiserver) && args.has(Role::Scheduler) && args.has(Role::Controllers));
        assert_eq!(args.bind, "0.0.0.0:6443".parse().unwrap());
    }

    #[test]
    fn reads_stores_roles_and_names() {
        let args = parse(&[
            "--store",
            "etcd=http://127.0.0.1:2379,http://127.0.0.2:2379",
            "--roles",
            "scheduler",
            "--listen-fd",
            "0",
            "--listen-fd",
            "3",
            "--extra-san",
            "127.0.0.1",
        ]);
        let args = args.unwrap();
        assert_eq!(
            args.store,
            StoreChoice::Etcd(vec!["http://127.0.0.1:2379".into(), "http://127.0.0.2:2379".into()])
        );
        assert_eq!(args.roles, [Role::Scheduler]);
        assert_eq!(args.listen_fd, [0, 3]);
        assert_eq!(args.extra_san, ["127.0.0.1"]);
    }

    #[test]
    fn bad_values_say_what_to_use() {
        for (flag, value, expected) in [
            ("--store", "consul", "use `embedded` or `etcd=http://HOST:2379"),
            ("--store", "etcd=", "use `embedded` or `etcd=http://HOST:2379"),
            ("--store", "etcd=https://a:2379", "use http on loopback"),
            ("--roles", "kubelet", "apiserver, scheduler, controllers"),
            ("--bind", "6443", "invalid"),
            ("--service-cidr", "10.96.0.0", "--service-cidr"),
            ("--cluster-cidr", "10.244.0.0/16,10.245.0.0/16", "one IPv4 and one IPv6 range"),
        ] {
            let error = parse(&[flag, value]).unwrap_err().to_string();
            assert!(error.contains(expected), "{flag} {value}: {error}");
        }
    }
}
