//! Amounts of resources: what a pod asks for, what a node has.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use skep_api::Quantity;

/// Amounts by resource. CPU in thousandths, the rest in whole units (bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of local disk.
    pub ephemeral_storage: i64,
    /// Everything else, ordered by name.
    pub scalars: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// The amounts in an API object's map. Unreadable quantities count as nothing: the API refuses them.
    pub fn from_map(map: Option<&BTreeMap<String, RawQuantity>>) -> Self {
        let mut resources = Self::default();
        for (name, raw) in map.into_iter().flatten() {
            let quantity: Quantity = raw.0.parse().unwrap_or_default();
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => resources.scalars.push((name.as_str().into(), quantity.value())),
            }
        }
        resources
    }

    /// What a pod needs at its peak: all containers together, or an init container beside the sidecars started before
    /// it, whichever is more; plus the overhead of its runtime class.
    pub fn of_pod(spec: &PodSpec) -> Self {
        let request = |container: &Container| {
            Self::from_map(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
        };
        let mut total = Self::default();
        for container in &spec.containers {
            total.add(&request(container));
        }
        let mut sidecars = Self::default();
        let mut peak = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let mut during = request(container);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&during);
                peak.max(&sidecars);
            } else {
                during.add(&sidecars);
                peak.max(&during);
            }
        }
        total.add(&sidecars);
        total.max(&peak);
        total.add(&Self::from_map(spec.overhead.as_ref()));
        total
    }

    /// The amount of a scalar resource.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.iter().find(|(own, _)| &**own == name).map_or(0, |(_, amount)| *amount)
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    /// Subtracts `other`.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// Raises each amount to that of `other`.
    pub fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            match self.scalars.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => *own = f(*own, *amount),
                None => self.scalars.push((name.clone(), f(0, *amount))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ResourceRequirements;

    use super::*;

    fn container(cpu: &str, sidecar: bool) -> Container {
        let requests = BTreeMap::from([("cpu".to_owned(), RawQuantity(cpu.to_owned()))]);
        Container {
            resources: Some(ResourceRequirements {
                requests: Some(requests),
                ..ResourceRequirements::default()
            }),
            restart_policy: sidecar.then(|| "Always".to_owned()),
            ..Container::default()
        }
    }

    #[test]
    fn peak_counts_sidecars_beside_init_containers() {
        let spec = PodSpec {
            containers: vec![container("200m", false), container("100m", false)],
            init_containers: Some(vec![
                container("50m", false),
                container("100m", true),
                container("500m", false),
            ]),
            ..PodSpec::default()
        };
        assert_eq!(Resources::of_pod(&spec).milli_cpu, 600);
    }
}
