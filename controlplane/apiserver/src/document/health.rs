//! `/healthz`, `/livez`, `/readyz`: named checks, each addressable, listed with `?verbose` or when one fails.

use std::sync::atomic::Ordering;

use http::StatusCode;

use crate::context::Context;
use crate::respond::{self, HttpResponse};
use crate::state::State;

type Check = (&'static str, fn(&State) -> Result<(), String>);

/// Checks that say the process works.
const LIVE: [Check; 3] = [("ping", |_| Ok(())), ("log", |_| Ok(())), ("storage", storage)];
/// Checks that say it may be sent requests.
const READY: [Check; 5] = [
    ("ping", |_| Ok(())),
    ("log", |_| Ok(())),
    ("storage", storage),
    ("poststarthook/bootstrap-objects", bootstrapped),
    ("shutdown", not_draining),
];

fn storage(state: &State) -> Result<(), String> {
    match state.store.cache().revision().0 {
        0 => Err("the watch cache has not read the store".to_owned()),
        _ => Ok(()),
    }
}

fn bootstrapped(state: &State) -> Result<(), String> {
    match state.bootstrapped.load(Ordering::Acquire) {
        true => Ok(()),
        false => Err("not finished".to_owned()),
    }
}

fn not_draining(state: &State) -> Result<(), String> {
    match state.drain.is_cancelled() {
        true => Err("process is shutting down".to_owned()),
        false => Ok(()),
    }
}

/// Answers health paths; `None` for any other.
pub fn handle(state: &State, context: &Context, path: &str) -> Option<HttpResponse> {
    let (name, checks): (&str, &[Check]) = if path.starts_with("/readyz") {
        ("readyz", &READY)
    } else if path.starts_with("/livez") {
        ("livez", &LIVE)
    } else if path.starts_with("/healthz") {
        ("healthz", &READY)
    } else {
        return None;
    };
    let one = path.strip_prefix(&format!("/{name}"))?;
    if let Some(wanted) = one.strip_prefix('/') {
        let found = checks.iter().find(|(check, _)| *check == wanted);
        return Some(match found.map(|(_, check)| check(state)) {
            None => respond::page_not_found(),
            Some(Ok(())) => respond::text(StatusCode::OK, "ok"),
            Some(Err(why)) => {
                respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
            }
        });
    }
    one.is_empty().then(|| report(state, context, name, checks))
}

fn report(state: &State, context: &Context, name: &str, checks: &[Check]) -> HttpResponse {
    let excluded: Vec<&str> = context.query.all("exclude").collect();
    let mut failed = false;
    let mut lines = String::new();
    for (check, run) in checks {
        if excluded.contains(check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
            continue;
        }
        match run(state) {
            Ok(()) => lines.push_str(&format!("[+]{check} ok\n")),
            Err(why) => {
                failed = true;
                tracing::warn!(check, why, "a health check fails");
                lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
            }
        }
    }
    if failed {
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n"));
    }
    if context.query.get("verbose").is_some() {
        return respond::text(StatusCode::OK, format!("{lines}{name} check passed\n"));
    }
    respond::text(StatusCode::OK, "ok")
}
