//! Kubernetes names, checked once where they enter (RFC 1123).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that cannot name an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not an RFC 1123 subdomain.
    #[error("{0:?} is not a valid name: use lower-case letters, digits, '-' and '.', at most 253 characters")]
    Subdomain(String),
    /// A namespaced name without a slash, or with an empty part.
    #[error("{0:?} is not of the form namespace/name")]
    NotNamespaced(String),
}

/// Whether the text is an RFC 1123 subdomain, as object names are.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.split('.').all(is_label_of_any_length)
}

/// Whether the text is an RFC 1123 label, as namespaces and hostnames are.
#[must_use]
pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_label_of_any_length(text)
}

fn is_label_of_any_length(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric)
        && bytes.iter().all(|&byte| alphanumeric(byte) || byte == b'-')
}

/// The name of a Node object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_subdomain(text) { Ok(NodeName(text.into())) } else { Err(NameError::Subdomain(text.into())) }
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if is_subdomain(&text) { Ok(NodeName(text)) } else { Err(NameError::Subdomain(text)) }
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

/// The name of an object within its namespace, shown as `namespace/name`.
///
/// The parts come from the API server, which has validated them; only the shape is checked here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl NamespacedName {
    /// Joins the two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        NamespacedName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for NamespacedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(NamespacedName::new(namespace, name))
            }
            _ => Err(NameError::NotNamespaced(text.into())),
        }
    }
}

impl TryFrom<String> for NamespacedName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NamespacedName> for String {
    fn from(name: NamespacedName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_subdomains() {
        assert!("node-1.example".parse::<NodeName>().is_ok());
        for text in ["", "Node", "-a", "a-", "a..b", "a_b", &"a".repeat(254)] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
    }

    #[test]
    fn labels_are_short_and_have_no_dots() {
        assert!(is_label("web-0"));
        assert!(!is_label("web.0"));
        assert!(!is_label(&"a".repeat(64)));
    }

    #[test]
    fn namespaced_names_round_trip() {
        let name: NamespacedName = "default/web".parse().unwrap();
        assert_eq!(name, NamespacedName::new("default", "web"));
        assert_eq!(name.to_string(), "default/web");
        for text in ["web", "/web", "default/", "a/b/c"] {
            assert!(text.parse::<NamespacedName>().is_err(), "{text}");
        }
    }
}
