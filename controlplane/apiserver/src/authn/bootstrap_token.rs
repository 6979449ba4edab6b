//! Bootstrap tokens: `ID.SECRET`, kept in Secrets `kube-system/bootstrap-token-ID`. Pure; finding the Secret is the
//! authenticator's.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::user::UserInfo;

/// Type of the Secrets that hold bootstrap tokens.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Group of everybody who shows one.
pub const GROUP: &str = "system:bootstrappers";

/// Splits a token that looks like a bootstrap token.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain =
        |s: &str, len| s.len() == len && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

/// The user a token stands for, when the Secret vouches for it at that time.
pub fn identify(object: &Value, id: &str, secret: &str, now: jiff::Timestamp) -> Option<UserInfo> {
    let field = |name: &str| -> Option<String> {
        let bytes = STANDARD.decode(object["data"][name].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    if object["type"] != SECRET_TYPE || !object["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    if field("token-id")? != id || !equal(&field("token-secret")?, secret) {
        return None;
    }
    if field("usage-bootstrap-authentication").as_deref() != Some("true") {
        return None;
    }
    if let Some(expiry) = field("expiration")
        && expiry.parse::<jiff::Timestamp>().ok().is_none_or(|at| at <= now)
    {
        return None;
    }
    let extra = field("auth-extra-groups").unwrap_or_default();
    let extra = extra.split(',').map(str::trim).filter(|g| g.starts_with("system:bootstrappers:"));
    let groups = std::iter::once(GROUP).chain(extra).map(str::to_owned);
    Some(UserInfo::new(format!("system:bootstrap:{id}"), groups))
}

/// Compares without telling by time where texts differ.
fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(expiry: &str) -> Value {
        let b = |s: &str| STANDARD.encode(s);
        json!({"type": SECRET_TYPE, "metadata": {}, "data": {
            "token-id": b("abcdef"), "token-secret": b("0123456789abcdef"),
            "usage-bootstrap-authentication": b("true"), "expiration": b(expiry),
        }})
    }

    #[test]
    fn accepts_until_it_expires() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let user = identify(&secret("2026-01-02T00:00:00Z"), "abcdef", "0123456789abcdef", now).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert!(user.is_in(GROUP));
        assert!(identify(&secret("2025-01-02T00:00:00Z"), "abcdef", "0123456789abcdef", now).is_none());
        assert!(identify(&secret("2026-01-02T00:00:00Z"), "abcdef", "0123456789abcdeX", now).is_none());
    }

    #[test]
    fn tells_bootstrap_tokens_by_their_form() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        assert_eq!(parse("a.b"), None);
        assert_eq!(parse("abcdef.0123456789ABCDEF"), None);
    }
}
