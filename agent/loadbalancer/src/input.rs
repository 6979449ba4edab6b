//! Kubernetes objects, parsed once at the edge.
//!
//! One bad item does not take a whole object away: what cannot be used is left out and named in the object's `faults`,
//! so that whoever wrote it can be told.

pub mod pod;
pub mod service;
pub mod slice;

use std::{
    collections::BTreeMap,
    net::{AddrParseError, IpAddr},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use pod::{HostPort, HostPorts};
pub use service::{External, Service, ServiceKind, ServicePort, ServiceTarget, TrafficPolicy};
use skep_model::{NamespacedName, PortError, Protocol, ProtocolError};
pub use slice::{Endpoint, Hints, Slice, SlicePort};

/// The label that hands a Service, or a slice, to another implementation.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// The label that says: names only, nothing to balance.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// An object that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A name or namespace is absent.
    #[error("the object has no name or namespace")]
    Nameless,
    /// A slice that belongs to no Service.
    #[error("the EndpointSlice has no label {}", slice::SERVICE_NAME)]
    NoService,
    /// An address does not parse.
    #[error("{text:?} is not an address")]
    Address {
        /// The text.
        text: String,
        /// Why.
        #[source]
        source: AddrParseError,
    },
    /// A port is out of range.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A protocol is unknown.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

fn name_of(metadata: &ObjectMeta) -> Result<NamespacedName, InputError> {
    match (&metadata.namespace, &metadata.name) {
        (Some(namespace), Some(name)) => Ok(NamespacedName::new(namespace, name)),
        _ => Err(InputError::Nameless),
    }
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a String> {
    metadata.labels.as_ref().and_then(|labels: &BTreeMap<String, String>| labels.get(key))
}

/// Whether the object's labels say that it is not ours to balance.
fn is_excluded(metadata: &ObjectMeta) -> bool {
    label(metadata, OTHER_PROXY).is_some() || label(metadata, HEADLESS).is_some()
}

/// Seconds since the epoch at which the object was created; unknown counts as young.
fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

fn protocol_of(text: Option<&str>) -> Result<Protocol, ProtocolError> {
    text.map_or(Ok(Protocol::Tcp), str::parse)
}

fn parse_address(text: &str) -> Result<IpAddr, InputError> {
    text.parse().map_err(|source| InputError::Address { text: text.into(), source })
}

/// Keeps what can be used; the rest becomes faults.
fn usable<T>(items: impl IntoIterator<Item = Result<T, InputError>>, faults: &mut Vec<String>) -> Vec<T> {
    let keep = |item: Result<T, InputError>| item.map_err(|error| faults.push(error.to_string())).ok();
    let mut kept: Vec<T> = items.into_iter().filter_map(keep).collect();
    // There are tens of thousands of these lists, most of one item.
    kept.shrink_to_fit();
    kept
}
