//! Services and EndpointSlices to frontends, backends and DNS names. Pure.
//!
//! Owns the rules of Service load balancing: which addresses are frontends and for whom, which endpoints a frontend may
//! use and in which order of preference, what is refused, and the numbers that the data path knows sets of backends by.
//! Those numbers survive an agent's restart: the pinned maps are read back and [`LoadBalancer::adopt`]ed before the
//! first event. Owns no map and no watch.
//!
//! Map: [`input`] parses Kubernetes objects at the edge, [`context`] is the node around them, [`safety`] says which
//! addresses may serve, [`select`] chooses endpoints, `plan` says what one Service should have, [`slots`] and [`ids`]
//! place and number it, [`balancer`] keeps the tables ([`frontend`]) up to date Service by Service and tells
//! [`problem`]s, [`maglev`] spreads what comes from outside, [`names`] says what DNS answers.

pub mod balancer;
pub mod context;
pub mod frontend;
pub mod ids;
pub mod input;
pub mod maglev;
pub mod names;
mod plan;
pub mod problem;
pub mod safety;
pub mod select;
pub mod slots;

pub use balancer::{Changes, LoadBalancer, Lost, Pinned, Report};
pub use context::{Context, Settings};
pub use frontend::{Frontend, FrontendFlags, FrontendKey, HealthCheck, Owner, Set};
pub use input::{HostPorts, InputError, Service, ServiceTarget, Slice};
pub use problem::Problem;
