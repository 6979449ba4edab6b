//! The core group.

use crate::strategy::Strategy;

pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod limit_range;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod persistent_volume;
pub(crate) mod persistent_volume_claim;
pub(crate) mod pod;
pub(crate) mod pod_spec;
pub(crate) mod pod_template;
pub(crate) mod replication_controller;
pub(crate) mod resource_quota;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod service_account;

pub(super) fn strategy(plural: &str) -> Option<&'static Strategy> {
    Some(match plural {
        "configmaps" => &config_map::STRATEGY,
        "endpoints" => &endpoints::STRATEGY,
        "events" => &event::STRATEGY,
        "limitranges" => &limit_range::STRATEGY,
        "namespaces" => &namespace::STRATEGY,
        "nodes" => &node::STRATEGY,
        "persistentvolumes" => &persistent_volume::STRATEGY,
        "persistentvolumeclaims" => &persistent_volume_claim::STRATEGY,
        "pods" => &pod::STRATEGY,
        "podtemplates" => &pod_template::STRATEGY,
        "replicationcontrollers" => &replication_controller::STRATEGY,
        "resourcequotas" => &resource_quota::STRATEGY,
        "secrets" => &secret::STRATEGY,
        "services" => &service::STRATEGY,
        "serviceaccounts" => &service_account::STRATEGY,
        _ => return None,
    })
}
