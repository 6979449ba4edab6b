//! Resources that are served for clients' sake and have little of their own: aggregated API services, component
//! statuses, dynamic resource allocation.

use serde_json::Value;

use crate::field::{at, items, text};
use crate::row;
use crate::strategy::Strategy;

pub(super) fn strategy(plural: &str) -> Option<&'static Strategy> {
    Some(match plural {
        "apiservices" => &API_SERVICES,
        "componentstatuses" => &COMPONENTS,
        "deviceclasses" => &DEVICE_CLASSES,
        "resourceclaims" => &CLAIMS,
        "resourceslices" => &SLICES,
        _ => return None,
    })
}

fn condition<'a>(list: &'a [Value], kind: &str) -> Option<&'a Value> {
    list.iter().find(|c| text(c, &["type"]) == kind)
}

static API_SERVICES: Strategy = Strategy {
    generation: false,
    row: |service, now| {
        let place = match at(service, &["spec", "service"]) {
            Some(s) => format!("{}/{}", text(s, &["namespace"]), text(s, &["name"])),
            None => "Local".to_owned(),
        };
        let available = match condition(items(service, &["status", "conditions"]), "Available") {
            None => "Unknown".to_owned(),
            Some(c) if text(c, &["status"]) == "True" => "True".to_owned(),
            Some(c) => format!("{} ({})", text(c, &["status"]), text(c, &["reason"])),
        };
        vec![row::name(service), place.into(), available.into(), row::age(service, now)]
    },
    ..Strategy::WITH_STATUS
};

static COMPONENTS: Strategy = Strategy {
    row: |component, _| {
        let healthy = condition(items(component, &["conditions"]), "Healthy");
        let status = match healthy.map(|c| text(c, &["status"])) {
            Some("True") => "Healthy",
            Some("False") => "Unhealthy",
            _ => "Unknown",
        };
        let said = |name: &str| Value::from(healthy.map_or("", |c| text(c, &[name])));
        vec![row::name(component), status.into(), said("message"), said("error")]
    },
    warnings: |_, out| out.push("v1 ComponentStatus is deprecated in v1.19+".to_owned()),
    ..Strategy::BASE
};

static DEVICE_CLASSES: Strategy = Strategy { generation: true, ..Strategy::BASE };

static CLAIMS: Strategy = Strategy {
    generation: false,
    row: |claim, now| {
        let mut states = Vec::new();
        if at(claim, &["metadata", "deletionTimestamp"]).is_some() {
            states.push("deleted");
        }
        if at(claim, &["status", "allocation"]).is_some() {
            states.push("allocated");
        } else if at(claim, &["metadata", "deletionTimestamp"]).is_none() {
            states.push("pending");
        }
        if !items(claim, &["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
        vec![row::name(claim), states.join(",").into(), row::age(claim, now)]
    },
    ..Strategy::WITH_STATUS
};

static SLICES: Strategy = Strategy {
    generation: true,
    selectable: &["spec.nodeName", "spec.driver"],
    fields: |slice, sink| {
        sink("spec.nodeName", text(slice, &["spec", "nodeName"]).to_owned());
        sink("spec.driver", text(slice, &["spec", "driver"]).to_owned());
    },
    row: |slice, now| {
        vec![
            row::name(slice),
            text(slice, &["spec", "nodeName"]).into(),
            text(slice, &["spec", "driver"]).into(),
            text(slice, &["spec", "pool", "name"]).into(),
            row::age(slice, now),
        ]
    },
    ..Strategy::BASE
};
