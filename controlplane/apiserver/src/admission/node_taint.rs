//! TaintNodesByCondition: a new node takes no pods before its kubelet has said that it is ready; the node lifecycle
//! controller takes the taint away then.

use serde_json::{Value, json};

const KEY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

/// Taints a new node, unless it is tainted like that already.
pub fn mutate(node: &mut Value) {
    let taint = json!({"key": KEY, "effect": EFFECT});
    match node["spec"]["taints"].as_array_mut() {
        Some(taints) if taints.iter().any(|taint| taint["key"] == KEY && taint["effect"] == EFFECT) => {}
        Some(taints) => taints.push(taint),
        None => {
            if !node["spec"].is_object() {
                node["spec"] = json!({});
            }
            node["spec"]["taints"] = json!([taint]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_is_tainted_once_and_keeps_its_own_taints() {
        let mut bare = json!({"metadata": {"name": "n"}});
        mutate(&mut bare);
        mutate(&mut bare);
        assert_eq!(bare["spec"]["taints"], json!([{"key": KEY, "effect": EFFECT}]));
        let mut own = json!({"spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}});
        mutate(&mut own);
        assert_eq!(own["spec"]["taints"].as_array().map(Vec::len), Some(2));
    }
}
