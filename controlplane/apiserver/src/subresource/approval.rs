//! `certificatesigningrequests/approval`: the conditions Approved and Denied, nothing else.

use serde_json::Value;

use crate::context::Context;
use crate::meta;
use crate::respond::HttpResponse;
use crate::rest::update::{Part, write};
use crate::rest::{Target, invalid};
use crate::state::State;
use crate::status::ApiResult;
use crate::subresource::Change;

/// Answers `update` and `patch`.
pub async fn change(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("UpdateOptions")?;
    let change = Change::read(context, target, &options)?;
    let settle = |current: &Value| {
        let asked = change.apply(context, target, &options, current)?;
        let mut new = current.clone();
        carry_version(&mut new, &asked);
        new["status"]["conditions"] =
            merged(&asked["status"]["conditions"], &current["status"]["conditions"]);
        if new["status"]["conditions"].is_null() {
            meta::member(&mut new, "status").shift_remove("conditions");
        }
        invalid(&target.resource, target.name(), target.resource.validate_status_update(&new, current))?;
        Ok(new)
    };
    write(state, context, target, &options, Part::Settled, settle).await?.answer(context, target)
}

/// The version a client names must reach the conflict check.
pub fn carry_version(new: &mut Value, asked: &Value) {
    meta::set(new, "resourceVersion", meta::text(asked, "resourceVersion"));
}

fn merged(asked: &Value, current: &Value) -> Value {
    let now = meta::now();
    let mut list = asked.as_array().cloned().unwrap_or_default();
    // A failure is the signer's to report.
    list.retain(|c| c["type"] != "Failed");
    list.extend(current.as_array().into_iter().flatten().filter(|c| c["type"] == "Failed").cloned());
    for condition in &mut list {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition[field].is_null() {
                condition[field] = now.clone().into();
            }
        }
    }
    if list.is_empty() { Value::Null } else { list.into() }
}
