//! RBAC rules: what a rule allows, and whether one set of rules covers another (the escalation check). Pure.

use serde_json::{Map, Value, json};

/// What a request wants to do, as rules see it.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Something with a resource.
    Resource {
        /// API verb.
        verb: &'a str,
        /// API group.
        group: &'a str,
        /// Plural.
        resource: &'a str,
        /// Subresource, empty when none.
        subresource: &'a str,
        /// Object name, empty when none.
        name: &'a str,
    },
    /// Something with a path.
    Path {
        /// Lower-case HTTP method.
        verb: &'a str,
        /// Path.
        path: &'a str,
    },
}

/// One `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Allowed verbs.
    pub verbs: Vec<String>,
    /// API groups.
    pub groups: Vec<String>,
    /// Resources, `resource/subresource` or `*`.
    pub resources: Vec<String>,
    /// Names the rule is limited to; empty means all.
    pub names: Vec<String>,
    /// Paths, `*` at the end is a wildcard.
    pub paths: Vec<String>,
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|v| v == "*" || v == value)
}

impl Rule {
    /// Reads the `rules` of a role.
    pub fn read_all(rules: &Value) -> Vec<Self> {
        rules.as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn read(rule: &Value) -> Self {
        let list = |key: &str| {
            let items = rule[key].as_array().into_iter().flatten();
            items.filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    /// The rule as JSON, empty lists left out.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        out.insert("verbs".into(), json!(self.verbs));
        for (key, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                out.insert(key.into(), json!(list));
            }
        }
        Value::Object(out)
    }

    /// Whether the rule allows the action.
    pub fn allows(&self, action: &Action<'_>) -> bool {
        match *action {
            Action::Resource { verb, group, resource, subresource, name } => {
                has(&self.verbs, verb)
                    && has(&self.groups, group)
                    && self.names_resource(resource, subresource)
                    && (self.names.is_empty() || self.names.iter().any(|n| n == name))
            }
            Action::Path { verb, path } => {
                has(&self.verbs, verb) && self.paths.iter().any(|p| path_matches(p, path))
            }
        }
    }

    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|wanted| {
            if wanted == "*" {
                return true;
            }
            match wanted.split_once('/') {
                None => subresource.is_empty() && wanted == resource,
                Some((r, s)) => !subresource.is_empty() && s == subresource && (r == "*" || r == resource),
            }
        })
    }

    /// The rule taken apart: one verb, group, resource and name (or path) each.
    fn atoms(&self) -> Vec<Self> {
        let mut out = Vec::new();
        let names: Vec<Vec<String>> = if self.names.is_empty() {
            vec![vec![]]
        } else {
            self.names.iter().map(|n| vec![n.clone()]).collect()
        };
        for verb in &self.verbs {
            for (group, resource) in
                self.groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r)))
            {
                for name in &names {
                    out.push(Self {
                        verbs: vec![verb.clone()],
                        groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        names: name.clone(),
                        paths: vec![],
                    });
                }
            }
            for path in &self.paths {
                out.push(Self { verbs: vec![verb.clone()], paths: vec![path.clone()], ..Self::default() });
            }
        }
        out
    }

    /// Whether everything the other rule (an atom) allows is allowed by this one.
    fn covers(&self, atom: &Self) -> bool {
        let all = |own: &[String], want: &[String]| want.iter().all(|w| has(own, w));
        let resources = atom.resources.iter().all(|want| {
            let (resource, subresource) = want.split_once('/').unwrap_or((want, ""));
            self.resources.iter().any(|r| r == want) || self.names_resource(resource, subresource)
        });
        let names = self.names.is_empty()
            || (!atom.names.is_empty() && atom.names.iter().all(|n| self.names.contains(n)));
        let paths =
            atom.paths.iter().all(|want| self.paths.iter().any(|p| p == want || path_matches(p, want)));
        all(&self.verbs, &atom.verbs) && all(&self.groups, &atom.groups) && resources && names && paths
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == "*"
        || pattern == path
        || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// The parts of `wanted` that `held` does not cover; empty means no escalation.
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(Rule::atoms).filter(|atom| !held.iter().any(|rule| rule.covers(atom))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        Rule {
            verbs: own(verbs),
            groups: own(groups),
            resources: own(resources),
            names: own(names),
            paths: vec![],
        }
    }

    fn get<'a>(resource: &'a str, subresource: &'a str, name: &'a str) -> Action<'a> {
        Action::Resource { verb: "get", group: "", resource, subresource, name }
    }

    #[test]
    fn a_resource_does_not_grant_its_subresources() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(pods.allows(&get("pods", "", "p")));
        assert!(!pods.allows(&get("pods", "log", "p")));
        assert!(!rule(&["get"], &[""], &["pods/*"], &[]).allows(&get("pods", "log", "p")));
        assert!(rule(&["get"], &[""], &["*/log"], &[]).allows(&get("pods", "log", "p")));
    }

    #[test]
    fn names_limit_a_rule() {
        let one = rule(&["get"], &[""], &["configmaps"], &["one"]);
        assert!(one.allows(&get("configmaps", "", "one")));
        assert!(!one.allows(&get("configmaps", "", "two")));
        assert!(!one.allows(&get("configmaps", "", "")));
    }

    #[test]
    fn covering_needs_every_atom() {
        let held = [rule(&["get", "list"], &[""], &["pods"], &[])];
        assert!(uncovered(&held, &[rule(&["get"], &[""], &["pods"], &["p"])]).is_empty());
        assert_eq!(uncovered(&held, &[rule(&["get", "delete"], &[""], &["pods", "secrets"], &[])]).len(), 3);
        assert!(uncovered(&[rule(&["*"], &["*"], &["*"], &[])], &held).is_empty());
    }

    #[test]
    fn paths_end_in_a_wildcard() {
        let rule = Rule { verbs: vec!["get".into()], paths: vec!["/api/*".into()], ..Rule::default() };
        assert!(rule.allows(&Action::Path { verb: "get", path: "/api/v1" }));
        assert!(!rule.allows(&Action::Path { verb: "get", path: "/apis" }));
    }
}
