//! What is remembered of attachments: addresses on disk, rows in the endpoint table, devices in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use skep_datapath::{Endpoint, MapTable, TableError};
use skep_ipam::{Allocation, Allocator, Attachment, AttachmentKey, StateFile, UnixSeconds};
use skep_model::IpCidr;
use skep_routing::PodLink;

use super::error::EndpointError;

/// How long a freed address rests: longer than any peer keeps believing in its old holder.
const QUARANTINE_SECONDS: u64 = 30;

/// The record of all attachments.
pub(super) struct Record {
    inner: Arc<Mutex<Inner>>,
    table: Arc<dyn MapTable<IpAddr, Endpoint>>,
}

struct Inner {
    allocator: Allocator,
    file: StateFile,
    busy: BTreeSet<AttachmentKey>,
    devices: BTreeMap<AttachmentKey, (u32, Vec<IpAddr>)>,
}

/// The exclusive right to work on one attachment.
pub(super) struct Claim {
    inner: Arc<Mutex<Inner>>,
    key: AttachmentKey,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.inner).busy.remove(&self.key);
    }
}

impl Record {
    pub(super) fn open(
        state_dir: &Path,
        ranges: &[IpCidr],
        table: &Arc<dyn MapTable<IpAddr, Endpoint>>,
    ) -> Result<Self, EndpointError> {
        let file = StateFile::new(state_dir.join("addresses.json"));
        let allocator = Allocator::restore(file.load()?, ranges, QUARANTINE_SECONDS);
        let inner = Inner { allocator, file, busy: BTreeSet::new(), devices: BTreeMap::new() };
        Ok(Record { inner: Arc::new(Mutex::new(inner)), table: Arc::clone(table) })
    }

    pub(super) fn claim(&self, key: &AttachmentKey) -> Result<Claim, EndpointError> {
        if !lock(&self.inner).busy.insert(key.clone()) {
            return Err(EndpointError::Busy(key.container_id.clone()));
        }
        Ok(Claim { inner: Arc::clone(&self.inner), key: key.clone() })
    }

    pub(super) async fn allocate(
        &self,
        key: &AttachmentKey,
        attachment: Attachment,
    ) -> Result<Allocation, EndpointError> {
        let key = key.clone();
        self.write(move |inner| {
            let known = inner.allocator.get(&key).cloned();
            let allocation = inner.allocator.allocate(&key, attachment, now())?;
            if known.as_ref() != Some(&allocation)
                && let Err(error) = inner.file.save(&inner.allocator.state())
            {
                // Not on disk, so not given out.
                inner.allocator.release(&key, now());
                return Err(error.into());
            }
            Ok(allocation)
        })
        .await
    }

    pub(super) async fn release(&self, key: &AttachmentKey) -> Result<Option<Allocation>, EndpointError> {
        let key = key.clone();
        self.write(move |inner| {
            let released = inner.allocator.release(&key, now());
            if released.is_some() {
                inner.file.save(&inner.allocator.state())?;
            }
            Ok(released)
        })
        .await
    }

    pub(super) fn get(&self, key: &AttachmentKey) -> Option<Allocation> {
        lock(&self.inner).allocator.get(key).cloned()
    }

    pub(super) fn all(&self) -> BTreeMap<AttachmentKey, Allocation> {
        lock(&self.inner)
            .allocator
            .iter()
            .map(|(key, allocation)| (key.clone(), allocation.clone()))
            .collect()
    }

    pub(super) fn free(&self) -> u64 {
        u64::try_from(lock(&self.inner).allocator.free()).unwrap_or(u64::MAX)
    }

    /// Writes the pod's rows; when this returns, programs know the pod.
    pub(super) fn write_rows(
        &self,
        key: &AttachmentKey,
        pod: &PodLink,
        index: u32,
    ) -> Result<(), TableError> {
        let row = Endpoint { ifindex: index, mac: pod.pod_mac, host_mac: pod.host_mac };
        let addresses: Vec<IpAddr> = pod.addresses.iter().map(|address| address.ip).collect();
        addresses.iter().try_for_each(|ip| self.table.update(ip, &row))?;
        lock(&self.inner).devices.insert(key.clone(), (index, addresses));
        Ok(())
    }

    /// Removes the pod's rows; says which device it had.
    pub(super) fn remove_rows(&self, key: &AttachmentKey) -> Result<Option<u32>, TableError> {
        let known = lock(&self.inner).devices.get(key).cloned();
        let held = self.get(key).map(|allocation| allocation.addresses().collect()).unwrap_or_default();
        let (index, addresses) = known.map_or((None, held), |(index, addresses)| (Some(index), addresses));
        addresses.iter().try_for_each(|ip| self.table.delete(ip))?;
        lock(&self.inner).devices.remove(key);
        Ok(index)
    }

    /// Removes rows that belong to no known pod.
    pub(super) fn complete_rows(&self) -> Result<(), TableError> {
        let wanted: BTreeSet<IpAddr> =
            lock(&self.inner).devices.values().flat_map(|(_, addresses)| addresses.clone()).collect();
        for (ip, _) in self.table.entries()? {
            if !wanted.contains(&ip) {
                self.table.delete(&ip)?;
            }
        }
        Ok(())
    }

    /// Changes the state on a thread that may block, since it waits for the disk.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Inner) -> Result<T, EndpointError> + Send + 'static,
    ) -> Result<T, EndpointError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || change(&mut lock(&inner)));
        done.await.unwrap_or(Err(EndpointError::Stopping))
    }
}

fn now() -> UnixSeconds {
    UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}
