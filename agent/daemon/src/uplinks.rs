//! The devices that outside clients come in by: those that hold an address of the node or the default route, or those
//! that the operator names. Bonds, VLANs and bridges count by their own device, which is where their packets appear.
//! Followed as devices and addresses come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use serde::Serialize;
use skep_datapath::{Datapath, DatapathError};
use skep_routing::{Changes, HOST_LINK, NET_LINK, Netlink, RoutingError, TUNNEL_LINK, pod::is_host_name};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::options::balancing::{Balancing, Xdp};

/// How often devices are looked at though nobody told of a change.
const LOOK: Duration = Duration::from_secs(30);
/// When a look that failed is repeated.
const RETRY: Duration = Duration::from_millis(500);
/// Changes come in bursts.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a device that lost its address keeps its programs: the address may be renewed, and flows go on.
const GRACE: Duration = Duration::from_secs(60);

/// What puts programs on uplinks.
pub(crate) trait UplinkPrograms: Send + Sync {
    /// Attaches behind the device; repeating it is fine.
    fn attach(&self, index: u32) -> Result<(), DatapathError>;
    /// Attaches before the stack; says how.
    fn attach_xdp(&self, index: u32) -> Result<&'static str, DatapathError>;
    /// Detaches what is before the stack, if anything is.
    fn detach_xdp(&self, index: u32) -> Result<(), DatapathError>;
    /// Detaches everything; a device that is gone is fine.
    fn detach(&self, index: u32) -> Result<(), DatapathError>;
    /// Devices that an earlier process attached to.
    fn attached(&self) -> BTreeSet<u32>;
}

impl UplinkPrograms for Datapath {
    fn attach(&self, index: u32) -> Result<(), DatapathError> {
        self.attach_uplink(index)
    }

    fn attach_xdp(&self, index: u32) -> Result<&'static str, DatapathError> {
        Datapath::attach_xdp(self, index).map(skep_datapath::XdpMode::label)
    }

    fn detach_xdp(&self, index: u32) -> Result<(), DatapathError> {
        Datapath::detach_xdp(self, index)
    }

    fn detach(&self, index: u32) -> Result<(), DatapathError> {
        self.detach_uplink(index)
    }

    fn attached(&self) -> BTreeSet<u32> {
        let reports = self.attach_report().into_iter();
        let uplinks = reports.filter(|report| report.program == skep_abi::programs::FROM_UPLINK.name);
        uplinks.map(|report| report.ifindex).collect()
    }
}

/// An uplink, for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Uplink {
    /// Name of the device.
    pub(crate) device: String,
    /// Why packets that come in by it are not balanced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// How packets are seen before the stack, or why they are not; absent when nobody asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) xdp: Option<String>,
}

/// A device of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Device {
    name: String,
    index: u32,
    addresses: BTreeSet<IpAddr>,
    has_default_route: bool,
}

/// Addresses that the node is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeAddresses {
    /// The addresses.
    pub(crate) all: BTreeSet<IpAddr>,
    /// Whether the API server has said so; until then there may be more.
    pub(crate) is_complete: bool,
}

/// Whether outside clients come in by the device.
fn is_uplink(device: &Device, named: &[String], node_addresses: &BTreeSet<IpAddr>) -> bool {
    let ours = [HOST_LINK, NET_LINK, TUNNEL_LINK].contains(&device.name.as_str());
    if ours || device.name == "lo" || is_host_name(&device.name) {
        return false;
    }
    if named.is_empty() {
        return device.has_default_route || !device.addresses.is_disjoint(node_addresses);
    }
    named.iter().any(|name| match name.strip_suffix('*') {
        Some(beginning) => device.name.starts_with(beginning),
        None => device.name == *name,
    })
}

/// Keeps programs on the uplinks.
pub(crate) struct Uplinks {
    programs: Arc<dyn UplinkPrograms>,
    balancing: Balancing,
    attached: BTreeMap<u32, Uplink>,
    unwanted: BTreeMap<u32, Instant>,
    report: watch::Sender<Vec<Uplink>>,
}

impl Uplinks {
    /// Continues with what an earlier process attached.
    pub(crate) fn new(
        programs: Arc<dyn UplinkPrograms>,
        balancing: Balancing,
        report: watch::Sender<Vec<Uplink>>,
    ) -> Self {
        Uplinks { programs, balancing, attached: BTreeMap::new(), unwanted: BTreeMap::new(), report }
    }

    /// Follows the node's devices, for ever.
    pub(crate) async fn run(
        mut self,
        netlink: Netlink,
        mut node_addresses: watch::Receiver<NodeAddresses>,
    ) -> Result<(), RoutingError> {
        let (changes, mut news, driver) = Changes::open()?;
        tokio::pin!(driver);
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut driver => return Ok(()),
                _ = ticks.tick() => {}
                _ = news.next() => {}
                changed = node_addresses.changed() => if changed.is_err() { return Ok(()) },
            }
            let settled = tokio::time::sleep(SETTLE);
            tokio::select! {
                () = &mut driver => return Ok(()),
                () = settled => {}
            }
            while futures::FutureExt::now_or_never(news.next()).flatten().is_some() {}
            let addresses = node_addresses.borrow_and_update().clone();
            let look = devices(&netlink, &changes);
            let seen = tokio::select! {
                () = &mut driver => return Ok(()),
                seen = look => seen,
            };
            match seen {
                Ok(devices) => self.follow(&devices, &addresses, Instant::now()),
                // A list that changes while it is read is refused; the next one will do.
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "cannot look at the node's devices, will retry");
                    ticks.reset_after(RETRY);
                }
            }
        }
    }

    /// Brings the programs to where they should be.
    fn follow(&mut self, devices: &[Device], node_addresses: &NodeAddresses, now: Instant) {
        let wanted: BTreeMap<u32, &Device> = devices
            .iter()
            .filter(|device| is_uplink(device, &self.balancing.devices, &node_addresses.all))
            .map(|device| (device.index, device))
            .collect();
        let there: BTreeSet<u32> = devices.iter().map(|device| device.index).collect();
        for (index, device) in &wanted {
            self.unwanted.remove(index);
            if self.attached.get(index).is_none_or(|uplink| uplink.problem.is_some()) {
                let uplink = self.attach(*index, &device.name);
                self.attached.insert(*index, uplink);
            }
        }
        let known: BTreeSet<u32> = self.attached.keys().copied().chain(self.programs.attached()).collect();
        for index in known.into_iter().filter(|index| !wanted.contains_key(index)) {
            let since = *self.unwanted.entry(index).or_insert(now);
            let is_over = node_addresses.is_complete && now.duration_since(since) >= GRACE;
            if is_over || !there.contains(&index) {
                self.detach(index);
            }
        }
        let report: Vec<Uplink> = self.attached.values().cloned().collect();
        self.report.send_if_modified(|before| std::mem::replace(before, report.clone()) != report);
    }

    fn attach(&self, index: u32, name: &str) -> Uplink {
        let mut uplink = Uplink { device: name.to_owned(), problem: None, xdp: None };
        if let Err(error) = self.programs.attach(index) {
            tracing::warn!(device = name, error = %chain(&error), "outside clients that come in by it are not served");
            uplink.problem = Some(chain(&error));
            return uplink;
        }
        if self.balancing.xdp == Xdp::Off
            && let Err(error) = self.programs.detach_xdp(index)
        {
            tracing::warn!(device = name, error = %chain(&error), "the program before the stack cannot be detached");
        }
        if self.balancing.xdp == Xdp::Auto {
            uplink.xdp = Some(self.programs.attach_xdp(index).map_or_else(
                |error| {
                    tracing::info!(device = name, error = %chain(&error), "no program before the stack; the one behind it does its work");
                    format!("none: {}", chain(&error))
                },
                str::to_owned,
            ));
        }
        tracing::info!(device = name, xdp = uplink.xdp, "outside clients that come in by it are served");
        uplink
    }

    fn detach(&mut self, index: u32) {
        let name = self.attached.get(&index).map(|uplink| uplink.device.clone());
        match self.programs.detach(index) {
            Ok(()) => {
                self.attached.remove(&index);
                self.unwanted.remove(&index);
                tracing::info!(index, device = name, "no uplink any more");
            }
            Err(error) => {
                tracing::warn!(index, error = %chain(&error), "cannot detach from a former uplink, will retry")
            }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn devices(netlink: &Netlink, changes: &Changes) -> Result<Vec<Device>, RoutingError> {
    let defaults = changes.default_devices().await?;
    let mut devices: BTreeMap<String, Device> = netlink
        .links()
        .await?
        .into_iter()
        .filter(|(_, link)| link.up)
        .map(|(name, link)| {
            let has_default_route = defaults.contains(&link.index);
            let device =
                Device { name: name.clone(), index: link.index, has_default_route, ..Device::default() };
            (name, device)
        })
        .collect();
    for (ip, name) in netlink.own_addresses().await? {
        if let Some(device) = devices.get_mut(&name) {
            device.addresses.insert(ip);
        }
    }
    Ok(devices.into_values().collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use clap::Parser;

    use super::*;
    use crate::options::Options;

    #[derive(Default)]
    struct Fake(Mutex<BTreeSet<u32>>);

    impl UplinkPrograms for Fake {
        fn attach(&self, index: u32) -> Result<(), DatapathError> {
            self.0.lock().unwrap().insert(index);
            Ok(())
        }

        fn attach_xdp(&self, _: u32) -> Result<&'static str, DatapathError> {
            Ok("xdp-native")
        }

        fn detach_xdp(&self, _: u32) -> Result<(), DatapathError> {
            Ok(())
        }

        fn detach(&self, index: u32) -> Result<(), DatapathError> {
            self.0.lock().unwrap().remove(&index);
            Ok(())
        }

        fn attached(&self) -> BTreeSet<u32> {
            self.0.lock().unwrap().clone()
        }
    }

    fn device(index: u32, name: &str, address: [u8; 4], has_default_route: bool) -> Device {
        Device { name: name.into(), index, addresses: [address.into()].into(), has_default_route }
    }

    fn balancing(extra: &[&str]) -> Balancing {
        let base = ["skep-agent", "--node-name", "n"];
        Options::try_parse_from(base.iter().chain(extra)).unwrap().balancing
    }

    #[test]
    fn devices_with_a_node_address_or_the_default_route_are_uplinks() {
        let node: BTreeSet<IpAddr> = [[10, 89, 0, 11].into()].into();
        assert!(is_uplink(&device(1, "bond0.7", [10, 89, 0, 11], false), &[], &node));
        assert!(is_uplink(&device(1, "eth1", [192, 0, 2, 1], true), &[], &node));
        assert!(!is_uplink(&device(1, "docker0", [172, 17, 0, 1], false), &[], &node));
        for ours in ["lo", HOST_LINK, NET_LINK, TUNNEL_LINK] {
            assert!(!is_uplink(&device(1, ours, [10, 89, 0, 11], true), &[], &node), "{ours}");
        }
        let named = ["eth*".to_owned(), "wan".to_owned()];
        assert!(is_uplink(&device(1, "eth7", [172, 17, 0, 1], false), &named, &node));
        assert!(!is_uplink(&device(1, "bond0", [10, 89, 0, 11], true), &named, &node));
    }

    #[test]
    fn programs_follow_devices_and_outlast_an_address_that_is_renewed() {
        let fake = Arc::new(Fake::default());
        // Left by an earlier process on a device that is gone.
        fake.attach(99).unwrap();
        let (report, seen) = watch::channel(Vec::new());
        let mut uplinks = Uplinks::new(fake.clone(), balancing(&["--xdp", "auto"]), report);
        let node = NodeAddresses { all: [[10, 89, 0, 11].into()].into(), is_complete: true };
        let unsure = NodeAddresses { is_complete: false, ..node.clone() };
        let now = Instant::now();
        let with = [device(1, "eth0", [10, 89, 0, 11], false)];
        uplinks.follow(&with, &node, now);
        assert_eq!(fake.attached(), [1].into());
        assert_eq!(seen.borrow()[0].xdp.as_deref(), Some("xdp-native"));
        let without = [Device { addresses: BTreeSet::new(), ..with[0].clone() }];
        uplinks.follow(&without, &node, now);
        assert_eq!(fake.attached(), [1].into());
        uplinks.follow(&with, &node, now + GRACE);
        uplinks.follow(&without, &node, now + GRACE);
        assert_eq!(fake.attached(), [1].into());
        uplinks.follow(&without, &unsure, now + GRACE * 2);
        assert_eq!(fake.attached(), [1].into());
        uplinks.follow(&without, &node, now + GRACE * 2);
        assert!(fake.attached().is_empty() && seen.borrow().is_empty());
        uplinks.follow(&with, &node, now);
        uplinks.follow(&[], &node, now);
        assert!(fake.attached().is_empty());
    }
}
