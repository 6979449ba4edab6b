//! Pages of a list, at the current revision or an older one.
//!
//! An older state is the current one with the events since then undone. Only the keys those events touched are
//! looked at twice, so a page costs the events since its revision plus its own length.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::state::{Names, Shelf};
use crate::{Key, Object, Revision};

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The revision it shows; continue tokens and watches go on from here.
    pub revision: Revision,
    /// The objects in order of namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// How many objects follow this page.
    pub remaining: usize,
}

/// A place in the order: namespace, then name.
type Place<'a> = (Option<&'a str>, &'a str);

pub(super) fn page(
    shelf: &Shelf,
    namespace: Option<&str>,
    revision: Revision,
    after: Option<&Key>,
    limit: Option<usize>,
) -> Page {
    let undone = undo(shelf, namespace, revision, after);
    let mut all =
        Merge { current: current(shelf, namespace, after).peekable(), undone: undone.into_iter().peekable() };
    let objects: Vec<_> = all.by_ref().take(limit.unwrap_or(usize::MAX)).cloned().collect();
    let remaining = if limit.is_some() { all.count() } else { 0 };
    Page { revision, objects, remaining }
}

/// What the keys changed since `revision` were then; `None` where they did not exist.
fn undo<'a>(
    shelf: &'a Shelf,
    namespace: Option<&str>,
    revision: Revision,
    after: Option<&Key>,
) -> BTreeMap<Place<'a>, Option<&'a Arc<Object>>> {
    let mut undone = BTreeMap::new();
    for event in shelf.since(revision) {
        let key = event.object.key();
        let wanted = namespace.is_none() || key.namespace() == namespace;
        if wanted && after.is_none_or(|after| place(key) > place(after)) {
            undone.entry(place(key)).or_insert(event.previous.as_ref());
        }
    }
    undone
}

fn place(key: &Key) -> Place<'_> {
    (key.namespace(), key.name())
}

/// The current objects behind `after`, in order.
fn current<'a>(
    shelf: &'a Shelf,
    namespace: Option<&'a str>,
    after: Option<&'a Key>,
) -> impl Iterator<Item = &'a Arc<Object>> {
    // A namespaced list touches that namespace's map alone.
    let first = match (namespace, after) {
        (Some(namespace), _) => Bound::Included(Some(Arc::from(namespace))),
        (None, Some(after)) => Bound::Included(after.namespace_arc().clone()),
        (None, None) => Bound::Unbounded,
    };
    let last = match namespace {
        Some(namespace) => Bound::Included(Some(Arc::from(namespace))),
        None => Bound::Unbounded,
    };
    let maps = shelf.namespaces.range((first, last));
    maps.flat_map(move |(name, objects)| behind(name.as_deref(), objects, after))
}

fn behind<'a>(
    namespace: Option<&str>,
    objects: &'a Names,
    after: Option<&'a Key>,
) -> impl Iterator<Item = &'a Arc<Object>> {
    let start = match after {
        Some(after) => match namespace.cmp(&after.namespace()) {
            Ordering::Less => Bound::Excluded(LAST),
            Ordering::Equal => Bound::Excluded(after.name()),
            Ordering::Greater => Bound::Unbounded,
        },
        None => Bound::Unbounded,
    };
    objects.range::<str, _>((start, Bound::Unbounded)).map(|(_, object)| object)
}

/// Behind every name.
const LAST: &str = "\u{10ffff}";

/// Two ordered sequences as one; where both have a place the undone state counts.
struct Merge<
    'a,
    C: Iterator<Item = &'a Arc<Object>>,
    U: Iterator<Item = (Place<'a>, Option<&'a Arc<Object>>)>,
> {
    current: std::iter::Peekable<C>,
    undone: std::iter::Peekable<U>,
}

impl<'a, C, U> Iterator for Merge<'a, C, U>
where
    C: Iterator<Item = &'a Arc<Object>>,
    U: Iterator<Item = (Place<'a>, Option<&'a Arc<Object>>)>,
{
    type Item = &'a Arc<Object>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.current.peek(), self.undone.peek()) {
                (_, None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(object), Some((then, _))) => place(object.key()).cmp(then),
            };
            if order == Ordering::Less {
                return self.current.next();
            }
            if order == Ordering::Equal {
                self.current.next();
            }
            if let Some((_, Some(object))) = self.undone.next() {
                return Some(object);
            }
        }
    }
}
