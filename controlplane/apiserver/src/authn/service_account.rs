//! Service-account tokens against the cluster: the account and what the token is bound to must still exist, with the
//! uids the token names.

use jiff::Timestamp;

use crate::authn::Known;
use crate::authn::jwt::Reference;
use crate::meta;
use crate::state::State;
use crate::user::{UserInfo, service_account_user};

/// Seconds a deleted pod's token stays good beyond the pod's grace.
const LEEWAY_SECONDS: i64 = 60;

/// The user of a token that is valid for at least one of the audiences.
pub fn by_token(state: &State, token: &str, audiences: &[&str]) -> Option<Known> {
    let now = Timestamp::now();
    let claims = state.tokens.verify(token, now.as_second()).ok()?;
    let matched: Vec<String> =
        claims.aud.iter().filter(|a| audiences.contains(&a.as_str())).cloned().collect();
    if matched.is_empty() {
        return None;
    }
    let space = &claims.kubernetes.namespace;
    let account = &claims.kubernetes.serviceaccount;
    exists(state, "serviceaccounts", Some(space), account, now)?;
    if let Some(secret) = &claims.kubernetes.secret {
        exists(state, "secrets", Some(space), secret, now)?;
    }
    if let Some(pod) = &claims.kubernetes.pod {
        exists(state, "pods", Some(space), pod, now)?;
    } else if let Some(node) = &claims.kubernetes.node {
        exists(state, "nodes", None, node, now)?;
    }
    let mut user = service_account_user(space, &account.name, &account.uid);
    add_extra(&mut user, "credential-id", &format!("JTI={}", claims.jti));
    for (kind, reference) in [("pod", &claims.kubernetes.pod), ("node", &claims.kubernetes.node)] {
        if let Some(reference) = reference {
            add_extra(&mut user, &format!("{kind}-name"), &reference.name);
            add_extra(&mut user, &format!("{kind}-uid"), &reference.uid);
        }
    }
    Some(Known { user, audiences: matched })
}

fn add_extra(user: &mut UserInfo, key: &str, value: &str) {
    user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
}

fn exists(
    state: &State,
    plural: &str,
    namespace: Option<&str>,
    reference: &Reference,
    now: Timestamp,
) -> Option<()> {
    let object = state.store.value("", plural, namespace, &reference.name)?;
    let gone = object["metadata"]["deletionTimestamp"]
        .as_str()
        .and_then(|at| at.parse::<Timestamp>().ok())
        .is_some_and(|at| now.as_second() > at.as_second() + LEEWAY_SECONDS);
    (meta::text(&object, "uid") == reference.uid && !gone).then_some(())
}
