//! Packs endpoints into slices: at most 100 each, one set of ports each, and as few writes as possible.
//!
//! An endpoint stays in the slice it is in. New ones go where a write is needed anyway, then into the slice they fit
//! best, then into fresh slices. A Service without endpoints keeps one empty slice.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::ResourceExt;
use skep_model::IpFamily;

use super::endpoint::Backends;
use crate::owner::controller_reference;

/// Value of [`MANAGED_BY`] on the slices of this controller.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label that says who writes a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label that names the Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of what belongs to a Service without an address.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
const CAPACITY: usize = 100;

/// A change to a slice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Create it.
    Create(Box<EndpointSlice>),
    /// Replace it.
    Update(Box<EndpointSlice>),
    /// Delete it, by name.
    Delete(String),
}

/// The changes that `existing` (this controller's slices of the Service) need.
pub(crate) fn plan(backends: &Backends<'_>, existing: &[Arc<EndpointSlice>]) -> Vec<Command> {
    let families = backends.families();
    let mut commands = Vec::new();
    let foreign = |slice: &&Arc<EndpointSlice>| {
        !families.iter().any(|family| slice.address_type == address_type(*family))
    };
    commands.extend(existing.iter().filter(foreign).map(|slice| Command::Delete(slice.name_any())));
    for family in &families {
        let own: Vec<&EndpointSlice> = existing
            .iter()
            .filter(|slice| slice.address_type == address_type(*family))
            .map(|slice| &**slice)
            .collect();
        commands.extend(family_plan(backends, *family, &own));
    }
    commands
}

fn address_type(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    }
}

fn family_plan(backends: &Backends<'_>, family: IpFamily, existing: &[&EndpointSlice]) -> Vec<Command> {
    let mut groups: BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for (ports, endpoint) in backends.endpoints(family) {
        groups.entry(port_key(&ports)).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
    }
    if groups.is_empty() {
        groups.insert(port_key(&[]), (Vec::new(), Vec::new()));
    }
    let template = template(backends.service, family);
    let stray = existing
        .iter()
        .filter(|slice| !groups.contains_key(&port_key(slice.ports.as_deref().unwrap_or_default())));
    let mut commands: Vec<Command> = stray.map(|slice| Command::Delete(slice.name_any())).collect();
    for (key, (ports, endpoints)) in groups {
        let own: Vec<&EndpointSlice> = existing
            .iter()
            .copied()
            .filter(|slice| port_key(slice.ports.as_deref().unwrap_or_default()) == key)
            .collect();
        commands.extend(pack(&template, &ports, endpoints, &own));
    }
    commands
}

fn port_key(ports: &[EndpointPort]) -> String {
    let mut parts: Vec<String> = ports
        .iter()
        .map(|port| {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            format!(
                "{}/{}/{:?}/{}",
                text(&port.name),
                text(&port.protocol),
                port.port,
                text(&port.app_protocol)
            )
        })
        .collect();
    parts.sort_unstable();
    parts.join(",")
}

/// A slice in the making.
struct Bin<'a> {
    before: Option<&'a EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Bin<'_> {
    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.endpoints.len())
    }
}

fn pack(
    template: &EndpointSlice,
    ports: &[EndpointPort],
    wanted: Vec<Endpoint>,
    existing: &[&EndpointSlice],
) -> Vec<Command> {
    let mut missing: BTreeMap<String, Endpoint> =
        wanted.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    let mut bins: Vec<Bin<'_>> = existing.iter().map(|slice| keep(slice, template, &mut missing)).collect();
    let mut rest: Vec<Endpoint> = missing.into_values().collect();
    fill(&mut bins, &mut rest);
    while !rest.is_empty() {
        let later = rest.split_off(rest.len().min(CAPACITY));
        bins.push(Bin { before: None, endpoints: std::mem::replace(&mut rest, later), changed: true });
    }
    if bins.is_empty() {
        bins.push(Bin { before: None, endpoints: Vec::new(), changed: true });
    }
    commands(template, ports, bins)
}

/// The endpoints of a slice that are still wanted, in place and up to date.
fn keep<'a>(
    slice: &'a EndpointSlice,
    template: &EndpointSlice,
    missing: &mut BTreeMap<String, Endpoint>,
) -> Bin<'a> {
    let mut changed = slice.metadata.labels != template.metadata.labels
        || slice.metadata.owner_references != template.metadata.owner_references;
    let mut endpoints = Vec::new();
    for old in slice.endpoints.iter().flatten() {
        match missing.remove(&identity(old)) {
            Some(new) => {
                changed |= new != *old;
                endpoints.push(new);
            }
            None => changed = true,
        }
    }
    Bin { before: Some(slice), endpoints, changed }
}

/// Puts `rest` into bins: those that change anyway (fullest first), then the one that fits best.
fn fill(bins: &mut [Bin<'_>], rest: &mut Vec<Endpoint>) {
    let mut changing: Vec<usize> = (0..bins.len()).filter(|index| bins[*index].changed).collect();
    changing.sort_by_key(|index| bins[*index].room());
    for index in changing {
        let count = rest.len().min(bins[index].room());
        bins[index].endpoints.extend(rest.drain(..count));
    }
    if rest.is_empty() {
        return;
    }
    let roomy = (0..bins.len()).filter(|index| bins[*index].room() >= rest.len());
    if let Some(best) = roomy.min_by_key(|index| bins[*index].room()) {
        bins[best].endpoints.append(rest);
        bins[best].changed = true;
    }
}

fn commands(template: &EndpointSlice, ports: &[EndpointPort], bins: Vec<Bin<'_>>) -> Vec<Command> {
    let filled = bins.iter().filter(|bin| !bin.endpoints.is_empty()).count();
    let mut empty_kept = filled > 0;
    let mut commands = Vec::new();
    for bin in bins {
        if bin.endpoints.is_empty() && std::mem::replace(&mut empty_kept, true) {
            commands.extend(bin.before.map(|slice| Command::Delete(slice.name_any())));
            continue;
        }
        if !bin.changed {
            continue;
        }
        let mut slice = template.clone();
        slice.endpoints = Some(bin.endpoints);
        slice.ports = Some(ports.to_vec());
        commands.push(match bin.before {
            None => Command::Create(Box::new(slice)),
            Some(before) => {
                slice.metadata.name = before.metadata.name.clone();
                slice.metadata.generate_name = before.metadata.generate_name.clone();
                slice.metadata.annotations = before.metadata.annotations.clone();
                slice.metadata.resource_version = before.metadata.resource_version.clone();
                slice.metadata.uid = before.metadata.uid.clone();
                Command::Update(Box::new(slice))
            }
        });
    }
    commands
}

fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    format!("{target}/{}", endpoint.addresses.join(","))
}

fn template(service: &Service, family: IpFamily) -> EndpointSlice {
    let name = service.name_any();
    let mut labels = service_labels(service);
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut slice = EndpointSlice { address_type: address_type(family).into(), ..EndpointSlice::default() };
    slice.metadata.generate_name = Some(format!("{name}-"));
    slice.metadata.namespace = service.namespace();
    slice.metadata.labels = Some(labels);
    slice.metadata.owner_references = Some(vec![controller_reference(service)]);
    slice
}

/// The Service's labels as they are carried over, with the one that marks headless Services.
pub(crate) fn service_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    for reserved in [SERVICE_NAME, MANAGED_BY, HEADLESS] {
        labels.remove(reserved);
    }
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

#[cfg(test)]
mod tests;
