//! Reviews: requests whose answer is computed and never stored. TokenReview, the access reviews, SelfSubjectReview and
//! SelfSubjectRulesReview.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::authn;
use crate::authz::rule::Rule;
use crate::authz::{self, Ask};
use crate::context::Context;
use crate::respond::{self, HttpResponse};
use crate::rest::{Target, create};
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};
use crate::user::{MASTERS, UserInfo};

/// Answers a create of a review; `None` for any other resource.
pub fn handle(state: &State, context: &Context, target: &Target) -> ApiResult<Option<HttpResponse>> {
    let resource = &target.resource;
    if !matches!(&*resource.group, "authentication.k8s.io" | "authorization.k8s.io")
        || context.info.verb != "create"
    {
        return Ok(None);
    }
    let options = context.write_options("CreateOptions")?;
    let mut review = create::decode_body(context, target, &options)?;
    crate::meta::settle_namespace(&mut review, resource.namespaced, target.namespace.as_deref())?;
    let status = match &*resource.plural {
        "tokenreviews" => token(state, &review)?,
        "selfsubjectreviews" => json!({"userInfo": context.user.to_value()}),
        "subjectaccessreviews" => access(state, &review, None, None)?,
        "localsubjectaccessreviews" => access(state, &review, None, target.namespace.as_deref())?,
        "selfsubjectaccessreviews" => access(state, &review, Some(&context.user), None)?,
        "selfsubjectrulesreviews" => rules(state, &review, &context.user)?,
        _ => return Ok(None),
    };
    review["status"] = status;
    if &*resource.plural == "selfsubjectreviews" {
        review["metadata"]["creationTimestamp"] = crate::meta::now().into();
    }
    Ok(Some(respond::document(StatusCode::CREATED, context.accept.encoding, &ordered(review))))
}

/// kind, apiVersion, metadata, spec, status: in that order whatever the body had.
fn ordered(review: Value) -> Value {
    let mut out = Map::new();
    let Value::Object(mut members) = review else { return Value::Object(out) };
    for field in ["kind", "apiVersion", "metadata", "spec", "status"] {
        if let Some(value) = members.shift_remove(field) {
            out.insert(field.into(), value);
        }
    }
    out.entry("metadata").or_insert_with(|| json!({}));
    out.extend(members);
    Value::Object(out)
}

fn token(state: &State, review: &Value) -> ApiResult<Value> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted = crate::meta::strings(&review["spec"]["audiences"]);
    let wanted: Vec<&str> = if wanted.is_empty() {
        vec![state.tokens.issuer()]
    } else {
        wanted.iter().map(String::as_str).collect()
    };
    Ok(match authn::by_token(state, token, &wanted) {
        Some(known) => {
            json!({"authenticated": true, "user": known.user.to_value(), "audiences": known.audiences})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    })
}

fn refuse(causes: Vec<Cause>) -> ApiError {
    let mut error = ApiError::invalid("authorization.k8s.io", "", "", causes);
    if let Some(details) = &mut error.details {
        details.group = String::new();
    }
    error
}

fn invalid(field: &str, message: &str) -> Cause {
    Cause::new("FieldValueInvalid", field, message)
}

fn access(
    state: &State,
    review: &Value,
    own: Option<&UserInfo>,
    namespace: Option<&str>,
) -> ApiResult<Value> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let subject = own.cloned().unwrap_or_else(|| subject(spec));
    let mut causes = Vec::new();
    match (namespace, resource.is_object(), path.is_object()) {
        (Some(_), _, true) => {
            causes.push(invalid(
                "spec.nonResourceAttributes",
                "Invalid value: disallowed on this kind of request",
            ));
        }
        (_, true, true) => causes.push(invalid(
            "spec.nonResourceAttributes",
            "Invalid value: cannot be specified in combination with resourceAttributes",
        )),
        (_, false, false) => causes.push(invalid(
            "spec.resourceAttributes",
            "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    if own.is_none() && subject.name.is_empty() && spec["groups"].as_array().is_none_or(Vec::is_empty) {
        causes.push(invalid(
            "spec.user",
            "Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    if let Some(namespace) = namespace
        && !path.is_object()
        && resource["namespace"].as_str().unwrap_or_default() != namespace
    {
        let field = "spec.resourceAttributes.namespace";
        causes.push(invalid(
            field,
            &format!("Invalid value: {}: must match metadata.namespace", resource["namespace"]),
        ));
    }
    if !causes.is_empty() {
        return Err(refuse(causes));
    }
    Ok(judge(state, &subject, spec))
}

fn judge(state: &State, subject: &UserInfo, spec: &Value) -> Value {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let of = if path.is_object() { path } else { resource };
    let (verb, group, plural) = (text(of, "verb"), text(of, "group"), text(of, "resource"));
    let (sub, space, name, at) =
        (text(of, "subresource"), text(of, "namespace"), text(of, "name"), text(of, "path"));
    let fields = field_selector(resource);
    let ask = Ask {
        verb: &verb,
        group: &group,
        resource: &plural,
        subresource: &sub,
        namespace: &space,
        name: &name,
        path: path.is_object().then_some(at.as_str()),
        field_selector: fields.as_deref(),
    };
    match authz::authorize(state, subject, &ask) {
        Ok(()) => json!({"allowed": true}),
        Err(why) if why.is_empty() => json!({"allowed": false}),
        Err(why) => json!({"allowed": false, "reason": why}),
    }
}

fn field_selector(resource: &Value) -> Option<String> {
    if let Some(raw) = resource["fieldSelector"]["rawSelector"].as_str() {
        return Some(raw.to_owned());
    }
    let terms: Vec<String> = resource["fieldSelector"]["requirements"]
        .as_array()?
        .iter()
        .filter(|r| r["operator"] == "In")
        .map(|r| {
            format!(
                "{}={}",
                r["key"].as_str().unwrap_or_default(),
                r["values"][0].as_str().unwrap_or_default()
            )
        })
        .collect();
    Some(terms.join(","))
}

fn subject(spec: &Value) -> UserInfo {
    UserInfo {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: crate::meta::strings(&spec["groups"]),
        ..UserInfo::default()
    }
}

fn rules(state: &State, review: &Value, user: &UserInfo) -> ApiResult<Value> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let mut held = state.policy.read().rules_of(user, namespace);
    if user.is_in(MASTERS) && held.is_empty() {
        held.push(Rule {
            verbs: vec!["*".into()],
            groups: vec!["*".into()],
            resources: vec!["*".into()],
            ..Rule::default()
        });
    }
    let split = |paths: bool| -> Vec<Value> {
        held.iter().filter(|r| r.paths.is_empty() != paths).map(|r| spoken(r, paths)).collect()
    };
    Ok(json!({"resourceRules": split(false), "nonResourceRules": split(true), "incomplete": false}))
}

fn spoken(rule: &Rule, path: bool) -> Value {
    if path {
        return json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths});
    }
    rule.to_value()
}
