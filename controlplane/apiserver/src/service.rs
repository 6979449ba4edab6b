//! Service addresses and node ports. What a Service needs is decided by [`plan`], which is pure; which address or
//! port is free is looked up in the watch cache; that nobody else takes it is the store's: the allocation keys are
//! created in the same transaction as the Service, so two writers cannot both succeed.

mod family;
mod pool;
mod spec;

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use skep_model::IpFamily;
use skep_storage::{Expect, Key, Op, ResourceId};

use crate::meta;
use crate::rest::Target;
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};
pub use pool::{AddressPool, PoolError, PortPool};

const NETWORKING: &str = "networking.k8s.io";
/// Keys of node ports in use; not served as a resource.
const INTERNAL: &str = "internal.skep.dev";

/// The pools of the cluster.
pub struct Services {
    addresses: Vec<AddressPool>,
    ports: PortPool,
}

impl Services {
    /// Pools over the service ranges (one, or one a family with a comma between) and the node ports.
    pub fn new(service_cidr: &str, ports: std::ops::RangeInclusive<u16>) -> Result<Self, PoolError> {
        Ok(Self { addresses: AddressPool::parse_all(service_cidr)?, ports: PortPool::new(ports) })
    }

    /// The service ranges, the primary family's first.
    pub fn ranges(&self) -> Vec<String> {
        self.addresses.iter().map(|pool| pool.cidr().to_string()).collect()
    }

    /// The address of the `kubernetes` Service, in the primary family.
    pub fn api_address(&self) -> String {
        self.addresses.first().map(AddressPool::first).unwrap_or_default()
    }

    fn families(&self) -> Vec<IpFamily> {
        self.addresses.iter().map(AddressPool::family).collect()
    }

    /// Allocates for a new Service; other resources pass.
    pub fn on_create(&self, state: &State, target: &Target, object: &mut Value) -> ApiResult<Vec<Op>> {
        if !target.is("", "services") {
            return Ok(Vec::new());
        }
        spec::normalize_addresses(object, None);
        self.settle_families(object, None)?;
        self.allocate(state, object, &Held::default())
    }

    /// Keeps, allocates and releases what a changed Service needs; other resources pass.
    pub fn on_update(
        &self,
        state: &State,
        target: &Target,
        new: &mut Value,
        old: &Value,
    ) -> ApiResult<Vec<Op>> {
        if !target.is("", "services") {
            return Ok(Vec::new());
        }
        spec::normalize_addresses(new, Some(old));
        spec::keep_allocations(new, old);
        spec::drop_unneeded(new, old);
        self.settle_families(new, Some(old))?;
        self.allocate(state, new, &Held::by(old))
    }

    /// Releases what a Service held; other resources pass.
    pub fn on_delete(&self, _state: &State, target: &Target, object: &Value) -> ApiResult<Vec<Op>> {
        if !target.is("", "services") {
            return Ok(Vec::new());
        }
        let held = Held::by(object);
        let mut ops = Vec::new();
        for address in &held.addresses {
            ops.push(Op::Delete { key: address_key(address)?, expect: Expect::Any });
        }
        for port in &held.ports {
            ops.push(Op::Delete { key: port_key(*port)?, expect: Expect::Any });
        }
        Ok(ops)
    }

    fn allocate(&self, state: &State, object: &mut Value, held: &Held) -> ApiResult<Vec<Op>> {
        if spec::needs_address(object) {
            self.allocate_addresses(state, object, held)?;
        }
        self.allocate_ports(state, object, held)?;
        let wanted = Held::by(object);
        changes(object, held, &wanted)
    }

    fn settle_families(&self, new: &mut Value, old: Option<&Value>) -> ApiResult<()> {
        if !spec::needs_address(new) {
            return Ok(());
        }
        let settled = family::settle(new, old, &self.families());
        settled.map_err(|causes| ApiError::invalid("", "Service", meta::text(new, "name"), causes))
    }

    /// One address for each of the Service's families; those that it names or holds are kept.
    fn allocate_addresses(&self, state: &State, object: &mut Value, held: &Held) -> ApiResult<()> {
        if object["spec"]["clusterIP"] == "None" {
            if !object["spec"]["clusterIPs"].is_array() {
                object["spec"]["clusterIPs"] = json!(["None"]);
            }
            return Ok(());
        }
        let given = object["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
        let mut addresses = given.clone();
        for (i, family) in family::families(object).into_iter().enumerate() {
            match given.get(i).and_then(Value::as_str) {
                Some(fixed) => self.check_address(state, object, held, fixed)?,
                None => {
                    let Some(pool) = self.addresses.iter().find(|pool| pool.family() == family) else {
                        continue;
                    };
                    let full = || ApiError::internal("failed to allocate a serviceIP: range is full");
                    addresses
                        .push(pool.pick(|address| is_taken(state, held, address)).ok_or_else(full)?.into());
                }
            }
        }
        if let Some(first) = addresses.first().cloned() {
            object["spec"]["clusterIP"] = first;
            object["spec"]["clusterIPs"] = addresses.into();
        }
        Ok(())
    }

    /// Whether the Service may have an address that it names.
    fn check_address(&self, state: &State, object: &Value, held: &Held, fixed: &str) -> ApiResult<()> {
        let refuse = |why: &str| {
            let shown = &object["spec"]["clusterIPs"];
            let message = format!("Invalid value: {shown}: failed to allocate IP {fixed}: {why}");
            let cause = Cause::new("FieldValueInvalid", "spec.clusterIPs", message);
            ApiError::invalid("", "Service", meta::text(object, "name"), vec![cause])
        };
        // Malformed addresses are for validation to name.
        let Ok(parsed) = fixed.parse::<IpAddr>() else { return Ok(()) };
        let address = spec::canonical(fixed);
        if held.addresses.contains(&address) {
            return Ok(());
        }
        if !self.addresses.iter().any(|pool| pool.contains(parsed)) {
            let same = |pool: &&AddressPool| pool.family() == IpFamily::of(parsed);
            let range = self.addresses.iter().find(same).map(|pool| pool.cidr().to_string());
            return Err(refuse(&format!(
                "the provided network does not match the current range; the valid range is {}",
                range.unwrap_or_else(|| self.ranges().join(","))
            )));
        }
        if is_taken(state, held, &address) {
            return Err(refuse("provided IP is already allocated"));
        }
        Ok(())
    }

    fn allocate_ports(&self, state: &State, object: &mut Value, held: &Held) -> ApiResult<()> {
        let name = meta::text(object, "name").to_owned();
        let refuse = |field: String, port: u64, why: &str| {
            let message = format!("Invalid value: {port}: {why}");
            ApiError::invalid("", "Service", &name, vec![Cause::new("FieldValueInvalid", &field, message)])
        };
        let taken = |port: u16| {
            !held.ports.contains(&port)
                && port_key(port).is_ok_and(|key| state.store.cache().get(&key).is_some())
        };
        let mut own: BTreeSet<u16> = spec::node_ports(object).into_iter().collect();
        let check = |field: String, port: u64| -> ApiResult<()> {
            let number = u16::try_from(port).unwrap_or(0);
            if held.ports.contains(&number) {
                return Ok(());
            }
            if !self.ports.contains(number) {
                let range = self.ports.range();
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    range.start(),
                    range.end()
                );
                return Err(refuse(field, port, &why));
            }
            if taken(number) {
                Err(refuse(field, port, "provided port is already allocated"))
            } else {
                Ok(())
            }
        };
        let pick = |own: &BTreeSet<u16>| {
            self.ports
                .pick(|port| own.contains(&port) || taken(port))
                .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))
        };
        if spec::needs_node_ports(object) {
            // Ports that differ by protocol alone share a node port.
            let mut by_port: Vec<(u64, Value, u16)> = Vec::new();
            for (i, port) in meta::list_mut(object, &["spec", "ports"]).enumerate() {
                let number = port["port"].as_u64().unwrap_or(0);
                let protocol = port["protocol"].clone();
                let given = port["nodePort"].as_u64().unwrap_or(0);
                let chosen = if given != 0 {
                    check(format!("spec.ports[{i}].nodePort"), given)?;
                    u16::try_from(given).unwrap_or(0)
                } else {
                    let shared = by_port.iter().find(|(p, proto, _)| *p == number && *proto != protocol);
                    match shared.map(|(_, _, node)| *node) {
                        Some(node) => node,
                        None => pick(&own)?,
                    }
                };
                own.insert(chosen);
                by_port.push((number, protocol, chosen));
                port["nodePort"] = chosen.into();
            }
        }
        if spec::needs_health_port(object) {
            let given = object["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0);
            let chosen = if given != 0 {
                check("spec.healthCheckNodePort".to_owned(), given)?;
                u16::try_from(given).unwrap_or(0)
            } else {
                pick(&own)?
            };
            object["spec"]["healthCheckNodePort"] = chosen.into();
        }
        Ok(())
    }
}

/// Whether another Service holds the address.
fn is_taken(state: &State, held: &Held, address: &str) -> bool {
    !held.addresses.contains(address)
        && address_key(address).is_ok_and(|key| state.store.cache().get(&key).is_some())
}

/// What a Service holds of the pools.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    addresses: BTreeSet<String>,
    ports: BTreeSet<u16>,
}

impl Held {
    fn by(object: &Value) -> Self {
        Self {
            addresses: spec::addresses(object).into_iter().collect(),
            ports: spec::node_ports(object).into_iter().collect(),
        }
    }
}

/// The writes that lead from what is held to what is wanted.
fn changes(object: &Value, held: &Held, wanted: &Held) -> ApiResult<Vec<Op>> {
    let mut ops = Vec::new();
    for address in wanted.addresses.difference(&held.addresses) {
        let value = address_object(object, address).to_string().into();
        ops.push(Op::Put { key: address_key(address)?, value, expect: Expect::Absent });
    }
    for address in held.addresses.difference(&wanted.addresses) {
        ops.push(Op::Delete { key: address_key(address)?, expect: Expect::Any });
    }
    for port in wanted.ports.difference(&held.ports) {
        let value = port_object(object, *port).to_string().into();
        ops.push(Op::Put { key: port_key(*port)?, value, expect: Expect::Absent });
    }
    for port in held.ports.difference(&wanted.ports) {
        ops.push(Op::Delete { key: port_key(*port)?, expect: Expect::Any });
    }
    Ok(ops)
}

fn address_key(address: &str) -> ApiResult<Key> {
    let id = ResourceId::new(NETWORKING, "ipaddresses").map_err(ApiError::internal)?;
    Key::new(id, None, address).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn port_key(port: u16) -> ApiResult<Key> {
    let id = ResourceId::new(INTERNAL, "nodeports").map_err(ApiError::internal)?;
    Key::new(id, None, &port.to_string()).map_err(ApiError::internal)
}

fn address_object(service: &Value, address: &str) -> Value {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address,
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": meta::now(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "resource": "services",
            "namespace": meta::text(service, "namespace"),
            "name": meta::text(service, "name"),
        }},
    })
}

fn port_object(service: &Value, port: u16) -> Value {
    json!({
        "apiVersion": "internal.skep.dev/v1",
        "kind": "NodePort",
        "metadata": {"name": port.to_string()},
        "spec": {"namespace": meta::text(service, "namespace"), "service": meta::text(service, "name")},
    })
}
