//! Work inside a pod's network namespace, on a thread of its own: setns(2) changes the calling thread only, and a
//! thread that has been moved is never reused.

use std::{
    fs::File,
    future::Future,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use crate::{RoutingError, netlink::Netlink, plan::Route, pod::PodLink, sysctl};

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    file: File,
}

impl Namespace {
    /// Opens the namespace behind a path.
    pub fn open(path: &Path) -> Result<Self, RoutingError> {
        let file =
            File::open(path).map_err(|source| RoutingError::Namespace { path: path.into(), source })?;
        Ok(Namespace { path: path.into(), file })
    }

    /// Descriptor, for moving devices into the namespace.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Whether this is the namespace that the process itself runs in: no pod's.
    #[must_use]
    pub fn is_own(&self) -> bool {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let own = std::fs::metadata("/proc/self/ns/net").map(identity);
        matches!((self.file.metadata().map(identity), own), (Ok(a), Ok(b)) if a == b)
    }

    /// Runs `work` on a fresh thread inside the namespace.
    pub async fn run<W, F, T>(&self, work: W) -> Result<T, RoutingError>
    where
        W: FnOnce(Netlink) -> F + Send + 'static,
        F: Future<Output = Result<T, RoutingError>>,
        T: Send + 'static,
    {
        let path = self.path.clone();
        let file =
            self.file.try_clone().map_err(|source| RoutingError::Namespace { path: path.clone(), source })?;
        let (result, received) = oneshot::channel();
        let name = "skep-netns".to_owned();
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            // Nobody listens any more when the caller was cancelled.
            let _ = result.send(inside(&path, &file, work));
        });
        spawned.map_err(RoutingError::Socket)?;
        received.await.unwrap_or_else(|_| Err(RoutingError::ThreadLost(self.path.clone())))
    }
}

fn inside<W, F, T>(path: &Path, file: &File, work: W) -> Result<T, RoutingError>
where
    W: FnOnce(Netlink) -> F,
    F: Future<Output = Result<T, RoutingError>>,
{
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| RoutingError::Namespace { path: path.into(), source: errno.into() })?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RoutingError::Socket)?;
    runtime.block_on(async {
        let (netlink, connection) = Netlink::open()?;
        // Ends with the runtime, that is with this function.
        let _driver = tokio::spawn(connection);
        work(netlink).await
    })
}

/// Configures the pod's side: loopback, addresses, the gateway's route and neighbour, the default route.
pub async fn configure_pod(netlink: Netlink, pod: PodLink) -> Result<(), RoutingError> {
    netlink.set_up("lo").await?;
    for (key, value) in pod.pod_sysctls() {
        sysctl::write(&key, &value)?;
    }
    let name = &pod.pod_name;
    for address in &pod.addresses {
        netlink.add_address(name, address.ip).await?;
    }
    netlink.set_up(name).await?;
    for address in &pod.addresses {
        let gateway = skep_model::IpCidr::host(address.gateway);
        netlink.set_route(gateway, &Route { device: name.clone(), via: None, source: None }).await?;
        netlink.set_neighbour(name, address.gateway, pod.host_mac).await?;
        netlink.set_default_route(name, address.gateway).await?;
    }
    Ok(())
}

/// What is wrong with the pod's side; empty when all is as configured.
pub async fn check_pod(netlink: Netlink, pod: PodLink) -> Result<Vec<String>, RoutingError> {
    let Some(link) = netlink.link(&pod.pod_name).await? else {
        return Ok(vec![format!("the pod has no device {}", pod.pod_name)]);
    };
    let mut problems = Vec::new();
    if !link.up {
        problems.push(format!("{} is down", pod.pod_name));
    }
    if link.mac != pod.pod_mac {
        problems
            .push(format!("{} has the link-layer address {}, not {}", pod.pod_name, link.mac, pod.pod_mac));
    }
    let held = netlink.own_addresses().await?;
    for address in &pod.addresses {
        if held.get(&address.ip) != Some(&pod.pod_name) {
            problems.push(format!("{} lacks the address {}", pod.pod_name, address.ip));
        }
    }
    Ok(problems)
}
