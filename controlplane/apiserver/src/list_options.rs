//! The parameters of lists and watches: selectors, paging, versions; parsed and checked once, with upstream's refusals.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use skep_registry::Resource;
use skep_storage::{Key, Object, Revision};

use crate::context::Context;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{ApiError, ApiResult, Cause};
use crate::store;

/// Which version a list may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The newest there is.
    Newest,
    /// Whatever the cache holds.
    Any,
    /// That version or a newer one.
    NotOlderThan(Revision),
    /// That version alone.
    Exact(Revision),
}

/// What to list or watch.
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// Labels to match.
    pub labels: LabelSelector,
    /// Fields to match.
    pub fields: FieldSelector,
    /// Version wanted.
    pub freshness: Freshness,
    /// Page size.
    pub limit: Option<usize>,
    /// Where the page begins.
    pub continued: Option<Continue>,
    /// End of a watch.
    pub timeout_seconds: Option<u64>,
    /// Whether a watch may send bookmarks.
    pub bookmarks: bool,
    /// Whether a watch begins with the present objects.
    pub initial_events: Option<bool>,
}

/// The content of a continue token: version of the list and the last object sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    /// Version of the first page.
    #[serde(rename = "rv")]
    pub revision: u64,
    /// Namespace of the last object.
    #[serde(rename = "ns", default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the last object.
    #[serde(rename = "start")]
    pub name: String,
}

impl Continue {
    /// The token after an object of a list at a revision.
    pub fn after(object: &Object, revision: Revision) -> String {
        let key = object.key();
        let token = Self {
            revision: revision.0,
            namespace: key.namespace().map(str::to_owned),
            name: key.name().to_owned(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn parse(text: &str) -> ApiResult<Self> {
        let refused = || ApiError::bad_request("continue key is not valid: it was not issued by this server");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_broken| refused())?;
        serde_json::from_slice(&bytes).map_err(|_broken| refused())
    }

    /// The key behind which the page begins.
    pub fn key(&self, resource: &Resource) -> ApiResult<Key> {
        store::key(resource, self.namespace.as_deref(), &self.name)
    }
}

impl ListOptions {
    /// Reads and checks the query for a resource.
    pub fn read(context: &Context, resource: &Resource, watch: bool) -> ApiResult<Self> {
        let query = &context.query;
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let mut fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        if let Some(unknown) = fields.0.iter().find(|t| !resource.is_selectable(&t.field)) {
            let message = format!("field label not supported: {}", unknown.field);
            return Err(ApiError::bad_request(message));
        }
        if let Some(name) = &context.info.name {
            let term = crate::selector::FieldTerm {
                field: "metadata.name".into(),
                value: name.clone(),
                equal: true,
            };
            fields.0.push(term);
        }
        let limit = number(context, "limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let continued = query.text("continue").map(Continue::parse).transpose()?;
        let initial_events = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let freshness = freshness(context, watch, initial_events, continued.is_some())?;
        Ok(Self {
            labels,
            fields,
            freshness,
            limit: limit.filter(|_| !watch),
            continued: continued.filter(|_| !watch),
            timeout_seconds: number(context, "timeoutSeconds")?
                .and_then(|n| u64::try_from(n).ok())
                .filter(|n| *n > 0),
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events,
        })
    }

    /// Whether the selectors accept an object.
    pub fn matches(&self, object: &Object) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return true;
        }
        let attributes = object.attributes();
        self.labels.matches(|key| attributes.label(key))
            && self.fields.matches(|field| attributes.field(field))
    }

    /// Whether every object is accepted.
    pub fn selects_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

fn number(context: &Context, name: &str) -> ApiResult<Option<i64>> {
    let Some(text) = context.query.text(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_not_a_number| {
        ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax for {name}"))
    })
}

fn freshness(context: &Context, watch: bool, initial: Option<bool>, continued: bool) -> ApiResult<Freshness> {
    let version = context.query.get("resourceVersion").unwrap_or_default();
    let matching = context.query.get("resourceVersionMatch").unwrap_or_default();
    let refuse = |reason: &str, field: &str, message: &str| {
        Err(ApiError::invalid_option("ListOptions", Cause::new(reason, field, message)))
    };
    if !matches!(matching, "" | "Exact" | "NotOlderThan") {
        let message =
            format!("Unsupported value: \"{matching}\": supported values: \"Exact\", \"NotOlderThan\", \"\"");
        return refuse("FieldValueNotSupported", "resourceVersionMatch", &message);
    }
    if let Some(sends) = initial {
        if !watch {
            return refuse(
                "FieldValueForbidden",
                "sendInitialEvents",
                "Forbidden: sendInitialEvents is forbidden for list",
            );
        }
        if matching != "NotOlderThan" {
            let message =
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return refuse("FieldValueForbidden", "resourceVersionMatch", message);
        }
        if sends && !context.query.flag("allowWatchBookmarks") {
            let message = "Forbidden: sendInitialEvents requires setting allowWatchBookmarks to true";
            return refuse("FieldValueForbidden", "allowWatchBookmarks", message);
        }
    } else if !matching.is_empty() {
        if watch {
            let message = "Forbidden: resourceVersionMatch is forbidden for watch";
            return refuse("FieldValueForbidden", "resourceVersionMatch", message);
        }
        if version.is_empty() {
            let message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
            return refuse("FieldValueForbidden", "resourceVersionMatch", message);
        }
        if continued {
            let message = "Forbidden: resourceVersionMatch is forbidden when continue is provided";
            return refuse("FieldValueForbidden", "resourceVersionMatch", message);
        }
        if matching == "Exact" && version == "0" {
            let message = "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            return refuse("FieldValueForbidden", "resourceVersionMatch", message);
        }
    }
    if continued && !matches!(version, "" | "0") {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(match (version, store::revision(version)?) {
        ("", _) => Freshness::Newest,
        (_, None) => Freshness::Any,
        (_, Some(revision)) if matching == "Exact" => Freshness::Exact(revision),
        (_, Some(revision)) => Freshness::NotOlderThan(revision),
    })
}
