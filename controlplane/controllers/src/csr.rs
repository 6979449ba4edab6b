//! Certificate requests: approves what kubelets may have, signs what is approved.
//!
//! Signers served: `kube-apiserver-client-kubelet` (approved for a node's own identity, asked for by a bootstrap
//! token or by the node itself), `kubelet-serving` (approved for the node itself, with names that are its own),
//! `kube-apiserver-client` (signed once a person approved it). Everything else is left to its own signer.

mod controller;
mod identity;
mod plan;

pub(crate) use controller::CsrController;
