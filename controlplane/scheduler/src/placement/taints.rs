//! Taints and tolerations.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether `toleration` covers `taint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &'_ Option<String>| value.as_deref().unwrap_or_default().to_owned();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        Some(_) => false,
    }
}

/// The first of `taints` with one of `effects` that no toleration covers.
pub fn first_untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<(usize, &'a Taint)> {
    taints
        .iter()
        .enumerate()
        .filter(|(_, taint)| effects.contains(&taint.effect.as_str()))
        .find(|(_, taint)| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        Taint { key: key.into(), value: Some(value.into()), effect: effect.into(), time_added: None }
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn toleration_matches_key_value_and_effect() {
        let taint = taint("dedicated", "db", "NoSchedule");
        assert!(tolerates(&toleration("dedicated", "", "db", ""), &taint));
        assert!(tolerates(&toleration("dedicated", "Exists", "", "NoSchedule"), &taint));
        assert!(tolerates(&toleration("", "Exists", "", ""), &taint));
        assert!(!tolerates(&toleration("dedicated", "Equal", "web", ""), &taint));
        assert!(!tolerates(&toleration("dedicated", "Exists", "", "NoExecute"), &taint));
        assert!(!tolerates(&toleration("other", "Exists", "", ""), &taint));
    }

    #[test]
    fn only_named_effects_count() {
        let taints = [taint("a", "", "PreferNoSchedule"), taint("b", "", "NoExecute")];
        let found = first_untolerated(&taints, &[], &["NoSchedule", "NoExecute"]);
        assert_eq!(found.map(|(index, _)| index), Some(1));
        assert!(first_untolerated(&taints, &[], &["NoSchedule"]).is_none());
    }
}
