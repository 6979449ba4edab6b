//! The error every handler returns: a Kubernetes `Status` with the code, reason, details and causes that clients
//! branch on. Owns the mapping from what went wrong to what is said; writing it to the wire is `respond`'s.

use serde_json::{Map, Value, json};

/// One machine-readable cause of a failure, usually one invalid field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// CamelCase reason, for example `FieldValueRequired`.
    pub reason: String,
    /// Human-readable part.
    pub message: String,
    /// Field path, empty when the cause is not a field.
    pub field: String,
}

/// What a failure is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Object name, empty when unknown.
    pub name: String,
    /// API group of `kind`.
    pub group: String,
    /// Resource plural or kind, as upstream fills it for the reason at hand.
    pub kind: String,
    /// Uid of the object, empty when unknown.
    pub uid: String,
    /// Causes in order.
    pub causes: Vec<Cause>,
    /// Seconds after which a retry makes sense.
    pub retry_after_seconds: Option<u32>,
}

/// A refused or failed request, as the client will see it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason} ({code}): {message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Reason clients branch on.
    pub reason: &'static str,
    /// Sentence for people.
    pub message: String,
    /// What it is about; boxed to keep the error small.
    pub details: Option<Box<Details>>,
}

/// Result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    /// Adds one cause.
    #[must_use]
    pub fn cause(mut self, reason: &str, field: &str, message: &str) -> Self {
        self.details.get_or_insert_default().causes.push(Cause {
            reason: reason.to_owned(),
            message: message.to_owned(),
            field: field.to_owned(),
        });
        self
    }

    /// Asks the client to retry after that many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// 404: the named object does not exist.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", qualified(plural, group)))
            .about(group, plural, name)
    }

    /// 404: no such path in a served API.
    pub fn no_such_path() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(404, "NotFound", "the server could not find the requested resource")
        }
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(plural, group)))
            .about(group, plural, name)
    }

    /// 409: the object changed in between, or a precondition failed.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(plural, group));
        Self::new(409, "Conflict", message).about(group, plural, name)
    }

    /// 409 of an apply against fields that others own.
    pub fn apply_conflict(message: impl Into<String>) -> Self {
        Self::new(409, "Conflict", message)
    }

    /// 409 in the words clients know for a stale resourceVersion.
    pub fn stale(group: &str, plural: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// 422: the object breaks the rules; one cause a field.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let lines: Vec<String> =
            causes
                .iter()
                .map(|c| {
                    if c.field.is_empty() { c.message.clone() } else { format!("{}: {}", c.field, c.message) }
                })
                .collect();
        let what = match lines.len() {
            1 => lines.concat(),
            _ => format!("[{}]", lines.join(", ")),
        };
        let mut error =
            Self::new(422, "Invalid", format!("{} \"{name}\" is invalid: {what}", qualified(kind, group)))
                .about(group, kind, name);
        error.details.get_or_insert_default().causes = causes;
        error
    }

    /// 422 for one field of an options object.
    pub fn invalid_option(kind: &str, cause: Cause) -> Self {
        Self::invalid("meta.k8s.io", kind, "", vec![cause])
    }

    /// 422 without an object: a patch that cannot be applied.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self { details: Some(Box::default()), ..Self::new(422, "Invalid", message) }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 for an object, with the reason after a colon.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let subject = match name {
            "" => format!("{} is forbidden", qualified(plural, group)),
            _ => format!("{} \"{name}\" is forbidden", qualified(plural, group)),
        };
        Self::new(403, "Forbidden", format!("{subject}: {why}")).about(group, plural, name)
    }

    /// 403 for a path that is no resource.
    pub fn forbidden_path(message: impl Into<String>) -> Self {
        Self { details: Some(Box::default()), ..Self::new(403, "Forbidden", message) }
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self { details: Some(Box::default()), ..Self::new(405, "MethodNotAllowed", message) }
    }

    /// 406.
    pub fn not_acceptable(supported: &[&str]) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {}", supported.join(", ")),
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("limit is {limit}"))
    }

    /// 415.
    pub fn unsupported_media_type(supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            supported.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 410: the version asked for is gone from the cache.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 429: a budget says not now.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(seconds)
    }

    /// 500; the message must help the operator.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}")).cause(
            "",
            "",
            &message.to_string(),
        )
    }

    /// 503: a part the request needs is not there.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: a version newer than the cache has seen.
    pub fn version_too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let said = message.clone();
        Self::new(504, "Timeout", said)
            .cause("ResourceVersionTooLarge", "", "Too large resource version")
            .retry_after(1)
    }

    /// The `Status` object for the body.
    pub fn to_value(&self) -> Value {
        let mut status = Map::new();
        status.insert("kind".into(), "Status".into());
        status.insert("apiVersion".into(), "v1".into());
        status.insert("metadata".into(), json!({}));
        status.insert("status".into(), "Failure".into());
        status.insert("message".into(), self.message.clone().into());
        status.insert("reason".into(), self.reason.into());
        if let Some(details) = &self.details {
            status.insert("details".into(), details.to_value());
        }
        status.insert("code".into(), self.code.into());
        Value::Object(status)
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, value) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !value.is_empty() {
                out.insert(key.into(), value.clone().into());
            }
        }
        if !self.causes.is_empty() {
            out.insert("causes".into(), self.causes.iter().map(Cause::to_value).collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            out.insert("retryAfterSeconds".into(), seconds.into());
        }
        Value::Object(out)
    }
}

impl Cause {
    /// A cause with all three parts.
    pub fn new(reason: &str, field: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), field: field.to_owned() }
    }

    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, value) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !value.is_empty() {
                out.insert(key.into(), value.clone().into());
            }
        }
        Value::Object(out)
    }
}

/// `plural.group`, or `plural` in the core group.
pub fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_group_in_not_found() {
        let status = ApiError::not_found("apps", "deployments", "web").to_value();
        assert_eq!(status["message"], "deployments.apps \"web\" not found");
        assert_eq!(status["details"], json!({"name": "web", "group": "apps", "kind": "deployments"}));
    }

    #[test]
    fn joins_several_causes_in_brackets() {
        let causes = vec![
            Cause::new("FieldValueRequired", "a", "Required value"),
            Cause::new("FieldValueInvalid", "b", "no"),
        ];
        let error = ApiError::invalid("", "Pod", "p", causes);
        assert_eq!(error.message, "Pod \"p\" is invalid: [a: Required value, b: no]");
    }
}
