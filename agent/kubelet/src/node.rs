//! This node as the API knows it: registered once, its status reported, its lease renewed.

pub(crate) mod lease;
pub(crate) mod machine;
pub(crate) mod register;
pub(crate) mod runtime;
pub(crate) mod status;
