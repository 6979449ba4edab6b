//! What every namespace gets: the `default` ServiceAccount and the `kube-root-ca.crt` ConfigMap.

mod controller;
mod plan;

pub(crate) use controller::ServiceAccountController;
