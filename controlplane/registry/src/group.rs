//! Which strategy belongs to which built-in resource. One file a resource below.

use crate::strategy::Strategy;

pub(crate) mod apps;
pub(crate) mod batch;
pub(crate) mod core;
pub(crate) mod networking;
pub(crate) mod platform;
pub(crate) mod rare;
pub(crate) mod rbac;
pub(crate) mod storage;

static PLAIN: Strategy = Strategy::BASE;

/// The strategy of a built-in resource.
pub(crate) fn strategy(group: &str, plural: &str) -> &'static Strategy {
    let found = match group {
        "" => core::strategy(plural),
        "apps" => apps::strategy(plural),
        "batch" => batch::strategy(plural),
        "networking.k8s.io" | "discovery.k8s.io" => networking::strategy(plural),
        "rbac.authorization.k8s.io" => rbac::strategy(plural),
        "storage.k8s.io" => storage::strategy(plural),
        "events.k8s.io" => Some(&core::event::NEW_GROUP),
        _ => platform::strategy(group, plural),
    };
    found.or_else(|| rare::strategy(plural)).unwrap_or(&PLAIN)
}
