//! Custom resources: what a CustomResourceDefinition says, as resources of the registry.
//!
//! A structural schema acts in three steps on each write: [`prune`] drops what it does not name, [`default`] fills
//! in what is absent, [`validate`] refuses what is left and wrong. [`column`] reads printer columns.

mod column;
mod default;
mod prune;
mod validate;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    conversion::Conversion,
    decode::{DecodeError, FieldValidation},
    error::Errors,
    field::{at, flag, items, text},
    registry::InstallError,
    resource::{Behaviour, Resource, StorageId, Subresource},
    row::{self, Column},
    schema::{self, GroupVersionKind},
};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// One version of a custom resource.
pub(crate) struct Custom {
    version: Value,
    columns: Vec<column::Cell>,
    patterns: validate::Patterns,
}

/// The resources that a definition serves.
pub(crate) fn resources(definition: &Value) -> Result<Vec<Resource>, InstallError> {
    let names = at(definition, &["spec", "names"]).ok_or(InstallError::Incomplete("spec.names"))?;
    let group = present(definition, &["spec", "group"], "spec.group")?;
    let kind = present(names, &["kind"], "spec.names.kind")?;
    let plural = present(names, &["plural"], "spec.names.plural")?;
    let versions = items(definition, &["spec", "versions"]);
    let storage = versions
        .iter()
        .find(|version| flag(version, &["storage"]))
        .ok_or(InstallError::Incomplete("a version with storage: true"))?;
    let storage_version = GroupVersionKind::new(group, text(storage, &["name"]), kind).api_version();
    let served = versions.iter().filter(|version| flag(version, &["served"]));
    Ok(served
        .map(|version| {
            let gvk = GroupVersionKind::new(group, text(version, &["name"]), kind);
            resource(names, plural, gvk, &storage_version, version, text(definition, &["spec", "scope"]))
        })
        .collect())
}

fn resource(
    names: &Value,
    plural: &str,
    gvk: GroupVersionKind,
    storage_version: &str,
    version: &Value,
    scope: &str,
) -> Resource {
    let or = |name: &str, otherwise: String| match text(names, &[name]) {
        "" => otherwise.into(),
        given => given.into(),
    };
    let list = |name: &str| items(names, &[name]).iter().filter_map(Value::as_str).map(Into::into).collect();
    let custom = Custom::new(version.clone());
    let conversion =
        if gvk.api_version() == storage_version { Conversion::Identity } else { Conversion::ApiVersion };
    Resource {
        list_kind: or("listKind", format!("{}List", gvk.kind)),
        singular: or("singular", gvk.kind.to_lowercase()),
        short_names: list("shortNames"),
        categories: list("categories"),
        plural: plural.into(),
        namespaced: scope == "Namespaced",
        verbs: VERBS.into_iter().map(Into::into).collect(),
        subresources: subresources(version, &gvk),
        storage_id: StorageId { group: gvk.group.clone(), resource: plural.into() },
        storage_version: storage_version.into(),
        builtin: false,
        schema: schema::custom::schema(custom.published_schema(), gvk.clone()),
        columns: custom.table_columns(),
        conversion,
        behaviour: Behaviour::Custom(Box::new(custom)),
        group: gvk.group,
        version: gvk.version,
        kind: gvk.kind,
    }
}

fn subresources(version: &Value, gvk: &GroupVersionKind) -> Vec<Subresource> {
    let scale = GroupVersionKind::new("autoscaling", "v1", "Scale");
    [("status", gvk.clone()), ("scale", scale)]
        .into_iter()
        .filter(|(name, _)| at(version, &["subresources", name]).is_some())
        .map(|(name, gvk)| Subresource {
            name: name.into(),
            gvk,
            verbs: SUBRESOURCE_VERBS.into_iter().map(Into::into).collect(),
        })
        .collect()
}

fn present<'a>(value: &'a Value, path: &[&str], name: &'static str) -> Result<&'a str, InstallError> {
    match text(value, path) {
        "" => Err(InstallError::Incomplete(name)),
        text => Ok(text),
    }
}

/// Sorts versions: stable before beta before alpha, newest first, others last by name.
pub(crate) fn version_order(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>, String) {
    use std::cmp::Reverse;
    let other = || (3, Reverse(0), Reverse(0), version.to_owned());
    let Some(rest) = version.strip_prefix('v') else { return other() };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, stage) = rest.split_at(end);
    let Ok(major) = major.parse::<u32>() else { return other() };
    let staged = |rank, digits: &str| match digits.parse::<u32>() {
        Ok(minor) => (rank, Reverse(major), Reverse(minor), String::new()),
        Err(_) => other(),
    };
    if stage.is_empty() {
        (0, Reverse(major), Reverse(0), String::new())
    } else if let Some(minor) = stage.strip_prefix("beta") {
        staged(1, minor)
    } else if let Some(minor) = stage.strip_prefix("alpha") {
        staged(2, minor)
    } else {
        other()
    }
}

impl Custom {
    fn new(version: Value) -> Self {
        let columns = items(&version, &["additionalPrinterColumns"]).iter().map(column::Cell::new).collect();
        let patterns = validate::Patterns::of(at(&version, &["schema", "openAPIV3Schema"]));
        Self { version, columns, patterns }
    }

    pub(crate) fn decode(
        &self,
        gvk: &GroupVersionKind,
        mut value: Value,
        mut found: Vec<String>,
        mode: FieldValidation,
    ) -> Result<(Value, Vec<String>), DecodeError> {
        crate::decode::expect_kind(&mut value, gvk)?;
        let unknown = prune::prune(&mut value, self.published_schema()).map_err(|detail| {
            DecodeError::Type { kind: gvk.kind.to_string(), version: gvk.version.to_string(), detail }
        })?;
        found.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
        match mode {
            FieldValidation::Ignore => Ok((value, Vec::new())),
            FieldValidation::Strict if !found.is_empty() => Err(DecodeError::Strict(found)),
            _ => Ok((value, found)),
        }
    }

    pub(crate) fn default(&self, object: &mut Value) {
        if let Some(schema) = self.published_schema() {
            default::fill(object, schema);
        }
    }

    pub(crate) fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        if let Some(schema) = self.published_schema() {
            validate::validate(object, schema, &self.patterns, errors);
        }
    }

    pub(crate) fn selectable_fields(&self, object: &Value) -> BTreeMap<String, String> {
        self.selectable()
            .map(|field| {
                let path: Vec<_> = field.split('.').collect();
                let value = match at(object, &path) {
                    Some(Value::String(text)) => text.clone(),
                    Some(value) => value.to_string(),
                    None => String::new(),
                };
                (field.to_owned(), value)
            })
            .collect()
    }

    pub(crate) fn is_selectable(&self, field: &str) -> bool {
        self.selectable().any(|known| known == field)
    }

    fn selectable(&self) -> impl Iterator<Item = &str> {
        items(&self.version, &["selectableFields"])
            .iter()
            .map(|field| text(field, &["jsonPath"]).trim_start_matches('.'))
    }

    fn table_columns(&self) -> Vec<Column> {
        let name = Column::new("Name", "string", "name");
        if self.columns.is_empty() {
            return vec![name, Column::new("Age", "date", "")];
        }
        std::iter::once(name).chain(self.columns.iter().map(|cell| cell.column.clone())).collect()
    }

    pub(crate) fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        if self.columns.is_empty() {
            return vec![row::name(object), row::age(object, now)];
        }
        std::iter::once(row::name(object))
            .chain(self.columns.iter().map(|cell| cell.read(object, now)))
            .collect()
    }

    pub(crate) fn has_status(&self) -> bool {
        at(&self.version, &["subresources", "status"]).is_some()
    }

    pub(crate) fn scale(&self) -> Option<&Value> {
        at(&self.version, &["subresources", "scale"])
    }

    /// The schema as its author wrote it.
    pub(crate) fn published_schema(&self) -> Option<&Value> {
        at(&self.version, &["schema", "openAPIV3Schema"])
    }
}

#[cfg(test)]
mod tests;
