//! Nobody grants more than they hold: writing a role needs its rules or the verb `escalate`; writing a binding needs
//! the role's rules or the verb `bind`.

use serde_json::Value;

use crate::admission::{Operation, Request};
use crate::authz::policy::{GROUP, RbacKind};
use crate::authz::rule::{Rule, uncovered};
use crate::authz::{self, Ask};
use crate::meta;
use crate::state::State;
use crate::status::{ApiError, ApiResult};
use crate::user::MASTERS;

/// Judges a write of an RBAC object; others pass.
pub fn validate(state: &State, request: &Request<'_>, object: &Value, old: Option<&Value>) -> ApiResult<()> {
    if &*request.target.resource.group != GROUP || request.user.is_in(MASTERS) {
        return Ok(());
    }
    let Some(kind) = RbacKind::of(&request.target.resource.plural) else { return Ok(()) };
    if request.operation == Operation::Delete {
        return Ok(());
    }
    match kind {
        RbacKind::Role | RbacKind::ClusterRole => role(state, request, object, old),
        RbacKind::RoleBinding | RbacKind::ClusterRoleBinding => binding(state, request, object, old),
    }
}

fn role(state: &State, request: &Request<'_>, object: &Value, old: Option<&Value>) -> ApiResult<()> {
    let unchanged = old.is_some_and(|old| {
        // Labels choose the roles that aggregate this one's rules.
        old["rules"] == object["rules"]
            && old["aggregationRule"] == object["aggregationRule"]
            && old["metadata"]["labels"] == object["metadata"]["labels"]
    });
    let plural = &request.target.resource.plural;
    if unchanged || may(state, request, "escalate", plural, meta::text(object, "name")) {
        return Ok(());
    }
    let wanted = if object["aggregationRule"].is_object() {
        // Its rules will be whatever the selected roles hold.
        vec![everything()]
    } else {
        Rule::read_all(&object["rules"])
    };
    refuse_uncovered(state, request, object, &wanted)
}

fn binding(state: &State, request: &Request<'_>, object: &Value, old: Option<&Value>) -> ApiResult<()> {
    let unchanged =
        old.is_some_and(|old| old["roleRef"] == object["roleRef"] && old["subjects"] == object["subjects"]);
    let reference = &object["roleRef"];
    let name = reference["name"].as_str().unwrap_or_default();
    let cluster = reference["kind"] == "ClusterRole";
    let plural = if cluster { "clusterroles" } else { "roles" };
    if unchanged || may(state, request, "bind", plural, name) {
        return Ok(());
    }
    let scope = if cluster { "" } else { request.target.namespace.as_deref().unwrap_or_default() };
    let Some(rules) = state.policy.read().role(scope, name) else {
        return Err(ApiError::not_found(GROUP, plural, name));
    };
    refuse_uncovered(state, request, object, &rules)
}

fn may(state: &State, request: &Request<'_>, verb: &str, plural: &str, name: &str) -> bool {
    let ask = Ask {
        verb,
        group: GROUP,
        resource: plural,
        subresource: "",
        namespace: request.target.namespace.as_deref().unwrap_or_default(),
        name,
        path: None,
        field_selector: None,
    };
    authz::authorize(state, request.user, &ask).is_ok()
}

fn everything() -> Rule {
    let all = || vec!["*".to_owned()];
    Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() }
}

fn refuse_uncovered(state: &State, request: &Request<'_>, object: &Value, wanted: &[Rule]) -> ApiResult<()> {
    let namespace = request.target.namespace.as_deref().unwrap_or_default();
    let held = state.policy.read().rules_of(request.user, namespace);
    let missing = uncovered(&held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing.iter().map(|rule| rule.to_value().to_string()).collect();
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        request.user.name,
        request.user.groups,
        list.join("\n")
    );
    let resource = &request.target.resource;
    Err(ApiError::forbidden(&resource.group, &resource.plural, meta::text(object, "name"), &why))
}
