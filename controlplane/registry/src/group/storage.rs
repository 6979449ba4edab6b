//! The group `storage.k8s.io`.

use serde_json::{Value, json};

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, flag, int, items, object, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(super) fn strategy(plural: &str) -> Option<&'static Strategy> {
    Some(match plural {
        "storageclasses" => &CLASSES,
        "csidrivers" => &DRIVERS,
        "csinodes" => &NODES,
        "volumeattachments" => &ATTACHMENTS,
        "csistoragecapacities" => &CAPACITIES,
        "volumeattributesclasses" => &ATTRIBUTES,
        _ => return None,
    })
}

static CLASSES: Strategy = Strategy {
    default: |class| {
        fill_empty(class, "reclaimPolicy", "Delete");
        fill_empty(class, "volumeBindingMode", "Immediate");
    },
    validate: |class, errors| {
        let root = Path::ROOT;
        if check::required(class, "provisioner", &root, errors) {
            check::qualified_name(
                &text(class, &["provisioner"]).to_lowercase(),
                &root.field("provisioner"),
                errors,
            );
        }
        check::one_of(class, "reclaimPolicy", &["Delete", "Retain"], &root, errors);
        check::required_one_of(
            class,
            "volumeBindingMode",
            &["Immediate", "WaitForFirstConsumer"],
            &root,
            errors,
        );
    },
    validate_change: |new, old, errors| {
        let names = ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"];
        check::immutable(new, old, &names, &Path::ROOT, errors);
    },
    row: |class, now| {
        let key = "storageclass.kubernetes.io/is-default-class";
        let is_default = text(class, &["metadata", "annotations", key]) == "true";
        let name = text(class, &["metadata", "name"]);
        let name = if is_default { format!("{name} (default)") } else { name.to_owned() };
        vec![
            name.into(),
            text(class, &["provisioner"]).into(),
            text(class, &["reclaimPolicy"]).into(),
            text(class, &["volumeBindingMode"]).into(),
            flag(class, &["allowVolumeExpansion"]).into(),
            row::age(class, now),
        ]
    },
    ..Strategy::BASE
};

static DRIVERS: Strategy = Strategy {
    unconditional_update: false,
    default: |driver| {
        let spec = object(driver, "spec");
        fill(spec, "attachRequired", true);
        for name in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            fill(spec, name, false);
        }
        fill(spec, "volumeLifecycleModes", json!(["Persistent"]));
        fill_empty(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    },
    validate: |driver, errors| {
        let path = Path::new("spec");
        let spec = &driver["spec"];
        check::one_of(spec, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], &path, errors);
        for mode in items(spec, &["volumeLifecycleModes"]).iter().filter_map(Value::as_str) {
            if !matches!(mode, "Ephemeral" | "Persistent") {
                errors.not_supported(&path.field("volumeLifecycleModes"), mode, &["Ephemeral", "Persistent"]);
            }
        }
        let list = path.field("tokenRequests");
        let requests = items(spec, &["tokenRequests"]);
        for (i, request) in requests.iter().enumerate() {
            if requests[..i].iter().any(|r| text(r, &["audience"]) == text(request, &["audience"])) {
                errors.duplicate(&list.index(i).field("audience"), text(request, &["audience"]));
            }
            if int(request, &["expirationSeconds"]).is_some_and(|s| s < 600) {
                let shown = request["expirationSeconds"].clone();
                errors.invalid(
                    &list.index(i).field("expirationSeconds"),
                    shown,
                    "may not specify a duration less than 10 minutes",
                );
            }
        }
    },
    validate_change: |new, old, errors| {
        let path = Path::new("spec");
        let (now, before) = (&new["spec"], &old["spec"]);
        check::immutable(now, before, &["fsGroupPolicy", "volumeLifecycleModes"], &path, errors);
        if now.get("attachRequired") != before.get("attachRequired") {
            // The field's name in errors is not its name in JSON; clients know it so.
            errors.invalid(
                &path.field("attachedRequired"),
                now["attachRequired"].clone(),
                "field is immutable",
            );
        }
    },
    warnings: |driver, out| {
        if !items(driver, &["spec", "tokenRequests"]).is_empty()
            && at(driver, &["spec", "serviceAccountTokenInSecrets"]).is_none()
        {
            out.push(
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                 possible logging of tokens in volume attributes"
                    .to_owned(),
            );
        }
    },
    row: |driver, now| {
        let spec = &driver["spec"];
        let join = |all: Vec<&str>| if all.is_empty() { "<unset>".to_owned() } else { all.join(",") };
        let audiences = items(spec, &["tokenRequests"]).iter().map(|t| text(t, &["audience"])).collect();
        let modes = items(spec, &["volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        vec![
            row::name(driver),
            at(spec, &["attachRequired"]).and_then(Value::as_bool).unwrap_or(true).into(),
            flag(spec, &["podInfoOnMount"]).into(),
            flag(spec, &["storageCapacity"]).into(),
            join(audiences).into(),
            flag(spec, &["requiresRepublish"]).into(),
            join(modes).into(),
            row::age(driver, now),
        ]
    },
    ..Strategy::BASE
};

static NODES: Strategy = Strategy {
    unconditional_update: false,
    default: |node| fill(object(node, "spec"), "drivers", Value::Null),
    validate: csi_node,
    row: |node, now| {
        vec![row::name(node), items(node, &["spec", "drivers"]).len().into(), row::age(node, now)]
    },
    ..Strategy::BASE
};

fn csi_node(node: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let list = spec.field("drivers");
    let drivers = items(node, &["spec", "drivers"]);
    for (i, driver) in drivers.iter().enumerate() {
        let path = list.index(i);
        let name = text(driver, &["name"]);
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        } else {
            check::subdomain(&name.to_lowercase(), &path.field("name"), errors);
        }
        check::required(driver, "nodeID", &path, errors);
        if drivers[..i].iter().any(|d| text(d, &["name"]) == name) {
            errors.duplicate(&path.field("name"), name);
        }
        let keys = items(driver, &["topologyKeys"]);
        for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            if keys[..i].iter().any(|k| k == key) {
                errors.duplicate(&path, key);
            }
            check::qualified_name(key, &path, errors);
        }
        if let Some(allocatable) = at(driver, &["allocatable"]) {
            check::non_negative(allocatable, "count", &path.field("allocatable"), errors);
        }
    }
}

static ATTACHMENTS: Strategy = Strategy {
    unconditional_update: false,
    status: true,
    prepare_create: |attachment| attachment["status"] = json!({"attached": false}),
    validate: |attachment, errors| {
        let path = Path::new("spec");
        let spec = &attachment["spec"];
        check::required(spec, "attacher", &path, errors);
        check::required(spec, "nodeName", &path, errors);
        let source = path.field("source");
        let sources = ["persistentVolumeName", "inlineVolumeSpec"]
            .iter()
            .filter(|s| at(spec, &["source", s]).is_some())
            .count();
        match sources {
            0 => errors
                .required(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
            1 => {}
            _ => errors
                .forbidden(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        }
    },
    validate_change: |new, old, errors| {
        if new["spec"] != old["spec"] {
            errors.invalid(&Path::new("spec"), new["spec"].clone(), "field is immutable");
        }
    },
    row: |attachment, now| {
        let spec = &attachment["spec"];
        vec![
            row::name(attachment),
            text(spec, &["attacher"]).into(),
            text(spec, &["source", "persistentVolumeName"]).into(),
            text(spec, &["nodeName"]).into(),
            flag(attachment, &["status", "attached"]).into(),
            row::age(attachment, now),
        ]
    },
    ..Strategy::BASE
};

static CAPACITIES: Strategy = Strategy {
    unconditional_update: false,
    validate: |capacity, errors| {
        let root = Path::ROOT;
        check::selector(capacity.get("nodeTopology"), &root.field("nodeTopology"), errors);
        check::required(capacity, "storageClassName", &root, errors);
        for name in ["capacity", "maximumVolumeSize"] {
            if let Some(amount) = at(capacity, &[name]) {
                check::quantity_non_negative(amount, &root.field(name), errors);
            }
        }
    },
    validate_change: |new, old, errors| {
        check::immutable(new, old, &["nodeTopology", "storageClassName"], &Path::ROOT, errors);
    },
    row: |capacity, _| vec![row::name(capacity), text(capacity, &["metadata", "creationTimestamp"]).into()],
    ..Strategy::BASE
};

static ATTRIBUTES: Strategy = Strategy {
    unconditional_update: false,
    validate: |class, errors| {
        check::required(class, "driverName", &Path::ROOT, errors);
    },
    validate_change: |new, old, errors| {
        check::immutable(new, old, &["driverName", "parameters"], &Path::ROOT, errors);
    },
    row: |class, now| vec![row::name(class), text(class, &["driverName"]).into(), row::age(class, now)],
    ..Strategy::BASE
};
