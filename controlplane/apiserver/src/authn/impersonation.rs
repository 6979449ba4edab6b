//! Acting as somebody else: reads the `Impersonate-*` headers, checks the right to each part, and yields the user to
//! go on with.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};

use crate::authz::{self, Ask};
use crate::request_info::decode;
use crate::state::State;
use crate::status::ApiError;
use crate::user::{AUTHENTICATED, UNAUTHENTICATED, UserInfo, service_account_name};

const AUTHENTICATION: &str = "authentication.k8s.io";
const EXTRA: &str = "impersonate-extra-";

/// The user to serve the request for.
pub fn impersonate(state: &State, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo, ApiError> {
    let single = |name: &str| headers.get(name).map_or(Ok(""), text);
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .map(|value| text(value).map(str::to_owned))
        .collect::<Result<_, _>>()?;
    let extra = extra(headers)?;
    let (name, uid) = (single("impersonate-user")?, single("impersonate-uid")?);
    if name.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::bad_request("requested impersonation without impersonating a user"));
    }
    check_name(state, &user, name)?;
    for group in &groups {
        check(state, &user, "", "groups", "", None, group)?;
    }
    for (key, values) in &extra {
        for value in values {
            check(state, &user, AUTHENTICATION, "userextras", key, None, value)?;
        }
    }
    if !uid.is_empty() {
        check(state, &user, AUTHENTICATION, "uids", "", None, uid)?;
    }
    Ok(assemble(name, uid, groups, extra))
}

fn assemble(
    name: &str,
    uid: &str,
    mut groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
) -> UserInfo {
    if let Some((space, _)) = service_account_name(name)
        && groups.is_empty()
    {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{space}")];
    }
    let marker = if name == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
        groups.push(marker.to_owned());
    }
    UserInfo { name: name.to_owned(), uid: uid.to_owned(), groups, extra }
}

fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            out.entry(decode(key)).or_default().push(text(value)?.to_owned());
        }
    }
    Ok(out)
}

/// A header's text. One that is none must not be passed over, for the request would then be served as another user.
fn text(value: &HeaderValue) -> Result<&str, ApiError> {
    std::str::from_utf8(value.as_bytes())
        .map_err(|_not_text| ApiError::bad_request("an Impersonate header is not UTF-8"))
}

fn check_name(state: &State, user: &UserInfo, name: &str) -> Result<(), ApiError> {
    match service_account_name(name) {
        Some((space, account)) => check(state, user, "", "serviceaccounts", "", Some(space), account),
        None => check(state, user, "", "users", "", None, name),
    }
}

fn check(
    state: &State,
    user: &UserInfo,
    group: &str,
    resource: &str,
    subresource: &str,
    namespace: Option<&str>,
    name: &str,
) -> Result<(), ApiError> {
    let ask = Ask {
        verb: "impersonate",
        group,
        resource,
        subresource,
        namespace: namespace.unwrap_or_default(),
        name,
        path: None,
        field_selector: None,
    };
    authz::authorize(state, user, &ask).map_err(|why| authz::forbidden(user, &ask, &why))
}
