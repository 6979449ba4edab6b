//! Authentication: who asks. In order: in-process identity, client certificate, bearer token (service account, then
//! bootstrap), anonymous. A token that nobody knows is refused, not anonymous.

pub(crate) mod bootstrap_token;
pub(crate) mod impersonation;
pub(crate) mod jwt;
pub(crate) mod service_account;
pub(crate) mod x509;

use http::{Extensions, HeaderMap, header};
use jiff::Timestamp;

use crate::state::State;
use crate::status::ApiError;
use crate::user::UserInfo;

/// Identity of a caller inside this process; set by the in-process client alone.
#[derive(Debug, Clone)]
pub struct InProcessUser(pub UserInfo);

/// Finds out who asks.
pub fn authenticate(
    state: &State,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<UserInfo, ApiError> {
    if let Some(InProcessUser(user)) = extensions.get() {
        return Ok(user.clone());
    }
    if let Some(user) = extensions.get().and_then(x509::identify) {
        return Ok(user);
    }
    match bearer(headers) {
        Some(token) => by_token(state, token, &[state.tokens.issuer()])
            .map(|known| known.user)
            .ok_or_else(ApiError::unauthorized),
        None => Ok(UserInfo::anonymous()),
    }
}

/// Whom a token stands for, and for which of the wanted audiences.
pub struct Known {
    /// The user.
    pub user: UserInfo,
    /// Audiences of the token that were wanted.
    pub audiences: Vec<String>,
}

/// Looks a bearer token up with every authenticator that knows tokens.
pub fn by_token(state: &State, token: &str, audiences: &[&str]) -> Option<Known> {
    if let Some((id, secret)) = bootstrap_token::parse(token) {
        let name = format!("bootstrap-token-{id}");
        let object = state.store.value("", "secrets", Some("kube-system"), &name)?;
        let user = bootstrap_token::identify(&object, id, secret, Timestamp::now())?;
        return Some(Known { user, audiences: audiences.iter().map(|a| (*a).to_owned()).collect() });
    }
    service_account::by_token(state, token, audiences)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}
