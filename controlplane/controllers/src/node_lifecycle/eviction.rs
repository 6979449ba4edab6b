//! Which pods leave a node with NoExecute taints, and when.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Taint};
use skep_scheduler::placement::tolerates;

/// What becomes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays.
    Stays,
    /// It leaves at this time unless things change.
    LeavesAt(Timestamp),
    /// It leaves now.
    Leaves,
}

/// The fate of `pod` on a node with `taints`.
///
/// Each NoExecute taint needs a toleration. Tolerations with a time limit count from when the taint was added; the
/// shortest limit decides.
pub(crate) fn fate(pod: &Pod, taints: &[Taint], now: Timestamp) -> Fate {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut end: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let bearing = tolerations.iter().filter(|toleration| tolerates(toleration, taint));
        let limits: Vec<Option<i64>> = bearing.map(|toleration| toleration.toleration_seconds).collect();
        if limits.is_empty() {
            return Fate::Leaves;
        }
        let added = taint.time_added.as_ref().map_or(now, |time| time.0);
        if let Some(limit) = limits.into_iter().flatten().min() {
            let limit = SignedDuration::from_secs(limit.max(0));
            let at = added.checked_add(limit).unwrap_or(Timestamp::MAX);
            end = Some(end.map_or(at, |end| end.min(at)));
        }
    }
    match end {
        None => Fate::Stays,
        Some(at) if at <= now => Fate::Leaves,
        Some(at) => Fate::LeavesAt(at),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, Toleration};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn pod(limits: &[Option<i64>]) -> Pod {
        let toleration = |limit: &Option<i64>| Toleration {
            key: Some("k".into()),
            operator: Some("Exists".into()),
            toleration_seconds: *limit,
            ..Toleration::default()
        };
        let tolerations = Some(limits.iter().map(toleration).collect());
        Pod { spec: Some(PodSpec { tolerations, ..PodSpec::default() }), ..Pod::default() }
    }

    fn taint() -> Taint {
        Taint { key: "k".into(), effect: "NoExecute".into(), time_added: Some(Time(at(0))), value: None }
    }

    #[test]
    fn toleration_seconds_count_from_the_taint() {
        assert_eq!(fate(&pod(&[]), &[taint()], at(0)), Fate::Leaves);
        assert_eq!(fate(&pod(&[Some(300)]), &[taint()], at(10)), Fate::LeavesAt(at(300)));
        assert_eq!(fate(&pod(&[Some(300)]), &[taint()], at(300)), Fate::Leaves);
        assert_eq!(fate(&pod(&[None]), &[taint()], at(9999)), Fate::Stays);
        assert_eq!(fate(&pod(&[None, Some(5)]), &[taint()], at(1)), Fate::LeavesAt(at(5)));
        assert_eq!(fate(&pod(&[]), &[], at(0)), Fate::Stays);
    }
}
