//! The RBAC policy in force: roles and bindings parsed once and kept by key, so that a decision never parses JSON.
//! Fed from the watch cache and, to read one's own writes, by the handlers that commit RBAC objects.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::authz::rule::{Action, Rule};
use crate::user::UserInfo;

/// API group of RBAC objects.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Which of the four RBAC resources an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RbacKind {
    /// `roles`
    Role,
    /// `clusterroles`
    ClusterRole,
    /// `rolebindings`
    RoleBinding,
    /// `clusterrolebindings`
    ClusterRoleBinding,
}

impl RbacKind {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Role, Self::ClusterRole, Self::RoleBinding, Self::ClusterRoleBinding];

    /// The plural.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Role => "roles",
            Self::ClusterRole => "clusterroles",
            Self::RoleBinding => "rolebindings",
            Self::ClusterRoleBinding => "clusterrolebindings",
        }
    }

    /// Finds the kind of a plural.
    pub fn of(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.plural() == plural)
    }

    fn is_role(self) -> bool {
        matches!(self, Self::Role | Self::ClusterRole)
    }
}

/// Namespace (empty for cluster scope) and name.
type Id = (String, String);

#[derive(Debug)]
struct Held<T> {
    revision: u64,
    value: Option<Arc<T>>,
}

/// A binding's role and subjects.
#[derive(Debug, PartialEq, Eq)]
struct Binding {
    role: Id,
    subjects: Vec<Subject>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// Roles and bindings in force.
#[derive(Debug, Default)]
pub struct Policy {
    roles: HashMap<Id, Held<Vec<Rule>>>,
    bindings: HashMap<String, HashMap<String, Held<Binding>>>,
}

impl Policy {
    /// Takes in an object as it is at a revision (`None`: deleted). Older news than what is held is dropped.
    pub fn apply(
        &mut self,
        kind: RbacKind,
        namespace: &str,
        name: &str,
        revision: u64,
        object: Option<&Value>,
    ) {
        if kind.is_role() {
            let id = (namespace.to_owned(), name.to_owned());
            let rules = object.map(|o| Arc::new(Rule::read_all(&o["rules"])));
            hold(self.roles.entry(id), revision, rules);
        } else {
            let binding = object.map(|o| Arc::new(read_binding(o, namespace)));
            let space = self.bindings.entry(namespace.to_owned()).or_default();
            hold(space.entry(name.to_owned()), revision, binding);
        }
    }

    /// After everything was read at a revision: what is not `present` was deleted while nobody looked. News that is
    /// younger than the reading stays.
    pub fn retain(&mut self, kind: RbacKind, revision: u64, present: impl Fn(&str, &str) -> bool) {
        if kind.is_role() {
            let scoped = kind == RbacKind::Role;
            self.roles.retain(|(namespace, name), held| {
                namespace.is_empty() == scoped || held.revision > revision || present(namespace, name)
            });
        } else {
            let scoped = kind == RbacKind::RoleBinding;
            for (namespace, space) in &mut self.bindings {
                space.retain(|name, held| {
                    namespace.is_empty() == scoped || held.revision > revision || present(namespace, name)
                });
            }
            self.bindings.retain(|_, space| !space.is_empty());
        }
    }

    /// Rules of a role, `None` when there is no such role.
    pub fn role(&self, namespace: &str, name: &str) -> Option<Arc<Vec<Rule>>> {
        self.roles.get(&(namespace.to_owned(), name.to_owned()))?.value.clone()
    }

    /// Whether some rule bound to the user, in the cluster or in the namespace, allows the action.
    pub fn allows(&self, user: &UserInfo, namespace: &str, action: &Action<'_>) -> bool {
        self.bound_roles(user, namespace).any(|rules| rules.iter().any(|rule| rule.allows(action)))
    }

    /// Every rule bound to the user in the cluster and in the namespace.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.bound_roles(user, namespace).flat_map(|rules| rules.as_ref().clone()).collect()
    }

    fn bound_roles<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = Arc<Vec<Rule>>> + 'a {
        let scopes = if namespace.is_empty() { vec![""] } else { vec!["", namespace] };
        scopes
            .into_iter()
            .filter_map(|scope| self.bindings.get(scope))
            .flat_map(|space| space.values())
            .filter_map(|held| held.value.as_ref())
            .filter(|binding| binding.subjects.iter().any(|s| s.is(user)))
            .filter_map(|binding| self.roles.get(&binding.role)?.value.clone())
    }
}

fn hold<K: Eq + std::hash::Hash, T>(
    entry: std::collections::hash_map::Entry<'_, K, Held<T>>,
    revision: u64,
    value: Option<Arc<T>>,
) {
    let held = entry.or_insert(Held { revision: 0, value: None });
    if revision >= held.revision {
        *held = Held { revision, value };
    }
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => *name == user.name,
            Self::Group(group) => user.is_in(group),
        }
    }
}

fn read_binding(object: &Value, namespace: &str) -> Binding {
    let reference = &object["roleRef"];
    let scope = if reference["kind"] == "Role" { namespace } else { "" };
    let subjects = object["subjects"].as_array().into_iter().flatten();
    Binding {
        role: (scope.to_owned(), reference["name"].as_str().unwrap_or_default().to_owned()),
        subjects: subjects.filter_map(|s| read_subject(s, namespace)).collect(),
    }
}

fn read_subject(subject: &Value, namespace: &str) -> Option<Subject> {
    let name = subject["name"].as_str()?;
    match subject["kind"].as_str()? {
        "User" => Some(Subject::User(name.to_owned())),
        "Group" => Some(Subject::Group(name.to_owned())),
        "ServiceAccount" => {
            let space = subject["namespace"].as_str().filter(|s| !s.is_empty()).unwrap_or(namespace);
            (!space.is_empty()).then(|| Subject::User(format!("system:serviceaccount:{space}:{name}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy() -> Policy {
        let mut policy = Policy::default();
        let rules = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        policy.apply(RbacKind::ClusterRole, "", "reader", 1, Some(&rules));
        let binding = json!({
            "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "s"}, {"kind": "Group", "name": "g"}],
        });
        policy.apply(RbacKind::RoleBinding, "a", "b", 2, Some(&binding));
        policy
    }

    const GET: Action<'static> =
        Action::Resource { verb: "get", group: "", resource: "pods", subresource: "", name: "p" };

    #[test]
    fn a_role_binding_grants_in_its_namespace_only() {
        let user = UserInfo::new("u", ["g".to_owned()]);
        assert!(policy().allows(&user, "a", &GET));
        assert!(!policy().allows(&user, "b", &GET));
        assert!(!policy().allows(&user, "", &GET));
    }

    #[test]
    fn a_service_account_without_namespace_is_of_the_binding() {
        let user = crate::user::service_account_user("a", "s", "");
        assert!(policy().allows(&user, "a", &GET));
    }

    #[test]
    fn what_is_gone_after_a_full_reading_is_forgotten() {
        let mut policy = policy();
        let user = UserInfo::new("u", ["g".to_owned()]);
        policy.retain(RbacKind::ClusterRoleBinding, 9, |_, _| false);
        policy.retain(RbacKind::Role, 9, |_, _| false);
        assert!(policy.allows(&user, "a", &GET), "other kinds are left alone");
        policy.retain(RbacKind::RoleBinding, 1, |_, _| false);
        assert!(policy.allows(&user, "a", &GET), "younger than the reading");
        policy.retain(RbacKind::RoleBinding, 2, |namespace, name| (namespace, name) == ("a", "b"));
        assert!(policy.allows(&user, "a", &GET));
        policy.retain(RbacKind::RoleBinding, 2, |_, _| false);
        assert!(!policy.allows(&user, "a", &GET));
    }

    #[test]
    fn older_news_is_dropped() {
        let mut policy = policy();
        policy.apply(RbacKind::RoleBinding, "a", "b", 5, None);
        let stale = json!({"roleRef": {"kind": "ClusterRole", "name": "reader"}, "subjects": [{"kind": "Group", "name": "g"}]});
        policy.apply(RbacKind::RoleBinding, "a", "b", 3, Some(&stale));
        assert!(!policy.allows(&UserInfo::new("u", ["g".to_owned()]), "a", &GET));
    }
}
