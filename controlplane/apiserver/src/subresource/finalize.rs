//! `namespaces/finalize`: the list of what still has to be emptied before a namespace goes.

use serde_json::Value;

use crate::context::Context;
use crate::meta;
use crate::respond::HttpResponse;
use crate::rest::Target;
use crate::rest::update::{Part, write};
use crate::state::State;
use crate::status::ApiResult;
use crate::subresource::{Change, approval};

/// Answers `update`.
pub async fn put(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("UpdateOptions")?;
    let change = Change::read(context, target, &options)?;
    let settle = |current: &Value| {
        let asked = change.apply(context, target, &options, current)?;
        let mut new = current.clone();
        approval::carry_version(&mut new, &asked);
        let spec = meta::member(&mut new, "spec");
        match asked["spec"]["finalizers"].as_array().filter(|f| !f.is_empty()) {
            Some(list) => spec.insert("finalizers".into(), list.clone().into()),
            None => spec.shift_remove("finalizers"),
        };
        Ok(new)
    };
    write(state, context, target, &options, Part::Settled, settle).await?.answer(context, target)
}
