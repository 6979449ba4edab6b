//! Namespaces that are being deleted: everything in them goes first.

mod controller;
mod plan;

pub(crate) use controller::NamespaceController;
