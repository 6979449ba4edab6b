//! Who may have an address that another already has. Pure.

use skep_model::NamespacedName;

use super::facts::{ServiceFacts, Sharing};

/// Whether two Services may have the same address.
///
/// # Errors
/// Why they may not.
pub(crate) fn may_share(
    (name, service): (&NamespacedName, &ServiceFacts),
    (other, holder): (&NamespacedName, &ServiceFacts),
) -> Result<(), String> {
    let (Some(ours), Some(theirs)) = (&service.sharing, &holder.sharing) else {
        return Err("it is not shared".into());
    };
    if ours.key != theirs.key {
        return Err("it is shared under another key".into());
    }
    if !agrees(ours, &name.namespace, &other.namespace) || !agrees(theirs, &other.namespace, &name.namespace)
    {
        return Err("it is not shared across the two namespaces".into());
    }
    if let Some((protocol, port)) = service.ports.intersection(&holder.ports).next() {
        return Err(format!("both use port {port}/{protocol}"));
    }
    let together = !service.selector.is_empty() && service.selector == holder.selector;
    if (service.local || holder.local) && !together {
        return Err("with externalTrafficPolicy Local only Services with the same selector can share".into());
    }
    Ok(())
}

fn agrees(sharing: &Sharing, own: &str, other: &str) -> bool {
    own == other || sharing.namespaces.contains("*") || sharing.namespaces.contains(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(key: &str, namespaces: &[&str], port: i32) -> ServiceFacts {
        let namespaces = namespaces.iter().map(|namespace| (*namespace).to_owned()).collect();
        ServiceFacts {
            sharing: Some(Sharing { key: key.into(), namespaces }),
            ports: [("TCP".to_owned(), port)].into(),
            ..ServiceFacts::default()
        }
    }

    fn verdict(a: &ServiceFacts, b: &ServiceFacts, namespace: &str) -> Result<(), String> {
        let (one, two) = (NamespacedName::new("default", "a"), NamespacedName::new(namespace, "b"));
        let verdict = may_share((&one, a), (&two, b));
        assert_eq!(verdict.is_ok(), may_share((&two, b), (&one, a)).is_ok(), "sharing is mutual");
        verdict
    }

    #[test]
    fn equal_keys_share_as_long_as_ports_differ() {
        assert_eq!(verdict(&service("k", &[], 80), &service("k", &[], 443), "default"), Ok(()));
        let clash = verdict(&service("k", &[], 80), &service("k", &[], 80), "default").unwrap_err();
        assert!(clash.contains("80/TCP"));
        assert!(verdict(&service("k", &[], 80), &service("j", &[], 443), "default").is_err());
        assert!(verdict(&service("k", &[], 80), &ServiceFacts::default(), "default").is_err());
    }

    #[test]
    fn both_namespaces_must_agree() {
        let (open, named) = (service("k", &["*"], 80), service("k", &["default"], 443));
        assert_eq!(verdict(&open, &named, "shop"), Ok(()));
        assert!(verdict(&open, &service("k", &[], 443), "shop").is_err());
        assert!(verdict(&service("k", &["other"], 80), &named, "shop").is_err());
    }

    #[test]
    fn local_traffic_is_shared_by_the_same_pods_only() {
        let local = |port, app: &str| ServiceFacts {
            local: true,
            selector: [("app".to_owned(), app.to_owned())].into(),
            ..service("k", &[], port)
        };
        assert_eq!(verdict(&local(80, "web"), &local(443, "web"), "default"), Ok(()));
        assert!(verdict(&local(80, "web"), &local(443, "db"), "default").is_err());
        assert!(verdict(&local(80, "web"), &service("k", &[], 443), "default").is_err());
    }
}
