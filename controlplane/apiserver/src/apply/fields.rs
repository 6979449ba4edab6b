//! Sets of fields: a tree of steps whose marked nodes are members, and its `FieldsV1` form.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// One step into an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Member of an object.
    Field(String),
    /// Item of a list that is told by key fields, as their JSON.
    Key(String),
    /// Item of a set, as its JSON.
    Value(String),
    /// Item by place.
    Index(usize),
}

impl Step {
    fn write(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key) => format!("k:{key}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => Some(Self::Key(canonical(rest)?)),
            "v" => Some(Self::Value(canonical(rest)?)),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

/// JSON with members in order, so that equal keys are equal texts.
fn canonical(text: &str) -> Option<String> {
    serde_json::from_str::<BTreeMap<String, Value>>(text)
        .map(|map| json!(map).to_string())
        .or_else(|_scalar| serde_json::from_str::<Value>(text).map(|v| v.to_string()))
        .ok()
}

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    member: bool,
    children: BTreeMap<Step, FieldSet>,
}

impl FieldSet {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Whether the place itself is a member.
    pub fn is_member(&self) -> bool {
        self.member
    }

    /// Makes the place itself a member.
    pub fn mark(&mut self) {
        self.member = true;
    }

    /// The place below, made when it is not there.
    pub fn below(&mut self, step: Step) -> &mut Self {
        self.children.entry(step).or_default()
    }

    /// The places below.
    pub fn children(&self) -> impl Iterator<Item = (&Step, &Self)> {
        self.children.iter()
    }

    /// The place below, if there is one.
    pub fn get(&self, step: &Step) -> Option<&Self> {
        self.children.get(step)
    }

    /// Removes a place below with everything in it.
    pub fn cut(&mut self, step: &Step) {
        self.children.remove(step);
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = |(step, own): (&Step, &Self)| {
            let common = own.intersection(other.children.get(step)?);
            (!common.is_empty()).then(|| (step.clone(), common))
        };
        Self {
            member: self.member && other.member,
            children: self.children.iter().filter_map(both).collect(),
        }
    }

    /// What is in this one only.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let own = |(step, own): (&Step, &Self)| {
            let left = match other.children.get(step) {
                Some(other) => own.difference(other),
                None => own.clone(),
            };
            (!left.is_empty()).then(|| (step.clone(), left))
        };
        Self {
            member: self.member && !other.member,
            children: self.children.iter().filter_map(own).collect(),
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.member |= other.member;
        for (step, theirs) in &other.children {
            let merged = out.children.get(step).map_or_else(|| theirs.clone(), |own| own.union(theirs));
            out.children.insert(step.clone(), merged);
        }
        out
    }

    /// Paths of all members, as conflicts name them.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(String::new(), &mut out);
        out
    }

    fn collect(&self, at: String, out: &mut Vec<String>) {
        for (step, below) in &self.children {
            let here = match step {
                Step::Field(name) => format!("{at}.{name}"),
                Step::Key(key) => format!("{at}[{}]", spoken(key)),
                Step::Value(value) => format!("{at}[={value}]"),
                Step::Index(index) => format!("{at}[{index}]"),
            };
            if below.member {
                out.push(here.clone());
            }
            below.collect(here, out);
        }
    }

    /// The `fieldsV1` object.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        if self.member && !self.children.is_empty() {
            out.insert(".".into(), json!({}));
        }
        for (step, below) in &self.children {
            out.insert(step.write(), below.to_value());
        }
        Value::Object(out)
    }

    /// Reads a `fieldsV1` object; steps that mean nothing are left out.
    pub fn read(value: &Value) -> Self {
        let mut set = Self::read_place(value);
        set.member = false;
        set
    }

    fn read_place(value: &Value) -> Self {
        let Some(members) = value.as_object() else { return Self::default() };
        let below = members.iter().filter_map(|(k, v)| Some((Step::read(k)?, Self::read_place(v))));
        Self { member: members.is_empty() || members.contains_key("."), children: below.collect() }
    }
}

fn spoken(key: &str) -> String {
    let fields: BTreeMap<String, Value> = serde_json::from_str(key).unwrap_or_default();
    fields.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}
