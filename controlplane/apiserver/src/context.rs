//! One request on its way through the stages: what it asks (`info`, `query`), who asks (`user`), how the answer is to
//! look, and the warnings collected on the way.

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use skep_registry::FieldValidation;

use crate::media::Negotiated;
use crate::request_info::{Query, RequestInfo};
use crate::status::{ApiError, ApiResult, Cause};
use crate::user::UserInfo;

/// A request after authentication.
pub struct Context {
    /// HTTP method.
    pub method: http::Method,
    /// What the path means.
    pub info: RequestInfo,
    /// Query parameters.
    pub query: Query,
    /// Request headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub user: UserInfo,
    /// Shape and encoding of the answer.
    pub accept: Negotiated,
    /// Request body.
    pub body: Bytes,
    warnings: Mutex<Vec<String>>,
}

/// Parameters shared by all writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but commit.
    pub dry_run: bool,
    /// Treatment of unknown and duplicate fields.
    pub validation: FieldValidation,
    /// Who manages the fields written, for managedFields.
    pub manager: String,
    /// The object already says who manages its fields (an apply).
    pub managed: bool,
}

impl Context {
    /// A context without body.
    pub fn new(
        method: http::Method,
        info: RequestInfo,
        query: Query,
        headers: HeaderMap,
        user: UserInfo,
    ) -> Self {
        let warnings = Mutex::default();
        let accept = Negotiated::default();
        Self { method, info, query, headers, user, accept, body: Bytes::new(), warnings }
    }

    /// Adds a warning to the answer; repeated ones are said once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }

    /// The first value of a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Checks and reads the parameters of a write; `kind` names the options in errors.
    pub fn write_options(&self, kind: &'static str) -> ApiResult<WriteOptions> {
        let dry_runs: Vec<&str> = self.query.all("dryRun").collect();
        let dry_run = check_dry_run(kind, dry_runs.iter().copied())?;
        let validation = match self.query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let message = format!(
                    "Unsupported value: \"{other}\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
                );
                return Err(ApiError::invalid_option(
                    kind,
                    Cause::new("FieldValueNotSupported", "fieldValidation", message),
                ));
            }
        };
        let manager = self.query.text("fieldManager").map_or_else(|| self.agent(), str::to_owned);
        if manager.len() > 128 {
            let message = "Too long: may not be more than 128 bytes";
            return Err(ApiError::invalid_option(
                kind,
                Cause::new("FieldValueTooLong", "fieldManager", message),
            ));
        }
        if let Some(bad) = manager.chars().find(|c| c.is_control()) {
            let message = format!(
                "Invalid value: {manager:?}: should only contain printable characters (at position {})",
                manager.find(bad).unwrap_or_default()
            );
            return Err(ApiError::invalid_option(
                kind,
                Cause::new("FieldValueInvalid", "fieldManager", message),
            ));
        }
        Ok(WriteOptions { dry_run, validation, manager, managed: false })
    }

    /// The client program's name, from its User-Agent.
    fn agent(&self) -> String {
        let agent = self.header("user-agent").unwrap_or_default();
        agent.split('/').next().unwrap_or_default().chars().take(128).collect()
    }
}

/// Whether the dry-run values ask for one; anything but `All` is refused.
pub fn check_dry_run<'a>(kind: &'static str, values: impl Iterator<Item = &'a str>) -> ApiResult<bool> {
    let mut dry_run = false;
    for value in values {
        if value != "All" {
            let message = format!("Unsupported value: [\"{value}\"]: supported values: \"All\"");
            return Err(ApiError::invalid_option(
                kind,
                Cause::new("FieldValueNotSupported", "dryRun", message),
            ));
        }
        dry_run = true;
    }
    Ok(dry_run)
}
