//! `serviceaccounts/token`: a token for an account, bound to a pod, secret or node when asked.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::authn::jwt::{Claims, Private, Reference};
use crate::context::Context;
use crate::meta;
use crate::respond::{self, HttpResponse};
use crate::rest::{Target, read};
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};
use crate::store;
use crate::subresource::pod_parts;

const DEFAULT_SECONDS: i64 = 3600;
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;
/// What clients that do not reload tokens get in truth when they ask for this much.
const WARN_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Answers `create`.
pub async fn create(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("CreateOptions")?;
    let mut request = pod_parts::decode(state, context, "authentication.k8s.io", "v1", "TokenRequest")?;
    let stored = read::find(&state.store, target)?;
    let account = store::decode(&stored)?;
    let namespace = meta::text(&account, "namespace").to_owned();
    let spec = Spec::read(&request, state.tokens.issuer())?;
    let bound = bound_object(state, &namespace, &request["spec"]["boundObjectRef"], target)?;
    check_node(context, target, &bound)?;
    let claims = claims(&spec, &bound, &account, state.tokens.issuer(), Timestamp::now().as_second());
    let token = state.tokens.sign(&claims).map_err(ApiError::internal)?;
    request["metadata"] = json!({
        "name": target.name(), "namespace": namespace, "creationTimestamp": meta::now(),
    });
    request["spec"]["audiences"] = spec.audiences.into();
    request["spec"]["expirationSeconds"] = spec.seconds.into();
    request["spec"].as_object_mut().map(|s| s.entry("boundObjectRef").or_insert(Value::Null));
    let expires = Timestamp::from_second(claims.iat + spec.seconds).unwrap_or_default();
    let token = if options.dry_run { String::new() } else { token };
    request["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
    Ok(respond::document(StatusCode::CREATED, context.accept.encoding, &request))
}

struct Spec {
    audiences: Vec<String>,
    seconds: i64,
}

impl Spec {
    fn read(request: &Value, issuer: &str) -> ApiResult<Self> {
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        let refuse = |message: &str| {
            let cause = Cause::new(
                "FieldValueInvalid",
                "spec.expirationSeconds",
                format!("Invalid value: {seconds}: {message}"),
            );
            Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", vec![cause]))
        };
        if seconds < LEAST_SECONDS {
            return refuse("may not specify a duration less than 10 minutes");
        }
        if seconds > MOST_SECONDS {
            return refuse("may not specify a duration larger than 2^32 seconds");
        }
        let mut audiences = meta::strings(&request["spec"]["audiences"]);
        if audiences.is_empty() {
            audiences.push(issuer.to_owned());
        }
        Ok(Self { audiences, seconds })
    }
}

/// What a token is bound to.
#[derive(Default)]
struct Bound {
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
}

fn reference(object: &Value) -> Reference {
    Reference { name: meta::text(object, "name").to_owned(), uid: meta::text(object, "uid").to_owned() }
}

fn bound_object(state: &State, namespace: &str, wanted: &Value, target: &Target) -> ApiResult<Bound> {
    let mut bound = Bound::default();
    if !wanted.is_object() {
        return Ok(bound);
    }
    let name = wanted["name"].as_str().unwrap_or_default();
    let plural = match wanted["kind"].as_str().unwrap_or_default() {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => "nodes",
        kind => {
            let message = format!(
                "cannot bind token for serviceaccount {:?} to object of kind {kind:?}",
                target.name()
            );
            return Err(ApiError::bad_request(message));
        }
    };
    let space = (plural != "nodes").then_some(namespace);
    let object =
        state.store.value("", plural, space, name).ok_or_else(|| ApiError::not_found("", plural, name))?;
    let uid = wanted["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != meta::text(&object, "uid") {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", plural, name, &why));
    }
    match plural {
        "pods" => {
            let account = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if account != target.name() {
                let message = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    target.name()
                );
                return Err(ApiError::bad_request(message));
            }
            let node = object["spec"]["nodeName"].as_str().filter(|n| !n.is_empty());
            bound.node = node.map(|name| match state.store.value("", "nodes", None, name) {
                Some(node) => reference(&node),
                None => Reference { name: name.to_owned(), uid: String::new() },
            });
            bound.pod = Some(reference(&object));
        }
        "secrets" => bound.secret = Some(reference(&object)),
        _ => bound.node = Some(reference(&object)),
    }
    Ok(bound)
}

/// A kubelet gets tokens for pods on its node alone.
fn check_node(context: &Context, target: &Target, bound: &Bound) -> ApiResult<()> {
    let Some(node) = context.user.node() else { return Ok(()) };
    match (&bound.pod, &bound.node) {
        (None, _) => Err(target.forbidden(&format!("node {node:?} requested token not bound to a pod"))),
        (Some(_), Some(on)) if on.name == node => Ok(()),
        _ => Err(target.forbidden(&format!(
            "node {node:?} requested token bound to a pod scheduled on a different node"
        ))),
    }
}

fn claims(spec: &Spec, bound: &Bound, account: &Value, issuer: &str, now: i64) -> Claims {
    // Such tokens live longer than asked, so that clients which never reload them go on for a while.
    let extended = spec.seconds == WARN_SECONDS && bound.pod.is_some() && spec.audiences == [issuer];
    let namespace = meta::text(account, "namespace").to_owned();
    Claims {
        aud: spec.audiences.clone(),
        exp: now + if extended { EXTENDED_SECONDS } else { spec.seconds },
        iat: now,
        iss: issuer.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!("system:serviceaccount:{namespace}:{}", meta::text(account, "name")),
        kubernetes: Private {
            namespace,
            node: bound.node.clone(),
            pod: bound.pod.clone(),
            secret: bound.secret.clone(),
            serviceaccount: reference(account),
            warnafter: extended.then_some(now + spec.seconds),
        },
        nbf: now,
    }
}
