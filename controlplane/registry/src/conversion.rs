//! Between the served version of a kind and its stored one. Most kinds are stored as they are served.

use serde_json::Value;

mod autoscaler;
mod event;

/// How a served object becomes the stored one, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// They are the same.
    Identity,
    /// Only apiVersion differs (custom resources without a webhook).
    ApiVersion,
    /// autoscaling/v1 on autoscaling/v2.
    Autoscaler,
    /// events.k8s.io/v1 on core/v1.
    Event,
}

impl Conversion {
    pub(crate) fn is_identity(self) -> bool {
        self == Self::Identity
    }

    /// The stored form, `None` when it is the same.
    pub(crate) fn to_storage(self, object: &Value, version: &str) -> Option<Value> {
        if self.is_identity() {
            return None;
        }
        let mut out = object.clone();
        match self {
            Self::Autoscaler => autoscaler::to_v2(&mut out),
            Self::Event => event::to_core(&mut out),
            Self::Identity | Self::ApiVersion => {}
        }
        out["apiVersion"] = version.into();
        Some(out)
    }

    /// The served form of a stored object.
    pub(crate) fn serve(self, object: &mut Value, version: &str, kind: &str) {
        match self {
            Self::Identity => return,
            Self::Autoscaler => autoscaler::to_v1(object),
            Self::Event => event::to_events(object),
            Self::ApiVersion => {}
        }
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
    }
}
