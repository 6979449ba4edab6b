//! Authorization: may they. The node authorizer first (kubelets are judged by what runs on their node), then RBAC;
//! `system:masters` passes. Owns the wording of refusals.

pub(crate) mod escalation;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod rule;
pub(crate) mod seed;

use crate::authz::rule::Action;
use crate::context::Context;
use crate::request_info::{Query, RequestInfo};
use crate::state::State;
use crate::status::ApiError;
use crate::user::{MASTERS, UserInfo};

/// What is asked for; empty texts mean "none".
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// API verb or lower-case method.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Object name.
    pub name: &'a str,
    /// Path, when no resource is asked for.
    pub path: Option<&'a str>,
    /// The request's field selector.
    pub field_selector: Option<&'a str>,
}

impl<'a> Ask<'a> {
    /// What a request asks for.
    pub fn of(info: &'a RequestInfo, query: &'a Query) -> Self {
        Self {
            verb: &info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: info.subresource.as_deref().unwrap_or_default(),
            namespace: info.namespace.as_deref().unwrap_or_default(),
            name: info.name.as_deref().unwrap_or_default(),
            path: (!info.is_resource).then_some(info.path.as_str()),
            field_selector: query.text("fieldSelector"),
        }
    }

    fn action(&self) -> Action<'a> {
        match self.path {
            Some(path) => Action::Path { verb: self.verb, path },
            None => Action::Resource {
                verb: self.verb,
                group: self.group,
                resource: self.resource,
                subresource: self.subresource,
                name: self.name,
            },
        }
    }
}

/// Whether the user may; the refusal says why when there is more to say than "no".
pub fn authorize(state: &State, user: &UserInfo, ask: &Ask<'_>) -> Result<(), String> {
    if user.is_in(MASTERS) {
        return Ok(());
    }
    let mut why = String::new();
    if let Some(node) = user.node() {
        match node::authorize(state, node, ask) {
            node::Verdict::Allowed => return Ok(()),
            node::Verdict::Refused(reason) => why = reason,
        }
    }
    if state.policy.read().allows(user, ask.namespace, &ask.action()) {
        return Ok(());
    }
    Err(why)
}

/// The stage itself.
pub fn check(state: &State, context: &Context) -> Result<(), ApiError> {
    let ask = Ask::of(&context.info, &context.query);
    authorize(state, &context.user, &ask).map_err(|why| forbidden(&context.user, &ask, &why))
}

/// 403 in the words clients know.
pub fn forbidden(user: &UserInfo, ask: &Ask<'_>, why: &str) -> ApiError {
    if let Some(path) = ask.path {
        let message = format!("forbidden: User {:?} cannot {} path {path:?}", user.name, ask.verb);
        return ApiError::forbidden_path(message);
    }
    let resource = match ask.subresource {
        "" => ask.resource.to_owned(),
        sub => format!("{}/{sub}", ask.resource),
    };
    let scope = match ask.namespace {
        "" => " at the cluster scope".to_owned(),
        namespace => format!(" in the namespace {namespace:?}"),
    };
    let mut message = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?}{scope}",
        user.name, ask.verb, ask.group
    );
    if !why.is_empty() {
        message.push_str(": ");
        message.push_str(why);
    }
    ApiError::forbidden(ask.group, ask.resource, ask.name, &message)
}
