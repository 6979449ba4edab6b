//! What a terminating namespace reports, and when it may go.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The finalizer in `spec.finalizers` that stands for the content.
pub(crate) const FINALIZER: &str = "kubernetes";
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What is left of one type after deleting it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// `plural.group` of the type.
    pub(crate) resource: String,
    /// Objects.
    pub(crate) count: usize,
    /// Finalizers on them.
    pub(crate) finalizers: BTreeMap<String, usize>,
    /// Why deleting or listing failed.
    pub(crate) error: Option<String>,
}

/// What one pass over a namespace found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pass {
    /// Why the types could not be found out.
    pub(crate) discovery_error: Option<String>,
    /// Types that had something left or failed.
    pub(crate) leftovers: Vec<Leftover>,
}

impl Pass {
    /// Whether nothing is left, for sure.
    pub(crate) fn is_clean(&self) -> bool {
        self.discovery_error.is_none()
            && self.leftovers.iter().all(|leftover| leftover.count == 0 && leftover.error.is_none())
    }
}

/// The namespace with the conditions that `pass` calls for; none if it has them.
pub(crate) fn conditions(namespace: &Namespace, pass: &Pass, now: Timestamp) -> Option<Namespace> {
    let old = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let new: Vec<NamespaceCondition> =
        verdicts(pass).into_iter().map(|verdict| condition(&old, verdict, now)).collect();
    let same = new.len() == old.len() && new.iter().all(|condition| old.contains(condition));
    if same {
        return None;
    }
    let mut updated = namespace.clone();
    updated.status.get_or_insert_default().conditions = Some(new);
    Some(updated)
}

struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

fn verdicts(pass: &Pass) -> [Verdict; 5] {
    let errors: Vec<String> = pass
        .leftovers
        .iter()
        .filter_map(|leftover| leftover.error.as_ref().map(|error| format!("{}: {error}", leftover.resource)))
        .collect();
    let remaining: Vec<String> = pass
        .leftovers
        .iter()
        .filter(|leftover| leftover.count > 0)
        .map(|leftover| format!("{} has {} resource instances", leftover.resource, leftover.count))
        .collect();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in pass.leftovers.iter().flat_map(|leftover| &leftover.finalizers) {
        *finalizers.entry(name).or_default() += count;
    }
    let waiting: Vec<String> =
        finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let verdict =
        |kind, bad: &[String], reasons: (&'static str, &'static str), intro: &str, fine: &str| Verdict {
            kind,
            holds: !bad.is_empty(),
            reason: if bad.is_empty() { reasons.0 } else { reasons.1 },
            message: if bad.is_empty() { fine.to_owned() } else { format!("{intro}: {}", bad.join(", ")) },
        };
    let discovery: Vec<String> = pass.discovery_error.iter().cloned().collect();
    [
        verdict(
            "NamespaceDeletionDiscoveryFailure",
            &discovery,
            ("ResourcesDiscovered", "DiscoveryFailed"),
            "Discovery failed",
            "Every resource type is known",
        ),
        verdict(
            "NamespaceDeletionGroupVersionParsingFailure",
            &[],
            ("ParsedGroupVersions", "GroupVersionParsingFailed"),
            "",
            "Every group version was understood",
        ),
        verdict(
            "NamespaceDeletionContentFailure",
            &errors,
            ("ContentDeleted", "ContentDeletionFailed"),
            "Some content could not be deleted",
            "All content was told to go; finalizers may hold it",
        ),
        verdict(
            "NamespaceContentRemaining",
            &remaining,
            ("ContentRemoved", "SomeResourcesRemain"),
            "Some resources are remaining",
            "Nothing remains",
        ),
        verdict(
            "NamespaceFinalizersRemaining",
            &waiting,
            ("ContentHasNoFinalizers", "SomeFinalizersRemain"),
            "Some content in the namespace has finalizers remaining",
            "No finalizer is waited for",
        ),
    ]
}

fn condition(old: &[NamespaceCondition], verdict: Verdict, now: Timestamp) -> NamespaceCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == verdict.kind);
    let since = before
        .filter(|before| before.status == status)
        .and_then(|before| before.last_transition_time.clone());
    NamespaceCondition {
        type_: verdict.kind.into(),
        status: status.into(),
        reason: Some(verdict.reason.into()),
        message: Some(verdict.message),
        last_transition_time: since.or(Some(Time(now))),
    }
}

/// When to try again what did not go: soon at first, seldom for a namespace that is held for long.
pub(crate) fn retry_delay(namespace: &Namespace, now: Timestamp) -> Duration {
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    (age / 10).clamp(FIRST_RETRY, LAST_RETRY)
}

/// Whether the content of `namespace` is to be deleted.
pub(crate) fn is_due(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.is_some_and(|finalizers| finalizers.iter().any(|name| name == FINALIZER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(namespace: &Namespace) -> Vec<(String, String)> {
        let conditions = namespace.status.clone().unwrap_or_default().conditions.unwrap_or_default();
        conditions.into_iter().map(|condition| (condition.type_, condition.status)).collect()
    }

    #[test]
    fn reports_what_remains_and_why() {
        let leftover = Leftover {
            resource: "configmaps.".into(),
            count: 1,
            finalizers: BTreeMap::from([("example.com/f".to_owned(), 1)]),
            error: None,
        };
        let pass = Pass { leftovers: vec![leftover], ..Pass::default() };
        assert!(!pass.is_clean());
        let namespace = conditions(&Namespace::default(), &pass, Timestamp::UNIX_EPOCH).unwrap();
        let statuses = statuses(&namespace);
        assert_eq!(statuses[3], ("NamespaceContentRemaining".into(), "True".into()));
        assert_eq!(statuses[4], ("NamespaceFinalizersRemaining".into(), "True".into()));
        assert_eq!(statuses[0].1, "False");
        assert!(conditions(&namespace, &pass, Timestamp::now()).is_none());
    }

    #[test]
    fn namespace_that_is_held_for_long_is_seldom_tried() {
        let mut namespace = Namespace::default();
        namespace.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let delay = |second| retry_delay(&namespace, Timestamp::from_second(second).unwrap());
        assert_eq!([delay(1), delay(300), delay(9999)].map(|delay| delay.as_secs()), [1, 30, 60]);
    }

    #[test]
    fn failed_discovery_is_never_clean() {
        let pass = Pass { discovery_error: Some("down".into()), ..Pass::default() };
        assert!(!pass.is_clean());
    }
}
