//! StatefulSets.

use serde_json::{Value, json};

use super::Absent;
use crate::check;
use crate::error::Errors;
use crate::field::{at, copy, fill, fill_empty, int, items_mut, object, text};
use crate::group::core::{persistent_volume_claim, pod_spec};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const COUNTS: &[&str] = &[
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
];
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(crate) static STRATEGY: Strategy = Strategy {
    default,
    validate,
    validate_change,
    validate_status: |new, _, errors| super::status_counts(new, COUNTS, errors),
    warnings: super::warnings,
    row: |set, now| {
        let ready = int(set, &["status", "readyReplicas"]).unwrap_or(0);
        let wanted = int(set, &["spec", "replicas"]).unwrap_or(0);
        let [names, images, _] = super::wide(set, &set["spec"]["template"]);
        vec![row::name(set), format!("{ready}/{wanted}").into(), row::age(set, now), names, images]
    },
    ..Strategy::WITH_STATUS
};

fn default(set: &mut Value) {
    let spec = object(set, "spec");
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill_empty(spec, "podManagementPolicy", "OrderedReady");
    let strategy = object(spec, "updateStrategy");
    fill_empty(strategy, "type", "RollingUpdate");
    if text(strategy, &["type"]) == "RollingUpdate" {
        fill(object(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = object(spec, "persistentVolumeClaimRetentionPolicy");
    fill_empty(retention, "whenDeleted", "Retain");
    fill_empty(retention, "whenScaled", "Retain");
    for claim in items_mut(spec, &["volumeClaimTemplates"]) {
        fill(claim, "apiVersion", "v1");
        fill(claim, "kind", "PersistentVolumeClaim");
        persistent_volume_claim::claim_default(claim);
    }
    super::default_template(spec);
}

fn validate(set: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &set["spec"];
    let policies = ["OrderedReady", "Parallel"];
    if !policies.contains(&text(spec, &["podManagementPolicy"])) {
        let shown = text(spec, &["podManagementPolicy"]);
        errors.invalid(&path.field("podManagementPolicy"), shown, "must be 'OrderedReady' or 'Parallel'");
    }
    let place = path.field("updateStrategy");
    let rolling = at(spec, &["updateStrategy", "rollingUpdate"]);
    let rolling_place = place.field("rollingUpdate");
    match text(spec, &["updateStrategy", "type"]) {
        "OnDelete" if rolling.is_some() => {
            errors.invalid(
                &rolling_place,
                rolling.cloned().unwrap_or_default(),
                "only allowed for updateStrategy 'RollingUpdate'",
            );
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                check::non_negative(rolling, "partition", &rolling_place, errors);
                check::count_or_percent(
                    &rolling["maxUnavailable"],
                    &rolling_place.field("maxUnavailable"),
                    errors,
                );
            }
        }
        other => errors.invalid(&place, json!({"type": other}), "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = path.field("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        check::one_of(
            &spec["persistentVolumeClaimRetentionPolicy"],
            name,
            &["Delete", "Retain"],
            &retention,
            errors,
        );
    }
    check::all_non_negative(spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], &path, errors);
    super::selector(spec, Absent::Required, &path, errors);
    let template = with_claims(&spec["template"], crate::field::items(spec, &["volumeClaimTemplates"]));
    pod_spec::validate_lasting_template(&template, &path.field("template"), errors);
}

/// Claims become volumes of every pod, so mounts may name them.
fn with_claims(template: &Value, claims: &[Value]) -> Value {
    let mut template = template.clone();
    let mut volumes = crate::field::items(&template, &["spec", "volumes"]).to_vec();
    for claim in claims {
        let name = text(claim, &["metadata", "name"]);
        if !volumes.iter().any(|v| text(v, &["name"]) == name) {
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
    }
    if !volumes.is_empty() {
        template["spec"]["volumes"] = volumes.into();
    }
    template
}

fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    let mut allowed = new["spec"].clone();
    for name in MUTABLE {
        copy(name, &old["spec"], &mut allowed);
    }
    if allowed != old["spec"] {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
            'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' \
            are forbidden";
        errors.forbidden(&Path::new("spec"), detail);
    }
}
