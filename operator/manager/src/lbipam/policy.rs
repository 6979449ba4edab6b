//! Whether an `L2AnnouncementPolicy` can be understood: agents skip those that cannot, so their owner is told. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use regex::Regex;
use skep_api::{
    L2AnnouncementPolicy, L2AnnouncementPolicySpec, l2_announcement_policy::L2AnnouncementPolicyStatus,
};

use super::{
    facts::selector,
    report::{condition, says_the_same, since},
};

/// What the policy's status should become; `None` when it is so.
pub(crate) fn status(policy: &L2AnnouncementPolicy, now: Timestamp) -> Option<L2AnnouncementPolicyStatus> {
    let told = ready(&policy.spec, policy.metadata.generation.unwrap_or_default());
    let before = policy.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == told.type_);
    if before.is_some_and(|before| says_the_same(before, &told)) {
        return None;
    }
    Some(L2AnnouncementPolicyStatus { conditions: vec![since(told, before, now)] })
}

fn ready(spec: &L2AnnouncementPolicySpec, generation: i64) -> Condition {
    match check(spec) {
        Ok(()) => condition("Ready", true, "Ready", String::new(), generation),
        Err(why) => condition("Ready", false, "Invalid", why, generation),
    }
}

fn check(spec: &L2AnnouncementPolicySpec) -> Result<(), String> {
    selector(spec.node_selector.as_ref()).map_err(|why| format!("nodeSelector: {why}"))?;
    selector(spec.service_selector.as_ref()).map_err(|why| format!("serviceSelector: {why}"))?;
    for pattern in &spec.interfaces {
        Regex::new(pattern).map_err(|error| format!("interfaces: {pattern:?}: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_does_not_parse_is_told() {
        let spec = L2AnnouncementPolicySpec { interfaces: vec!["^eth(".into()], ..Default::default() };
        let mut policy = L2AnnouncementPolicy::new("p", spec);
        let told = status(&policy, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            (told.conditions[0].status.as_str(), told.conditions[0].reason.as_str()),
            ("False", "Invalid")
        );
        policy.status = Some(told);
        assert_eq!(status(&policy, Timestamp::UNIX_EPOCH), None);
        policy.spec.interfaces = vec!["^eth[0-9]+$".into()];
        assert_eq!(status(&policy, Timestamp::UNIX_EPOCH).unwrap().conditions[0].status, "True");
    }
}
