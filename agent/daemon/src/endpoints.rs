//! Pods attached to this node: address, devices, programs, routes, and their removal.
//!
//! The address state on disk is written first and erased last, so that after a crash at any point the record of what
//! may exist is complete. A pod's device lives exactly as long as its network namespace; an attachment whose device is
//! gone is therefore gone itself, and is released by the next [`Endpoints::reconcile`], whoever forgot to say so.

mod error;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use skep_datapath::{Datapath, DatapathError, Endpoint, MapTable};
use skep_ipam::{Allocation, Attachment, AttachmentKey};
use skep_model::NamespacedName;
use skep_routing::{
    Actual, Netlink, NodeNetwork, PodAddress, PodLink,
    namespace::{Namespace, check_pod, configure_pod},
    plan,
    pod::is_host_name,
};
use tokio::sync::{RwLock, watch};

pub(crate) use self::error::EndpointError;
use self::record::Record;

/// What attaches programs to pods.
pub(crate) trait Programs: Send + Sync {
    /// Attaches to a device; repeating it is fine.
    fn attach_pod(&self, index: u32) -> Result<(), DatapathError>;
    /// Detaches from a device, which may be gone.
    fn detach_pod(&self, index: u32) -> Result<(), DatapathError>;
}

impl Programs for Datapath {
    fn attach_pod(&self, index: u32) -> Result<(), DatapathError> {
        Datapath::attach_pod(self, index)
    }

    fn detach_pod(&self, index: u32) -> Result<(), DatapathError> {
        Datapath::detach_pod(self, index)
    }
}

/// The attachments of this node.
pub(crate) struct Endpoints {
    netlink: Netlink,
    network: NodeNetwork,
    programs: Arc<dyn Programs>,
    record: Arc<Record>,
    /// Held shared while one attachment changes, and alone while all of them are compared with the kernel.
    gate: RwLock<()>,
    changed: watch::Sender<()>,
}

impl Endpoints {
    /// Continues from the state on disk; nothing is touched before [`Endpoints::restore`].
    pub(crate) fn open(
        state_dir: &Path,
        netlink: Netlink,
        network: NodeNetwork,
        ranges: &[skep_model::IpCidr],
        programs: Arc<dyn Programs>,
        table: &Arc<dyn MapTable<IpAddr, Endpoint>>,
    ) -> Result<Self, EndpointError> {
        let record = Arc::new(Record::open(state_dir, ranges, table)?);
        Ok(Endpoints {
            netlink,
            network,
            programs,
            record,
            gate: RwLock::new(()),
            changed: watch::Sender::new(()),
        })
    }

    /// Takes over what an earlier process left: programs are replaced in place, rows written, leftovers removed.
    pub(crate) async fn restore(&self) -> Result<(), EndpointError> {
        self.reconcile().await?;
        let links = self.netlink.links().await?;
        for (key, allocation) in self.record.all() {
            let pod = self.pod_link(&key, &allocation);
            let Some(link) = links.get(&pod.host_name) else { continue };
            match self.programs.attach_pod(link.index) {
                Ok(()) => self.record.write_rows(&key, &pod, link.index)?,
                Err(error) => {
                    tracing::error!(pod = %pod_name(&allocation.attachment), %error, "cannot adopt the pod")
                }
            }
        }
        self.record.complete_rows()?;
        tracing::info!(endpoints = self.record.all().len(), "adopted the attached pods");
        Ok(())
    }

    /// Attaches a pod. When this returns, its address, devices, programs and routes are in place.
    pub(crate) async fn add(
        &self,
        key: AttachmentKey,
        attachment: Attachment,
    ) -> Result<(PodLink, Allocation), EndpointError> {
        let _claim = self.record.claim(&key)?;
        let _gate = self.gate.read().await;
        let namespace = Namespace::open(&namespace_path(&attachment.netns))?;
        if namespace.is_own() {
            return Err(EndpointError::OwnNamespace(attachment.netns));
        }
        let allocation = self.record.allocate(&key, attachment).await?;
        let pod = self.pod_link(&key, &allocation);
        match self.build(&key, &pod, &namespace).await {
            Ok(()) => {
                self.changed.send_replace(());
                tracing::info!(pod = %pod_name(&allocation.attachment), ips = ?addresses(&allocation), device = pod.host_name, "attached");
                Ok((pod, allocation))
            }
            Err(error) => {
                if let Err(leftover) = self.remove(&key).await {
                    tracing::warn!(%leftover, "cannot undo a failed attachment; it will be removed later");
                }
                Err(error)
            }
        }
    }

    /// Detaches a pod; an unknown one is fine.
    pub(crate) async fn del(&self, key: &AttachmentKey) -> Result<(), EndpointError> {
        let _claim = self.record.claim(key)?;
        let _gate = self.gate.read().await;
        self.remove(key).await
    }

    /// Compares an attachment with the kernel.
    pub(crate) async fn check(&self, key: &AttachmentKey, netns: &str) -> Result<(), EndpointError> {
        let allocation =
            self.record.get(key).ok_or_else(|| EndpointError::Unknown(key.container_id.clone()))?;
        let pod = self.pod_link(key, &allocation);
        let mut problems = Vec::new();
        if self.netlink.link(&pod.host_name).await?.is_none() {
            problems.push(format!("the node has no device {}", pod.host_name));
        }
        let inside = Namespace::open(&namespace_path(netns))?;
        problems.extend(inside.run(|netlink| check_pod(netlink, pod)).await?);
        if problems.is_empty() { Ok(()) } else { Err(EndpointError::Broken(problems)) }
    }

    /// Detaches everything that `valid` does not name; says how many.
    pub(crate) async fn gc(&self, valid: &BTreeSet<AttachmentKey>) -> Result<u32, EndpointError> {
        let stale: Vec<_> = self.record.all().into_keys().filter(|key| !valid.contains(key)).collect();
        let mut removed = 0;
        for key in stale {
            match self.del(&key).await {
                Ok(()) => removed += 1,
                Err(EndpointError::Busy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Brings routes, neighbours and settings to what they should be, releases what has lost its namespace, and
    /// removes devices that nobody remembers.
    pub(crate) async fn reconcile(&self) -> Result<(), EndpointError> {
        let _gate = self.gate.write().await;
        let links = self.netlink.links().await?;
        let mut pods = BTreeMap::new();
        for (key, allocation) in self.record.all() {
            let pod = self.pod_link(&key, &allocation);
            if links.contains_key(&pod.host_name) {
                pods.insert(pod.host_name.clone(), pod);
            } else {
                tracing::info!(pod = %pod_name(&allocation.attachment), "its namespace is gone: released");
                self.remove(&key).await?;
            }
        }
        for name in links.keys().filter(|name| is_host_name(name) && !pods.contains_key(*name)) {
            tracing::warn!(device = name, "removing a pod device without a record");
            self.remove_device(name, None).await?;
        }
        let desired = self.network.desired(pods.values());
        for command in plan(&desired, &self.netlink.actual().await?) {
            if let Err(error) = self.netlink.execute(&command).await {
                tracing::warn!(?command, %error, "a step of the network plan failed, will retry");
            }
        }
        Ok(())
    }

    /// Tells when attachments come and go.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Pods with their addresses.
    pub(crate) fn list(&self) -> Vec<(NamespacedName, IpAddr)> {
        let all = self.record.all().into_values();
        let each = all.flat_map(|allocation| {
            let name = pod_name(&allocation.attachment);
            addresses(&allocation).into_iter().map(move |ip| (name.clone(), ip)).collect::<Vec<_>>()
        });
        each.collect()
    }

    /// Network namespaces of the attached pods.
    pub(crate) fn namespaces(&self) -> Vec<PathBuf> {
        let all = self.record.all().into_values();
        all.map(|allocation| namespace_path(&allocation.attachment.netns)).collect()
    }

    /// How many pods could still be attached.
    pub(crate) fn free(&self) -> u64 {
        self.record.free()
    }

    /// Addresses of this node, those of its pods left out.
    pub(crate) async fn own_addresses(&self) -> Result<BTreeSet<IpAddr>, EndpointError> {
        let held = self.netlink.own_addresses().await?;
        Ok(held.into_iter().filter(|(_, device)| !is_host_name(device)).map(|(ip, _)| ip).collect())
    }

    async fn build(
        &self,
        key: &AttachmentKey,
        pod: &PodLink,
        namespace: &Namespace,
    ) -> Result<(), EndpointError> {
        let inside = pod.clone();
        let intact = self.netlink.link(&pod.host_name).await?.is_some()
            && namespace.run(|netlink| check_pod(netlink, inside)).await?.is_empty();
        if !intact {
            self.remove_device(&pod.host_name, None).await?;
            self.netlink.create_pod_pair(pod, namespace.descriptor()).await?;
        }
        let link = self.netlink.link(&pod.host_name).await?;
        let link = link.ok_or_else(|| EndpointError::Vanished(pod.host_name.clone()))?;
        // Programs and the row come first: while the device is down, no packet is seen without them.
        self.programs.attach_pod(link.index)?;
        self.record.write_rows(key, pod, link.index)?;
        let inside = pod.clone();
        namespace.run(|netlink| configure_pod(netlink, inside)).await?;
        let actual = Actual { links: [(pod.host_name.clone(), link)].into(), ..Actual::default() };
        for command in plan(&self.network.pod_side(pod), &actual) {
            self.netlink.execute(&command).await?;
        }
        Ok(())
    }

    async fn remove(&self, key: &AttachmentKey) -> Result<(), EndpointError> {
        let index = self.record.remove_rows(key)?;
        let name = skep_routing::pod::host_name(&key.container_id, &key.ifname);
        self.remove_device(&name, index).await?;
        if let Some(released) = self.record.release(key).await? {
            self.changed.send_replace(());
            tracing::info!(pod = %pod_name(&released.attachment), ips = ?addresses(&released), "detached");
        }
        Ok(())
    }

    /// Removes a pod's device and then its programs: without a device no packet can miss them.
    async fn remove_device(&self, name: &str, remembered: Option<u32>) -> Result<(), EndpointError> {
        let present = self.netlink.link(name).await?.map(|link| link.index);
        self.netlink.delete_link(name).await?;
        for index in present.into_iter().chain(remembered).collect::<BTreeSet<u32>>() {
            self.programs.detach_pod(index)?;
        }
        Ok(())
    }

    fn pod_link(&self, key: &AttachmentKey, allocation: &Allocation) -> PodLink {
        let carried = |ip| Some(PodAddress { ip, gateway: self.network.gateway_for(ip)? });
        let addresses = allocation.addresses().filter_map(carried).collect();
        PodLink::new(&key.container_id, &key.ifname, self.network.pod_mtu(), addresses)
    }
}

fn addresses(allocation: &Allocation) -> Vec<IpAddr> {
    allocation.addresses().collect()
}

fn pod_name(attachment: &Attachment) -> NamespacedName {
    NamespacedName::new(attachment.pod_namespace.clone(), attachment.pod_name.clone())
}

/// Runtimes say `/var/run`, which need not lead to `/run` in the agent's own image.
fn namespace_path(text: &str) -> PathBuf {
    text.strip_prefix("/var/run/").map_or_else(|| PathBuf::from(text), |rest| Path::new("/run").join(rest))
}

#[cfg(test)]
mod tests;
