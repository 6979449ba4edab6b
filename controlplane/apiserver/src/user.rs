//! Who asks: the identity that authentication found and authorization judges.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Group of every authenticated user.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group that may do everything.
pub const MASTERS: &str = "system:masters";

/// An authenticated (or anonymous) caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name.
    pub name: String,
    /// Stable id, empty when there is none.
    pub uid: String,
    /// Groups in the order authentication gave them.
    pub groups: Vec<String>,
    /// Extra attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with groups; `system:authenticated` is added.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut user = Self { name: name.into(), groups: groups.into_iter().collect(), ..Self::default() };
        if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        user
    }

    /// The caller without credentials.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Namespace and name, when the user is a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        service_account_name(&self.name)
    }

    /// Node name, when the user is a kubelet.
    pub fn node(&self) -> Option<&str> {
        self.is_in("system:nodes").then(|| self.name.strip_prefix("system:node:")).flatten()
    }

    /// The `userInfo` object of reviews.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        if !self.name.is_empty() {
            out.insert("username".into(), self.name.clone().into());
        }
        if !self.uid.is_empty() {
            out.insert("uid".into(), self.uid.clone().into());
        }
        if !self.groups.is_empty() {
            out.insert("groups".into(), self.groups.clone().into());
        }
        if !self.extra.is_empty() {
            out.insert(
                "extra".into(),
                self.extra.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect(),
            );
        }
        Value::Object(out)
    }
}

/// Splits `system:serviceaccount:NAMESPACE:NAME`.
pub fn service_account_name(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?
        .split_once(':')
        .filter(|(ns, name)| !ns.is_empty() && !name.is_empty() && !name.contains(':'))
}

/// User of a service account, with the groups every one is in.
pub fn service_account_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    let mut user = UserInfo::new(format!("system:serviceaccount:{namespace}:{name}"), groups);
    user.uid = uid.to_owned();
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_accounts_are_in_three_groups() {
        let user = service_account_user("a", "b", "u");
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
        );
        assert_eq!(user.service_account(), Some(("a", "b")));
    }

    #[test]
    fn a_node_needs_name_and_group() {
        assert_eq!(UserInfo::new("system:node:n", ["system:nodes".to_owned()]).node(), Some("n"));
        assert_eq!(UserInfo::new("system:node:n", []).node(), None);
    }
}
