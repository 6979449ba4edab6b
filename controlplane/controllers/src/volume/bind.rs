//! Which volume a claim gets, and the phases of both.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use kube::ResourceExt;
use skep_api::{LabelSelector, Quantity};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// The next write for a claim.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClaimStep {
    /// Reserve this volume for the claim.
    Reserve(Box<PersistentVolume>),
    /// Name the volume in the claim.
    Name(Box<PersistentVolumeClaim>),
    /// Report the claim's phase.
    Report(Box<PersistentVolumeClaim>),
}

/// The next step for `claim`; none when there is nothing to do, or no volume for it.
pub(crate) fn claim_step(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    waits_for_consumer: bool,
) -> Option<ClaimStep> {
    let spec = claim.spec.as_ref()?;
    if let Some(name) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        let Some(volume) = volumes.iter().find(|volume| volume.name_any() == name) else {
            return report(claim, "Lost", None);
        };
        if !is_reserved_for(volume, claim) {
            return (claim_ref(volume).is_none()).then(|| reserve(volume, claim));
        }
        if !claim.annotations().contains_key(BIND_COMPLETED) {
            return Some(ClaimStep::Name(Box::new(named(claim, name))));
        }
        return report(claim, "Bound", Some(volume));
    }
    if let Some(volume) = volumes.iter().find(|volume| is_reserved_for(volume, claim)) {
        return Some(ClaimStep::Name(Box::new(named(claim, &volume.name_any()))));
    }
    if waits_for_consumer || claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    best(claim, volumes).map(|volume| reserve(volume, claim))
}

/// The smallest volume that satisfies `claim`.
fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
) -> Option<&'a PersistentVolume> {
    let fitting = volumes.iter().filter(|volume| fits(claim, volume));
    fitting.min_by_key(|volume| (claim_ref(volume).is_none(), capacity(volume))).map(|volume| &**volume)
}

fn fits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (Some(asked), Some(offered)) = (claim.spec.as_ref(), volume.spec.as_ref()) else { return false };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let wanted = asked.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let wanted = wanted.and_then(|requests| requests.get("storage")).and_then(|raw| raw.0.parse().ok());
    let modes = offered.access_modes.clone().unwrap_or_default();
    let selected = asked.selector.as_ref().is_none_or(|selector| {
        LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches(volume.labels()))
    });
    let free = match claim_ref(volume) {
        None => true,
        Some(reference) => reference.uid.is_none() && names(reference, claim),
    };
    free && volume.metadata.deletion_timestamp.is_none()
        && asked.storage_class_name.clone().unwrap_or_default()
            == offered.storage_class_name.clone().unwrap_or_default()
        && mode(&asked.volume_mode) == mode(&offered.volume_mode)
        && asked.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && capacity(volume) >= wanted.unwrap_or(Quantity::ZERO)
        && selected
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|map| map.get("storage")).and_then(|raw| raw.0.parse().ok()).unwrap_or_default()
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn names(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace
}

fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| names(reference, claim) && reference.uid == claim.metadata.uid)
}

fn reserve(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> ClaimStep {
    let mut volume = volume.clone();
    volume.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    });
    volume.metadata.annotations.get_or_insert_default().insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    ClaimStep::Reserve(Box::new(volume))
}

fn named(claim: &PersistentVolumeClaim, volume: &str) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    let spec = claim.spec.get_or_insert_default();
    let chosen_here = spec.volume_name.as_deref().is_none_or(str::is_empty);
    spec.volume_name = Some(volume.to_owned());
    let annotations = claim.metadata.annotations.get_or_insert_default();
    annotations.insert(BIND_COMPLETED.into(), "yes".into());
    if chosen_here {
        annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    }
    claim
}

fn report(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<ClaimStep> {
    let old = claim.status.clone().unwrap_or_default();
    let offered = volume.and_then(|volume| volume.spec.as_ref());
    let status = PersistentVolumeClaimStatus {
        phase: Some(phase.to_owned()),
        access_modes: offered.and_then(|spec| spec.access_modes.clone()),
        capacity: offered.and_then(|spec| spec.capacity.clone()),
        ..old.clone()
    };
    (status != old)
        .then(|| ClaimStep::Report(Box::new(PersistentVolumeClaim { status: Some(status), ..claim.clone() })))
}

/// The phase that `volume` should report, given the claim it refers to (if that exists).
pub(crate) fn volume_phase(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> &'static str {
    match (claim_ref(volume), claim) {
        (None, _) => "Available",
        (Some(reference), _) if reference.uid.is_none() => "Available",
        (Some(reference), Some(claim)) if reference.uid == claim.metadata.uid => "Bound",
        (Some(_), _) => "Released",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, extra: Value) -> Arc<PersistentVolume> {
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "sc"});
        if let (Value::Object(spec), Value::Object(extra)) = (&mut spec, extra) {
            spec.extend(extra);
        }
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
    }

    fn claim(size: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "sc",
            "resources": {"requests": {"storage": size}}}}))
        .unwrap()
    }

    fn reserved(step: Option<ClaimStep>) -> String {
        match step {
            Some(ClaimStep::Reserve(volume)) => volume.name_any(),
            other => panic!("nothing reserved: {other:?}"),
        }
    }

    #[test]
    fn claim_gets_the_smallest_volume_that_fits() {
        let volumes = [
            volume("small", "1Gi", json!({})),
            volume("large", "10Gi", json!({})),
            volume("right", "2Gi", json!({})),
            volume("other", "2Gi", json!({"storageClassName": "x"})),
        ];
        assert_eq!(reserved(claim_step(&claim("2Gi"), &volumes, false)), "right");
        assert_eq!(claim_step(&claim("20Gi"), &volumes, false), None);
        assert_eq!(claim_step(&claim("2Gi"), &volumes, true), None);
    }

    #[test]
    fn binding_goes_step_by_step_and_then_rests() {
        let mut claim = claim("1Gi");
        let Some(ClaimStep::Reserve(bound)) = claim_step(&claim, &[volume("v", "1Gi", json!({}))], false)
        else {
            panic!("not reserved")
        };
        let volumes = [Arc::new(*bound)];
        assert_eq!(volume_phase(&volumes[0], Some(&claim)), "Bound");
        assert_eq!(volume_phase(&volumes[0], None), "Released");
        for _ in 0..2 {
            match claim_step(&claim, &volumes, false) {
                Some(ClaimStep::Name(next) | ClaimStep::Report(next)) => claim = *next,
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(claim.status.as_ref().unwrap().phase.as_deref(), Some("Bound"));
        assert_eq!(claim_step(&claim, &volumes, false), None);
    }
}
