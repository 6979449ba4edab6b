//! Facts about the machine: what the kernel and os-release say, what it has to offer.

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::sys::{statvfs::statvfs, utsname::uname};

use crate::quantity;

/// The facts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Machine {
    /// `/etc/machine-id`.
    pub(crate) machine_id: String,
    /// The boot's id.
    pub(crate) boot_id: String,
    /// The board's uuid.
    pub(crate) system_uuid: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The distribution, in words.
    pub(crate) os_image: String,
    /// In Go's words, as labels have it: amd64, arm64.
    pub(crate) architecture: &'static str,
    /// What it offers.
    pub(crate) capacity: BTreeMap<String, Quantity>,
    /// What is left for pods.
    pub(crate) allocatable: BTreeMap<String, Quantity>,
}

impl Machine {
    /// Reads the machine; `given` replaces what it says, `reserved` is kept from pods.
    pub(crate) fn read(
        root: &Path,
        given: BTreeMap<String, Quantity>,
        reserved: &[(String, String)],
    ) -> Self {
        let mut capacity = offer(root);
        capacity.extend(given);
        let allocatable = allocatable(&capacity, reserved);
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            kernel: uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default(),
            os_image: os_image(&line("/etc/os-release")),
            architecture: architecture(),
            capacity,
            allocatable,
        }
    }

    /// Memory in bytes.
    pub(crate) fn memory_bytes(&self) -> i64 {
        self.capacity.get("memory").and_then(quantity::whole).unwrap_or(0)
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |n| n.trim_matches('"').to_owned())
}

fn offer(root: &Path) -> BTreeMap<String, Quantity> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = memory_kib(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let disk = statvfs(root).map(|s| s.blocks() * s.fragment_size() / 1024).unwrap_or(0);
    [
        ("cpu", cpus.to_string()),
        ("memory", format!("{memory}Ki")),
        ("pods", "110".to_owned()),
        ("ephemeral-storage", format!("{disk}Ki")),
        ("hugepages-2Mi", "0".to_owned()),
        ("hugepages-1Gi", "0".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), Quantity(value)))
    .collect()
}

/// The total in a meminfo.
fn memory_kib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|t| t.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn allocatable(
    capacity: &BTreeMap<String, Quantity>,
    reserved: &[(String, String)],
) -> BTreeMap<String, Quantity> {
    let mut left = capacity.clone();
    for (name, amount) in reserved {
        let amount = Quantity(amount.clone());
        let Some(total) = capacity.get(name) else { continue };
        let rest = match name.as_str() {
            "cpu" => quantity::milli(total)
                .zip(quantity::milli(&amount))
                .map(|(t, a)| format!("{}m", (t - a).max(0))),
            _ => {
                quantity::whole(total).zip(quantity::whole(&amount)).map(|(t, a)| (t - a).max(0).to_string())
            }
        };
        left.extend(rest.map(|rest| (name.clone(), Quantity(rest))));
    }
    left
}

/// Free memory in KiB, as the kernel estimates it.
pub(crate) fn available_kib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|t| t.split_whitespace().next()?.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_amounts_are_kept_from_pods() {
        let capacity = BTreeMap::from([
            ("cpu".to_owned(), Quantity("2".to_owned())),
            ("memory".to_owned(), Quantity("4Gi".to_owned())),
        ]);
        let left = allocatable(&capacity, &[("cpu".into(), "100m".into()), ("memory".into(), "1Gi".into())]);
        assert_eq!(left["cpu"].0, "1900m");
        assert_eq!(left["memory"].0, (3i64 << 30).to_string());
    }

    #[test]
    fn reads_the_kernels_words() {
        assert_eq!(memory_kib("MemTotal:       100 kB\nMemAvailable: 40 kB\n"), 100);
        assert_eq!(available_kib("MemTotal:       100 kB\nMemAvailable: 40 kB\n"), 40);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
    }
}
