//! DefaultTolerationSeconds: a pod stays five minutes on a node that is lost.

use serde_json::{Value, json};

const SECONDS: i64 = 300;

/// Adds the tolerations for lost nodes, unless the pod has its own for them.
pub fn add_default_tolerations(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = |t: &Value| {
            let effect = t["effect"].as_str().unwrap_or_default();
            let own = t["key"].as_str().unwrap_or_default();
            (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        if !pod["spec"]["tolerations"].as_array().is_some_and(|list| list.iter().any(tolerates)) {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            add_toleration(pod, toleration);
        }
    }
}

/// Appends a toleration that is not there yet.
pub fn add_toleration(pod: &mut Value, toleration: Value) {
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(list) if list.contains(&toleration) => {}
        Some(list) => list.push(toleration),
        None => pod["spec"]["tolerations"] = json!([toleration]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_tolerations_win() {
        let mut pod =
            json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}});
        add_default_tolerations(&mut pod);
        let list = pod["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[1]["key"], "node.kubernetes.io/unreachable");
    }

    #[test]
    fn a_toleration_of_everything_is_enough() {
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        add_default_tolerations(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
