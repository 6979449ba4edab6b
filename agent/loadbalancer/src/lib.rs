//! Services and EndpointSlices to frontends, backends and DNS names. Pure.
//!
//! Owns the rules of Service load balancing: which endpoints a frontend may use, in which order of preference, and the
//! numbers that the data path knows frontends and backends by. Those numbers survive an agent's restart: the pinned
//! maps are read back and [`LoadBalancer::adopt`]ed before the first event. Owns no map and no watch.
//!
//! Map: [`input`] parses Kubernetes objects at the edge, [`select`] chooses endpoints, [`ids`] numbers things,
//! [`balancer`] keeps the tables up to date Service by Service, [`names`] says what DNS answers.

pub mod balancer;
pub mod ids;
pub mod input;
pub mod names;
pub mod select;

pub use balancer::{Changes, LoadBalancer};
pub use input::{InputError, Service, ServiceTarget, Slice};
