//! What a namespace lacks.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::ResourceExt;

/// Name of the account that pods run as unless they say otherwise.
pub(crate) const DEFAULT_ACCOUNT: &str = "default";
/// Name of the map with the cluster CA.
pub(crate) const ROOT_CA_MAP: &str = "kube-root-ca.crt";
/// Its key.
pub(crate) const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str =
    "The certificate authority by which clients inside the cluster verify the API server.";

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Create the default account.
    CreateAccount(ServiceAccount),
    /// Create the CA map.
    CreateMap(ConfigMap),
    /// Set the CA map's content.
    RestoreMap(ConfigMap),
}

/// What `namespace` lacks, given what it has.
pub(crate) fn plan(
    namespace: &Namespace,
    account: Option<&ServiceAccount>,
    map: Option<&ConfigMap>,
    root_ca: &str,
) -> Vec<Command> {
    if namespace.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let name = namespace.name_any();
    let mut commands = Vec::new();
    if account.is_none() {
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(DEFAULT_ACCOUNT.into());
        account.metadata.namespace = Some(name.clone());
        commands.push(Command::CreateAccount(account));
    }
    let data = BTreeMap::from([(ROOT_CA_KEY.to_owned(), root_ca.to_owned())]);
    match map {
        None => {
            let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
            map.metadata.name = Some(ROOT_CA_MAP.into());
            map.metadata.namespace = Some(name);
            map.metadata.annotations =
                Some(BTreeMap::from([(DESCRIPTION_KEY.to_owned(), DESCRIPTION.to_owned())]));
            commands.push(Command::CreateMap(map));
        }
        Some(map) if map.data.as_ref() != Some(&data) => {
            commands.push(Command::RestoreMap(ConfigMap { data: Some(data), ..map.clone() }));
        }
        Some(_) => {}
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("ns".into());
        namespace
    }

    #[test]
    fn fresh_namespace_gets_both() {
        let commands = plan(&namespace(), None, None, "CA");
        assert!(matches!(&commands[..], [Command::CreateAccount(_), Command::CreateMap(_)]));
    }

    #[test]
    fn changed_certificate_is_restored() {
        let Some(Command::CreateMap(mut map)) = plan(&namespace(), None, None, "CA").pop() else { panic!() };
        let account = ServiceAccount::default();
        assert!(plan(&namespace(), Some(&account), Some(&map), "CA").is_empty());
        map.data = Some(BTreeMap::from([(ROOT_CA_KEY.to_owned(), "other".to_owned())]));
        let commands = plan(&namespace(), Some(&account), Some(&map), "CA");
        assert!(matches!(&commands[..], [Command::RestoreMap(_)]));
    }

    #[test]
    fn terminating_namespace_gets_nothing() {
        let mut namespace = namespace();
        namespace.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(plan(&namespace, None, None, "CA").is_empty());
    }
}
