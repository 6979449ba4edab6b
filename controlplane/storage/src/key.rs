//! Storage keys: typed and validated at construction, so that no request can name a path of its own making.
//!
//! The encoded form is `GROUP/RESOURCE/NAMESPACE/NAME` with `-` for the core group and for no namespace; neither
//! can be a real group or namespace. Names follow the rule for URL path segments: anything but `/`, `%`, `.`,
//! `..` and control characters.

use std::fmt;
use std::sync::Arc;

const NONE: &str = "-";
const MAX_NAME: usize = 253;
const MAX_NAMESPACE: usize = 63;

/// Why a key was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The API group is not a DNS subdomain.
    #[error("{0:?} is not an API group: use lower-case letters, digits, '-' and '.'")]
    Group(String),
    /// The plural resource name is not a DNS label.
    #[error("{0:?} is not a resource name: use lower-case letters, digits and '-'")]
    Resource(String),
    /// The namespace is not a DNS label.
    #[error("{0:?} is not a namespace: use at most 63 lower-case letters, digits and '-'")]
    Namespace(String),
    /// The name cannot be a path segment.
    #[error(
        "{0:?} is not an object name: it must be 1-253 characters, without '/' or '%', and not '.' or '..'"
    )]
    Name(String),
    /// The bytes are not the encoded form of a key.
    #[error("{0:?} is not an encoded key")]
    Encoding(String),
}

/// The kind of thing stored: API group (empty for the core group) and plural name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    group: Arc<str>,
    resource: Arc<str>,
}

impl ResourceId {
    /// Checks both parts; the core group is the empty string.
    pub fn new(group: &str, resource: &str) -> Result<Self, KeyError> {
        if !group.is_empty() && !is_dns(group, MAX_NAME, true) {
            return Err(KeyError::Group(group.to_owned()));
        }
        if !is_dns(resource, MAX_NAME, false) {
            return Err(KeyError::Resource(resource.to_owned()));
        }
        Ok(Self { group: group.into(), resource: resource.into() })
    }

    /// The API group; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The plural name, such as `deployments`.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group() {
            "" => f.write_str(&self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of one stored object. Ordered by resource, namespace, name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    resource: ResourceId,
    namespace: Option<Arc<str>>,
    name: Arc<str>,
}

impl Key {
    /// Checks namespace and name.
    pub fn new(resource: ResourceId, namespace: Option<&str>, name: &str) -> Result<Self, KeyError> {
        if let Some(namespace) = namespace.filter(|n| !is_dns(n, MAX_NAMESPACE, false)) {
            return Err(KeyError::Namespace(namespace.to_owned()));
        }
        if !is_segment(name) {
            return Err(KeyError::Name(name.to_owned()));
        }
        Ok(Self { resource, namespace: namespace.map(Arc::from), name: name.into() })
    }

    /// The resource this object belongs to.
    #[must_use]
    pub fn resource(&self) -> &ResourceId {
        &self.resource
    }

    /// The namespace; `None` for cluster-wide objects.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stored form, `GROUP/RESOURCE/NAMESPACE/NAME`.
    #[must_use]
    pub fn encode(&self) -> String {
        let group = if self.resource.group.is_empty() { NONE } else { &self.resource.group };
        let namespace = self.namespace.as_deref().unwrap_or(NONE);
        format!("{group}/{}/{namespace}/{}", self.resource.resource, self.name)
    }

    /// Reads the stored form back.
    pub fn decode(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(4, '/');
        let mut part = || parts.next().ok_or_else(|| KeyError::Encoding(text.to_owned()));
        let (group, resource, namespace, name) = (part()?, part()?, part()?, part()?);
        let resource = ResourceId::new(if group == NONE { "" } else { group }, resource)?;
        Self::new(resource, (namespace != NONE).then_some(namespace), name)
    }

    pub(crate) fn namespace_arc(&self) -> &Option<Arc<str>> {
        &self.namespace
    }

    pub(crate) fn name_arc(&self) -> &Arc<str> {
        &self.name
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.resource, self.name),
            None => write!(f, "{} {}", self.resource, self.name),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_dns(text: &str, longest: usize, dots: bool) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.');
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= longest && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inner(*b))
}

fn is_segment(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == '%' || c.is_control();
    !name.is_empty() && name.len() <= MAX_NAME && name != "." && name != ".." && !name.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: &str, resource: &str, namespace: Option<&str>, name: &str) -> Result<Key, KeyError> {
        Key::new(ResourceId::new(group, resource)?, namespace, name)
    }

    #[test]
    fn encoded_keys_read_back_equal() {
        for (group, resource, namespace, name) in [
            ("", "pods", Some("default"), "web-0"),
            ("apps", "deployments", Some("kube-system"), "dns"),
            ("rbac.authorization.k8s.io", "clusterroles", None, "system:node:proxy"),
            ("networking.k8s.io", "ipaddresses", None, "2001:db8::1"),
        ] {
            let key = key(group, resource, namespace, name).unwrap();
            assert_eq!(Key::decode(&key.encode()), Ok(key));
        }
    }

    #[test]
    fn refuses_parts_that_would_escape_their_place() {
        assert!(matches!(key("", "pods", Some("a/b"), "x"), Err(KeyError::Namespace(_))));
        assert!(matches!(key("", "pods", Some("-"), "x"), Err(KeyError::Namespace(_))));
        assert!(matches!(key("-", "pods", None, "x"), Err(KeyError::Group(_))));
        assert!(matches!(key("", "Pods", None, "x"), Err(KeyError::Resource(_))));
        for name in ["", ".", "..", "a/b", "50%", "a\0b"] {
            assert!(matches!(key("", "pods", None, name), Err(KeyError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn refuses_text_that_is_no_key() {
        assert!(matches!(Key::decode("a/b"), Err(KeyError::Encoding(_))));
        assert!(Key::decode("-/pods/-/a/b").is_err());
    }
}
