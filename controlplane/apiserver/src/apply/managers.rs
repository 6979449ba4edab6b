//! The list in `metadata.managedFields`: one entry for each manager, operation, version and subresource.

use serde_json::{Value, json};

use crate::apply::Conflict;
use crate::apply::fields::FieldSet;

/// What tells managers apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// Version its fields are named in.
    pub api_version: String,
    /// Subresource it wrote through.
    pub subresource: Option<String>,
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub identity: Identity,
    /// When it last changed something.
    pub time: Option<String>,
    /// What it owns.
    pub set: FieldSet,
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers(Vec<Entry>);

impl Managers {
    /// Reads the list; when an entry is malformed, nothing is known.
    pub fn read(list: &Value) -> Self {
        let entries = list.as_array().into_iter().flatten().map(read_entry);
        Self(entries.collect::<Option<Vec<_>>>().unwrap_or_default())
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list as JSON, `Null` when it is empty.
    pub fn to_value(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let mut entries: Vec<&Entry> = self.0.iter().collect();
        entries.sort_by(|a, b| order(a).cmp(&order(b)));
        entries.into_iter().map(write_entry).collect()
    }

    /// What a manager owns.
    pub fn set_of(&self, identity: &Identity) -> FieldSet {
        self.find(identity).map(|e| e.set.clone()).unwrap_or_default()
    }

    /// When a manager last changed something.
    pub fn time_of(&self, identity: &Identity) -> Option<String> {
        self.find(identity).and_then(|e| e.time.clone())
    }

    fn find(&self, identity: &Identity) -> Option<&Entry> {
        self.0.iter().find(|e| e.identity == *identity)
    }

    /// Everybody else.
    pub fn others(&self, identity: &Identity) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |e| e.identity != *identity)
    }

    /// Replaces a manager's entry; an empty one goes.
    pub fn put(&mut self, entry: Entry) {
        self.0.retain(|e| e.identity != entry.identity);
        if !entry.set.is_empty() {
            self.0.push(entry);
        }
    }

    /// Fields of others among those that would change.
    pub fn conflicts(&self, identity: &Identity, changed: &FieldSet) -> Vec<Conflict> {
        self.others(identity)
            .flat_map(|e| {
                let paths = e.set.intersection(changed).paths();
                paths.into_iter().map(|field| Conflict { manager: e.identity.manager.clone(), field })
            })
            .collect()
    }

    /// Takes the changed fields away from everybody else.
    pub fn take_over(&mut self, identity: &Identity, changed: &FieldSet) {
        for entry in self.0.iter_mut().filter(|e| e.identity != *identity) {
            entry.set = entry.set.difference(changed);
        }
        self.0.retain(|e| !e.set.is_empty());
    }

    /// An update changed these fields and removed those.
    pub fn update(&mut self, identity: &Identity, changed: &FieldSet, gone: &FieldSet, now: &str) {
        if changed.is_empty() && gone.is_empty() {
            return;
        }
        self.take_over(identity, &changed.union(gone));
        let set = self.set_of(identity).union(changed).difference(gone);
        self.put(Entry { identity: identity.clone(), time: Some(now.to_owned()), set });
    }
}

fn order(entry: &Entry) -> (bool, &str, &str) {
    (entry.identity.operation != "Apply", entry.time.as_deref().unwrap_or_default(), &entry.identity.manager)
}

fn read_entry(entry: &Value) -> Option<Entry> {
    let text = |key: &str| entry[key].as_str().map(str::to_owned);
    let operation = text("operation").filter(|o| matches!(o.as_str(), "Apply" | "Update"))?;
    if entry["fieldsType"] != "FieldsV1" {
        return None;
    }
    let identity = Identity {
        manager: text("manager").unwrap_or_default(),
        operation,
        api_version: text("apiVersion").filter(|v| !v.is_empty())?,
        subresource: text("subresource").filter(|s| !s.is_empty()),
    };
    Some(Entry { identity, time: text("time"), set: FieldSet::read(&entry["fieldsV1"]) })
}

fn write_entry(entry: &Entry) -> Value {
    let mut out = json!({
        "manager": entry.identity.manager,
        "operation": entry.identity.operation,
        "apiVersion": entry.identity.api_version,
    });
    if let Some(time) = &entry.time {
        out["time"] = time.clone().into();
    }
    out["fieldsType"] = "FieldsV1".into();
    out["fieldsV1"] = entry.set.to_value();
    if let Some(subresource) = &entry.identity.subresource {
        out["subresource"] = subresource.clone().into();
    }
    out
}
