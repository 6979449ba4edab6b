//! A container's environment: `$(VAR)` expansion and the variables that name Services. Pure; references to
//! other objects are resolved by the caller through [`Lookup`].

pub(crate) mod expand;
pub(crate) mod fields;
pub(crate) mod services;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector, Secret,
};

use expand::expand;

/// A variable that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    /// A referenced object does not exist.
    #[error("{kind} \"{name}\" not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A referenced object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The object's name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field reference that means nothing here.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// A resource reference that means nothing here.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// The value is no text.
    #[error(
        "secret key {0} is not valid UTF-8: an environment variable cannot hold it, mount it as a volume"
    )]
    NotText(String),
}

/// The objects a container's environment refers to, fetched before.
pub(crate) trait Lookup {
    /// The namespace of the pod.
    fn namespace(&self) -> &str;
    /// A config map, if it exists.
    fn config_map(&self, name: &str) -> Option<&ConfigMap>;
    /// A secret, if it exists.
    fn secret(&self, name: &str) -> Option<&Secret>;
    /// A field of the pod.
    fn field(&self, selector: &ObjectFieldSelector) -> Result<String, EnvError>;
    /// A resource of a container.
    fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, EnvError>;
}

/// The variables of a container in order: Services first, then `envFrom`, then `env`, later ones winning.
pub(crate) fn environment(
    container: &Container,
    services: BTreeMap<String, String>,
    lookup: &impl Lookup,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut set = Ordered::default();
    for (name, value) in services {
        set.put(name, value);
    }
    for source in container.env_from.iter().flatten() {
        for (name, value) in bulk(source, lookup)? {
            set.put(name, value);
        }
    }
    let mut declared: BTreeMap<String, String> = set.values.iter().cloned().collect();
    for variable in container.env.iter().flatten() {
        let Some(value) = value_of(variable, &declared, lookup)? else { continue };
        declared.insert(variable.name.clone(), value.clone());
        set.put(variable.name.clone(), value);
    }
    Ok(set.values)
}

#[derive(Default)]
struct Ordered {
    values: Vec<(String, String)>,
}

impl Ordered {
    fn put(&mut self, name: String, value: String) {
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.values.push((name, value)),
        }
    }
}

fn bulk(
    source: &k8s_openapi::api::core::v1::EnvFromSource,
    lookup: &impl Lookup,
) -> Result<Vec<(String, String)>, EnvError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    if let Some(reference) = &source.config_map_ref {
        match lookup.config_map(&reference.name) {
            Some(map) => {
                found.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone())))
            }
            None if reference.optional == Some(true) => {}
            None => return Err(EnvError::NoObject { kind: "configmap", name: reference.name.clone() }),
        }
    }
    if let Some(reference) = &source.secret_ref {
        match lookup.secret(&reference.name) {
            Some(secret) => {
                for (key, value) in secret.data.iter().flatten() {
                    found.push((format!("{prefix}{key}"), text(key, &value.0)?));
                }
            }
            None if reference.optional == Some(true) => {}
            None => return Err(EnvError::NoObject { kind: "secret", name: reference.name.clone() }),
        }
    }
    Ok(found)
}

fn value_of(
    variable: &EnvVar,
    declared: &BTreeMap<String, String>,
    lookup: &impl Lookup,
) -> Result<Option<String>, EnvError> {
    match &variable.value_from {
        Some(source) if variable.value.as_deref().unwrap_or_default().is_empty() => {
            referenced(source, lookup)
        }
        _ => Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), |name| {
            declared.get(name).cloned()
        }))),
    }
}

fn referenced(source: &EnvVarSource, lookup: &impl Lookup) -> Result<Option<String>, EnvError> {
    if let Some(selector) = &source.field_ref {
        return lookup.field(selector).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return lookup.resource(selector).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let map = lookup.config_map(&selector.name);
        let value = map.and_then(|m| m.data.as_ref()?.get(&selector.key).cloned());
        return missing(
            value,
            map.is_some(),
            optional,
            ["configmap", "ConfigMap"],
            &selector.name,
            &selector.key,
            lookup,
        );
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        let secret = lookup.secret(&selector.name);
        let value = secret.and_then(|s| s.data.as_ref()?.get(&selector.key));
        let value = value.map(|v| text(&selector.key, &v.0)).transpose()?;
        return missing(
            value,
            secret.is_some(),
            optional,
            ["secret", "Secret"],
            &selector.name,
            &selector.key,
            lookup,
        );
    }
    Ok(Some(String::new()))
}

fn missing(
    value: Option<String>,
    exists: bool,
    optional: bool,
    [lower, kind]: [&'static str; 2],
    name: &str,
    key: &str,
    lookup: &impl Lookup,
) -> Result<Option<String>, EnvError> {
    match value {
        Some(value) => Ok(Some(value)),
        None if optional => Ok(None),
        None if !exists => Err(EnvError::NoObject { kind: lower, name: name.to_owned() }),
        None => Err(EnvError::NoKey {
            kind,
            namespace: lookup.namespace().to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        }),
    }
}

fn text(key: &str, bytes: &[u8]) -> Result<String, EnvError> {
    String::from_utf8(bytes.to_vec()).map_err(|_invalid| EnvError::NotText(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Default)]
    struct Fixed {
        config_map: Option<ConfigMap>,
    }

    impl Lookup for Fixed {
        fn namespace(&self) -> &str {
            "ns"
        }
        fn config_map(&self, _: &str) -> Option<&ConfigMap> {
            self.config_map.as_ref()
        }
        fn secret(&self, _: &str) -> Option<&Secret> {
            None
        }
        fn field(&self, selector: &ObjectFieldSelector) -> Result<String, EnvError> {
            Ok(format!("<{}>", selector.field_path))
        }
        fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, EnvError> {
            Ok(format!("<{}>", selector.resource))
        }
    }

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn later_variables_see_and_replace_earlier_ones() {
        let container = container(json!({"name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(P_x)-$(NOPE)-$$(A)"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "SVC", "value": "mine"},
        ]}));
        let config_map = serde_json::from_value(json!({"data": {"x": "y"}})).unwrap();
        let lookup = Fixed { config_map: Some(config_map) };
        let services = BTreeMap::from([("SVC".to_owned(), "theirs".to_owned())]);
        let env = environment(&container, services, &lookup).unwrap();
        let find = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(find("B"), Some("1-y-$(NOPE)-$(A)"));
        assert_eq!(find("IP"), Some("<status.podIP>"));
        assert_eq!(find("SVC"), Some("mine"));
        assert_eq!(env.iter().filter(|(n, _)| n == "SVC").count(), 1);
    }

    #[test]
    fn a_missing_reference_is_an_error_unless_optional() {
        let of = |optional: bool| {
            container(json!({"name": "c", "env": [{"name": "A", "valueFrom":
                {"configMapKeyRef": {"name": "m", "key": "k", "optional": optional}}}]}))
        };
        let error = environment(&of(false), BTreeMap::new(), &Fixed::default()).unwrap_err();
        assert_eq!(error.to_string(), "configmap \"m\" not found");
        assert_eq!(environment(&of(true), BTreeMap::new(), &Fixed::default()).unwrap(), []);
        let empty = Fixed { config_map: Some(ConfigMap::default()) };
        let error = environment(&of(false), BTreeMap::new(), &empty).unwrap_err();
        assert_eq!(error.to_string(), "couldn't find key k in ConfigMap ns/m");
    }
}
