//! Several nodes on one machine: names and what runs where ([`plan`]), addresses ([`address`]), the record on disk ([`state`]), and
//! the means: network namespaces ([`network`]), cgroups ([`cgroup`]), nodes ([`machine`]).

pub(crate) mod address;
pub(crate) mod cgroup;
pub(crate) mod disk;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod state;
