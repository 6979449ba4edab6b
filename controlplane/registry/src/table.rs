//! Reads the embedded tables of resource names (`tables/resources.txt`) and table columns (`tables/columns.txt`).

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::row::Column;

static RESOURCES: &str = include_str!("../tables/resources.txt");
static COLUMNS: &str = include_str!("../tables/columns.txt");

/// The names and verbs of one built-in resource.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) short_names: Vec<&'static str>,
    pub(crate) categories: Vec<&'static str>,
    pub(crate) verbs: Vec<&'static str>,
    pub(crate) subresources: Vec<SubEntry>,
}

/// The kind and verbs of one subresource; empty group and version mean the resource's own.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubEntry {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) verbs: Vec<&'static str>,
}

/// All built-in resources in discovery's order.
pub(crate) fn resources() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut group, mut version) = ("", "");
    for line in RESOURCES.lines() {
        if let Some(gv) = line.strip_prefix('@') {
            (group, version) = gv.split_once('/').unwrap_or(("", gv));
        } else if let Some(sub) = line.strip_prefix('/') {
            if let Some(entry) = entries.last_mut() {
                entry.subresources.push(subresource(sub));
            }
        } else {
            entries.push(resource(group, version, line));
        }
    }
    entries
}

fn resource(group: &'static str, version: &'static str, line: &'static str) -> Entry {
    let mut words = line.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (plural, singular, kind, scope) = (next(), next(), next(), next());
    Entry {
        group,
        version,
        plural,
        singular,
        kind,
        namespaced: scope == "Namespaced",
        short_names: list(next()),
        categories: list(next()),
        verbs: list(next()),
        subresources: Vec::new(),
    }
}

fn subresource(line: &'static str) -> SubEntry {
    let mut words = line.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (name, gvk, verbs) = (next(), next(), next());
    let mut parts = gvk.split('/');
    let mut part = || parts.next().unwrap_or_default();
    SubEntry { name, group: part(), version: part(), kind: part(), verbs: list(verbs) }
}

/// The items of `name=a,b`.
fn list(word: &'static str) -> Vec<&'static str> {
    let items = word.split_once('=').map_or("", |(_, items)| items);
    items.split(',').filter(|i| !i.is_empty()).collect()
}

static BY_RESOURCE: LazyLock<HashMap<&'static str, Vec<Column>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<Column>> = HashMap::new();
    let mut current = "";
    for line in COLUMNS.lines() {
        match line.strip_prefix('@') {
            Some(key) => current = key,
            None => all.entry(current).or_default().push(column(line)),
        }
    }
    all
});

fn column(line: &str) -> Column {
    let mut parts = line.split(';');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (name, kind, format) = (next(), next(), next());
    Column { name, kind, format, priority: next().parse().unwrap_or(0), description: String::new() }
}

/// The table columns of a built-in resource, if it has some of its own.
pub(crate) fn columns(group: &str, version: &str, plural: &str) -> Option<Vec<Column>> {
    let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
    BY_RESOURCE.get(format!("{prefix}{version}/{plural}").as_str()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_verbs_and_subresources() {
        let all = resources();
        let pods = all.iter().find(|e| e.plural == "pods").unwrap();
        assert_eq!((pods.kind, pods.namespaced, &pods.short_names[..]), ("Pod", true, &["po"][..]));
        let eviction = pods.subresources.iter().find(|s| s.name == "eviction").unwrap();
        assert_eq!((eviction.group, eviction.kind), ("policy", "Eviction"));
        let scale = all.iter().find(|e| e.plural == "deployments").unwrap();
        assert!(scale.subresources.iter().any(|s| s.name == "scale" && s.kind == "Scale"));
    }

    #[test]
    fn reads_columns() {
        let pods = columns("", "v1", "pods").unwrap();
        assert_eq!(pods[0].name, "Name");
        assert!(columns("apps", "v1", "deployments").is_some());
    }
}
