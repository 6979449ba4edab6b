//! The elected roles: each runs while this process leads it. Losing leadership stops the role, not the process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use skep_controllers::ControllersConfig;
use skep_pki::Authority;
use skep_runtime::{Backoff, Drain, Readiness, ReadyToken};
use skep_scheduler::SchedulerConfig;
use skep_storage::{Leadership, Offset, Storage};

use crate::args::{Args, Role, StoreChoice};
use crate::identity::Identities;
use crate::store;

/// Time for a role to finish what it is doing when it must stop.
const STOP: Duration = Duration::from_secs(5);
const SCHEDULER: &str = "system:kube-scheduler";
const CONTROLLERS: &str = "system:kube-controller-manager";

/// Starts a role's work; it runs until the drain begins.
type Work = Box<dyn Fn(Drain) -> BoxFuture<'static, ()> + Send + Sync>;

/// The roles asked for, with clients by `client` and elections by `storage` (none: it leads alone).
pub(crate) fn prepare(
    args: &Args,
    storage: Option<Arc<dyn Storage>>,
    authority: &Arc<Authority>,
    client: impl Fn(&str) -> Result<Client>,
    readiness: &Readiness,
) -> Result<Vec<Elected>> {
    let mut roles: Vec<(Role, Work)> = Vec::new();
    if args.has(Role::Scheduler) {
        let config = SchedulerConfig::new(client(SCHEDULER)?);
        roles.push((
            Role::Scheduler,
            Box::new(move |drain| skep_scheduler::run(config.clone(), drain).boxed()),
        ));
    }
    if args.has(Role::Controllers) {
        let config = ControllersConfig::new(client(CONTROLLERS)?, args.cluster_cidr, Arc::clone(authority));
        roles.push((
            Role::Controllers,
            Box::new(move |drain| skep_controllers::run(config.clone(), drain).boxed()),
        ));
    }
    let identity = format!("{}-{}", args.advertise_address, std::process::id());
    let elected = roles.into_iter().map(|(role, work)| Elected {
        role: role.as_str(),
        identity: identity.clone(),
        storage: storage.clone(),
        work,
        ready: readiness.token(role.as_str()),
    });
    Ok(elected.collect())
}

/// Lets them campaign, each for itself.
pub(crate) fn start(roles: Vec<Elected>, drain: &Drain) {
    for role in roles {
        drain.spawn(role.run(drain.clone()));
    }
}

/// Starts the roles without an API server in this process: over a kubeconfig, elected by etcd if there is one.
pub(crate) async fn start_apart(args: &Args, readiness: &Readiness, drain: &Drain) -> Result<()> {
    let path = args.kubeconfig.as_ref().context(
        "without the role apiserver, scheduler and controllers need --kubeconfig FILE to reach one",
    )?;
    let kubeconfig = kube::config::Kubeconfig::read_from(path)
        .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let client =
        Client::try_from(config.context("the kubeconfig is not usable")?).context("cannot make a client")?;
    let storage: Option<Arc<dyn Storage>> = match &args.store {
        StoreChoice::Embedded => None,
        StoreChoice::Etcd(endpoints) => Some(Arc::new(store::etcd(endpoints, Offset::default()).await?)),
    };
    let identities = Identities::open(args)?;
    let client_as = |_user: &str| Ok(client.clone());
    start(prepare(args, storage, &identities.authority(), client_as, readiness)?, drain);
    Ok(())
}

/// A role that runs while it leads.
pub(crate) struct Elected {
    role: &'static str,
    identity: String,
    storage: Option<Arc<dyn Storage>>,
    work: Work,
    ready: ReadyToken,
}

impl Elected {
    async fn run(self, drain: Drain) {
        // Waiting to lead is as ready as leading.
        self.ready.ready();
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let leadership = tokio::select! {
                leadership = self.campaign() => leadership,
                () = drain.cancelled() => return,
            };
            match leadership {
                Ok(leadership) => {
                    tracing::info!(role = self.role, "leading");
                    let began = tokio::time::Instant::now();
                    self.lead(leadership, &drain).await;
                    if began.elapsed() > Duration::from_secs(60) {
                        backoff.reset();
                    }
                }
                Err(error) => tracing::warn!(role = self.role, %error, "cannot campaign, trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = drain.cancelled() => return,
            }
        }
    }

    /// Leads when the store says so; a process without a store leads alone.
    async fn campaign(&self) -> Result<Option<Leadership>, skep_storage::StorageError> {
        match &self.storage {
            Some(storage) => storage.campaign(self.role, &self.identity).await.map(Some),
            None => Ok(None),
        }
    }

    /// Works until leadership is lost, the work ends by itself, or the process stops.
    async fn lead(&self, leadership: Option<Leadership>, drain: &Drain) {
        let (stop, term) = drain.child();
        let work = term.spawn((self.work)(term.clone()));
        let lost = async {
            match &leadership {
                Some(leadership) => leadership.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = lost => tracing::warn!(role = self.role, "leadership is lost: the role stops"),
            ended = work => {
                if !drain.is_draining() {
                    let panicked = ended.is_err();
                    tracing::error!(role = self.role, panicked, "the role ended by itself: it starts again");
                }
            }
            () = drain.cancelled() => {}
        }
        if !stop.drain(STOP).await {
            tracing::warn!(role = self.role, "the role did not stop in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use skep_storage::MemoryStorage;
    use tokio::sync::mpsc;

    use super::*;

    fn elected(
        storage: &Arc<MemoryStorage>,
        name: &'static str,
        log: mpsc::UnboundedSender<String>,
    ) -> Elected {
        let work: Work = Box::new(move |drain: Drain| {
            let log = log.clone();
            async move {
                log.send(format!("{name} starts")).unwrap();
                drain.cancelled().await;
                log.send(format!("{name} stops")).unwrap();
            }
            .boxed()
        });
        let storage: Arc<dyn Storage> = Arc::clone(storage) as Arc<dyn Storage>;
        let ready = Readiness::default().token(name);
        Elected { role: "scheduler", identity: name.to_owned(), storage: Some(storage), work, ready }
    }

    #[tokio::test]
    async fn the_next_process_leads_when_the_first_stops() {
        let storage = Arc::new(MemoryStorage::new());
        let (log, mut lines) = mpsc::unbounded_channel();
        let (first_trigger, first) = Drain::new();
        let (second_trigger, second) = Drain::new();
        first.spawn(elected(&storage, "first", log.clone()).run(first.clone()));
        assert_eq!(lines.recv().await.unwrap(), "first starts");
        second.spawn(elected(&storage, "second", log).run(second.clone()));
        assert!(first_trigger.drain(STOP).await);
        assert_eq!(lines.recv().await.unwrap(), "first stops");
        assert_eq!(lines.recv().await.unwrap(), "second starts");
        assert!(second_trigger.drain(STOP).await);
        assert_eq!(lines.recv().await.unwrap(), "second stops");
    }

    #[tokio::test]
    async fn a_role_that_panics_starts_again() {
        let starts = Arc::new(AtomicUsize::new(0));
        let (log, mut lines) = mpsc::unbounded_channel();
        let mut role = elected(&Arc::new(MemoryStorage::new()), "only", log.clone());
        role.work = Box::new(move |_drain| {
            let (starts, log) = (Arc::clone(&starts), log.clone());
            async move {
                assert!(starts.fetch_add(1, Ordering::SeqCst) > 0, "the first time it fails");
                log.send("works".to_owned()).unwrap();
            }
            .boxed()
        });
        let (trigger, drain) = Drain::new();
        drain.spawn(role.run(drain.clone()));
        assert_eq!(lines.recv().await.unwrap(), "works");
        assert!(trigger.drain(STOP).await);
    }
}
