//! Leases of addresses: their form, and the commands of an election carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use skep_api::l2_announcement_policy::{LEASE_ADDRESS, LEASE_LABEL, LEASE_SERVICES};
use skep_model::NamespacedName;

use super::election::{Command, Observed, Outcome};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// The Lease's name: one an address, so that Services that share an address agree on the node.
pub(crate) fn name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => format!("skep-l2-{}", ip.to_string().replace('.', "-")),
        IpAddr::V6(ip) => {
            let groups: Vec<String> = ip.segments().iter().map(|group| format!("{group:x}")).collect();
            format!("skep-l2-{}", groups.join("-"))
        }
    }
}

/// Reads a Lease; `None` when it is of no address.
pub(crate) fn read(lease: &Lease) -> Option<(IpAddr, Observed)> {
    let address: IpAddr = lease.annotations().get(LEASE_ADDRESS)?.parse().ok()?;
    // Another object that carries our annotation decides nothing.
    if lease.name_any() != name(address) {
        return None;
    }
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    let observed = Observed {
        version: lease.resource_version().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds),
        transitions: spec.lease_transitions.unwrap_or(0),
        acquired: spec.acquire_time.map(|time| time.0),
    };
    Some((address, observed))
}

/// What a Lease says besides its holder.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    /// Where Leases are.
    pub(crate) api: Api<Lease>,
    /// This node.
    pub(crate) me: String,
    /// How long a claim holds.
    pub(crate) duration: Duration,
}

impl Writer {
    /// Carries a command out.
    pub(crate) async fn execute(&self, command: Command, services: &BTreeSet<NamespacedName>) -> Outcome {
        let address = command.address();
        match tokio::time::timeout(PATIENCE, self.try_execute(command, services)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Outcome::Gone,
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Outcome::Outrun,
            Ok(Err(error)) => {
                tracing::warn!(%address, %error, "the Lease of the address is not written, will retry");
                Outcome::Failed
            }
            Err(_) => {
                tracing::warn!(%address, "the API server does not answer about the Lease of the address");
                Outcome::Failed
            }
        }
    }

    async fn try_execute(
        &self,
        command: Command,
        services: &BTreeSet<NamespacedName>,
    ) -> kube::Result<Outcome> {
        let params = PostParams::default();
        let written = match command {
            Command::Claim(address, None) => {
                let spec = self.claim(&Observed::default(), Timestamp::now());
                self.api.create(&params, &lease(address, spec, None, services)).await?
            }
            Command::Claim(address, Some(before)) => {
                let spec = self.claim(&before, Timestamp::now());
                let lease = lease(address, spec, Some(before.version), services);
                self.api.replace(&name(address), &params, &lease).await?
            }
            Command::Release(address, before, after) => {
                let spec = self.release(&before, after, Timestamp::now());
                let lease = lease(address, spec, Some(before.version), services);
                self.api.replace(&name(address), &params, &lease).await?
            }
            Command::Delete(address, before) => {
                let preconditions = Preconditions { resource_version: Some(before.version), uid: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                self.api.delete(&name(address), &params).await?;
                return Ok(Outcome::Gone);
            }
        };
        Ok(read(&written).map_or(Outcome::Outrun, |(_, observed)| Outcome::Written(observed)))
    }

    fn claim(&self, before: &Observed, now: Timestamp) -> LeaseSpec {
        let renewed = before.holder == self.me;
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(whole(self.duration)),
            acquire_time: Some(MicroTime(before.acquired.filter(|_| renewed).unwrap_or(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(before.transitions + i32::from(!renewed)),
            ..LeaseSpec::default()
        }
    }

    fn release(&self, before: &Observed, after: Duration, now: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: (!after.is_zero()).then(|| self.me.clone()),
            lease_duration_seconds: Some(whole(after)),
            acquire_time: before.acquired.map(MicroTime),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(before.transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Whole seconds, at least one: the API takes no less.
fn whole(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs().max(1)).unwrap_or(i32::MAX)
}

fn lease(
    address: IpAddr,
    spec: LeaseSpec,
    version: Option<String>,
    services: &BTreeSet<NamespacedName>,
) -> Lease {
    let services: Vec<String> = services.iter().map(ToString::to_string).collect();
    let annotations: BTreeMap<String, String> =
        [(LEASE_ADDRESS.to_owned(), address.to_string()), (LEASE_SERVICES.to_owned(), services.join(","))]
            .into();
    let metadata = ObjectMeta {
        name: Some(name(address)),
        resource_version: version,
        labels: Some([(LEASE_LABEL.to_owned(), "true".to_owned())].into()),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    Lease { metadata, spec: Some(spec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_the_api_whatever_the_address() {
        for (address, wanted) in [
            ("10.89.0.200", "skep-l2-10-89-0-200"),
            ("fd00::", "skep-l2-fd00-0-0-0-0-0-0-0"),
            ("::1:2", "skep-l2-0-0-0-0-0-0-1-2"),
        ] {
            assert_eq!(name(address.parse().unwrap()), wanted);
            assert!(skep_model::name::is_subdomain(wanted));
        }
    }

    #[test]
    fn a_lease_reads_back_and_a_foreign_one_is_not_believed() {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let spec = LeaseSpec {
            holder_identity: Some("n".into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        let services = [NamespacedName::new("default", "web")].into();
        let mut written = lease(address, spec, Some("7".into()), &services);
        let (read_address, observed) = read(&written).unwrap();
        assert_eq!((read_address, observed.holder.as_str(), observed.duration.as_secs()), (address, "n", 15));
        assert_eq!((observed.version.as_str(), observed.transitions), ("7", 3));
        written.metadata.name = Some("skep-l2-10-0-0-2".into());
        assert_eq!(read(&written), None);
    }
}
