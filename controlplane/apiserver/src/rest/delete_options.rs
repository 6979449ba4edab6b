//! `DeleteOptions`: from the body, else from the query; checked with upstream's refusals.

use serde_json::Value;

use crate::context::{Context, check_dry_run};
use crate::media::{self, BodyEncoding};
use crate::status::{ApiError, ApiResult, Cause};

/// What happens to dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They stay and lose their owner.
    Orphan,
    /// They go later.
    Background,
    /// They go first.
    Foreground,
}

/// How to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds until the object must be gone; `None` is the resource's default.
    pub grace_seconds: Option<i64>,
    /// Treatment of dependents; `None` is the resource's default.
    pub propagation: Option<Propagation>,
    /// Uid the object must have.
    pub uid: Option<String>,
    /// Version the object must have.
    pub resource_version: Option<String>,
    /// Do everything but commit.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads them from a request.
    pub fn read(context: &Context) -> ApiResult<Self> {
        if context.body.is_empty() {
            return Self::from_query(context);
        }
        let options: Value = match media::body_encoding(&context.headers)? {
            BodyEncoding::Json => serde_json::from_slice(&context.body)
                .map_err(|error| ApiError::bad_request(format!("cannot decode DeleteOptions: {error}")))?,
            BodyEncoding::Yaml => serde_yaml_ng::from_slice(&context.body)
                .map_err(|error| ApiError::bad_request(format!("cannot decode DeleteOptions: {error}")))?,
            BodyEncoding::Protobuf => skep_registry::decode::parse(&context.body)
                .map(|(options, _)| options)
                .map_err(|error| ApiError::bad_request(format!("cannot decode DeleteOptions: {error}")))?,
        };
        Self::from_value(&options, context)
    }

    fn from_query(context: &Context) -> ApiResult<Self> {
        let query = &context.query;
        let grace = query.text("gracePeriodSeconds").map(|text| {
            text.parse::<i64>().map_err(|_not_a_number| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
            })
        });
        let orphan = query.text("orphanDependents").map(|_| query.flag("orphanDependents"));
        Self {
            grace_seconds: grace.transpose()?,
            dry_run: check_dry_run("DeleteOptions", query.all("dryRun"))?,
            ..Self::default()
        }
        .with_propagation(query.text("propagationPolicy"), orphan)
    }

    /// Reads them from a decoded object.
    pub fn from_value(options: &Value, context: &Context) -> ApiResult<Self> {
        let kind = options["kind"].as_str().unwrap_or("DeleteOptions");
        if !options.is_object() || kind != "DeleteOptions" {
            return Err(ApiError::bad_request(format!("the body must be DeleteOptions, not {kind}")));
        }
        let list: Vec<&str> =
            options["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let body_dry = check_dry_run("DeleteOptions", list.into_iter())?;
        let query_dry = check_dry_run("DeleteOptions", context.query.all("dryRun"))?;
        let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        let orphan = options["orphanDependents"].as_bool();
        Self {
            grace_seconds: options["gracePeriodSeconds"].as_i64(),
            uid: text(&options["preconditions"]["uid"]),
            resource_version: text(&options["preconditions"]["resourceVersion"]),
            dry_run: body_dry || query_dry,
            ..Self::default()
        }
        .with_propagation(options["propagationPolicy"].as_str(), orphan)
    }

    fn with_propagation(mut self, policy: Option<&str>, orphan: Option<bool>) -> ApiResult<Self> {
        let refuse = |reason: &str, message: String| {
            Err(ApiError::invalid_option("DeleteOptions", Cause::new(reason, "propagationPolicy", message)))
        };
        if policy.is_some() && orphan.is_some() {
            let message = "Invalid value: orphanDependents and propagationPolicy cannot be both set";
            return refuse("FieldValueInvalid", message.to_owned());
        }
        self.propagation = match policy {
            None | Some("") => orphan.map(|o| if o { Propagation::Orphan } else { Propagation::Background }),
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let message = format!(
                    "Unsupported value: \"{other}\": supported values: \"Background\", \"Foreground\", \"Orphan\""
                );
                return refuse("FieldValueNotSupported", message);
            }
        };
        // A negative grace period means the least one.
        self.grace_seconds = self.grace_seconds.map(|s| if s < 0 { 1 } else { s });
        Ok(self)
    }
}
