//! Node selectors and node affinity, parsed once per pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use skep_api::selector::{Operator, Requirement};

/// The hard rules of a pod about the node it may run on.
#[derive(Debug, Clone, Default)]
pub struct NodeMatcher {
    selector: Vec<(String, String)>,
    required: Option<Vec<NodeTerm>>,
}

impl NodeMatcher {
    /// The rules in `spec`.
    pub fn of(spec: &PodSpec) -> Self {
        let selector = spec.node_selector.iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
        let required = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|required| required.node_selector_terms.iter().map(NodeTerm::of).collect());
        Self { selector: selector.collect(), required }
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.required.is_none()
    }

    /// Whether a node with this name and these labels will do: all of the selector, and one of the terms.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }
}

/// One term: all of its conditions have to hold. A term without conditions matches nothing.
#[derive(Debug, Clone)]
pub struct NodeTerm {
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone)]
enum Condition {
    Label(Requirement),
    Name { negated: bool, values: Vec<String> },
}

impl NodeTerm {
    /// The parsed form of `term`; one that cannot be parsed matches nothing.
    pub fn of(term: &NodeSelectorTerm) -> Self {
        let labels = term.match_expressions.iter().flatten().map(label_condition);
        let fields = term.match_fields.iter().flatten().map(field_condition);
        let conditions: Option<Vec<Condition>> = labels.chain(fields).collect();
        Self { conditions: conditions.filter(|conditions| !conditions.is_empty()) }
    }

    /// Whether a node with this name and these labels meets every condition.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let holds = |condition: &Condition| match condition {
            Condition::Label(requirement) => {
                requirement.matches(labels.get(&requirement.key).map(String::as_str))
            }
            Condition::Name { negated, values } => values.iter().any(|value| value == name) != *negated,
        };
        self.conditions.as_ref().is_some_and(|conditions| conditions.iter().all(holds))
    }
}

fn label_condition(raw: &NodeSelectorRequirement) -> Option<Condition> {
    let operator = match raw.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    let values = raw.values.clone().unwrap_or_default();
    Requirement::new(&raw.key, operator, values).ok().map(Condition::Label)
}

fn field_condition(raw: &NodeSelectorRequirement) -> Option<Condition> {
    let negated = match raw.operator.as_str() {
        "In" => false,
        "NotIn" => true,
        _ => return None,
    };
    (raw.key == "metadata.name")
        .then(|| Condition::Name { negated, values: raw.values.clone().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        NodeSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        }
    }

    fn labels() -> BTreeMap<String, String> {
        BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())])
    }

    #[test]
    fn every_condition_of_a_term_must_hold() {
        let term = NodeTerm::of(&NodeSelectorTerm {
            match_expressions: Some(vec![
                requirement("zone", "In", &["a", "b"]),
                requirement("cores", "Gt", &["4"]),
            ]),
            match_fields: Some(vec![requirement("metadata.name", "In", &["n1"])]),
        });
        assert!(term.matches("n1", &labels()));
        assert!(!term.matches("n2", &labels()));
        assert!(!term.matches("n1", &BTreeMap::new()));
    }

    #[test]
    fn term_without_conditions_matches_nothing() {
        assert!(!NodeTerm::of(&NodeSelectorTerm::default()).matches("n1", &labels()));
    }
}
