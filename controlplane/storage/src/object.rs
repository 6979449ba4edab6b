//! One object at one revision, encoded once.
//!
//! The stored form has no resourceVersion (the revision is only known after the commit), so it is spliced in as
//! the first member of `metadata`. The same buffer is the watch frame of the change that brought the object
//! about: `json()` is a slice of it, so 1,000 watchers and all readers share one allocation.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Key, Revision};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It came into being, or into view.
    Added,
    /// It changed.
    Modified,
    /// It went, or went out of view.
    Deleted,
}

impl EventKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// What selectors look at: labels and the resource's selectable fields, each sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[(Box<str>, Box<str>)]>,
}

impl Attributes {
    /// Attributes from pairs in any order.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(
        labels: impl IntoIterator<Item = (K, V)>,
        fields: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self { labels: sorted(labels), fields: sorted(fields) }
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        find(&self.labels, name)
    }

    /// A selectable field's value.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    /// All labels, by name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (&**name, &**value))
    }

    /// All selectable fields, by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }
}

fn sorted<K: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Box<[(Box<str>, Box<str>)]> {
    let mut pairs: Vec<_> =
        pairs.into_iter().map(|(k, v)| (Box::from(k.as_ref()), Box::from(v.as_ref()))).collect();
    pairs.sort_unstable();
    pairs.into()
}

fn find<'a>(pairs: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    let at = pairs.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
    pairs.get(at).map(|(_, value)| &**value)
}

/// How to find an object's attributes in its JSON. Called at most once an object, when a selector first asks.
pub type AttributesFn = Arc<dyn Fn(&Key, &[u8]) -> Attributes + Send + Sync>;

/// For stores whose objects nobody selects.
#[must_use]
pub fn no_attributes() -> AttributesFn {
    Arc::new(|_, _| Attributes::default())
}

/// An object at one revision.
pub struct Object {
    key: Key,
    revision: Revision,
    kind: EventKind,
    frame: Bytes,
    json: Bytes,
    /// Where `"metadata"` begins in `json`; zero when the stored bytes are not in canonical form.
    metadata: usize,
    attributes: OnceLock<Attributes>,
    attributes_of: AttributesFn,
}

impl Object {
    /// Encodes a stored value as it became at `revision` through a change of `kind`.
    #[must_use]
    pub fn new(
        key: Key,
        revision: Revision,
        kind: EventKind,
        stored: &[u8],
        attributes_of: AttributesFn,
    ) -> Self {
        let body = Body::parse(stored);
        let mut frame = BytesMut::with_capacity(stored.len() + 80);
        let json = body.write_frame(&mut frame, kind, revision);
        let frame = frame.freeze();
        Self {
            key,
            revision,
            kind,
            json: frame.slice(json),
            frame,
            metadata: body.metadata,
            attributes: OnceLock::new(),
            attributes_of,
        }
    }

    /// This object's last state, deleted at `revision`.
    #[must_use]
    pub fn deleted(&self, revision: Revision) -> Self {
        let attributes_of = Arc::clone(&self.attributes_of);
        Self::new(self.key.clone(), revision, EventKind::Deleted, &self.stored(), attributes_of)
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The revision that brought this state about.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Its JSON with `metadata.resourceVersion`.
    #[must_use]
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// Its JSON without apiVersion and kind, as items of built-in lists are served. Copies; a list writer should
    /// use [`Object::write_item`].
    #[must_use]
    pub fn item(&self) -> Bytes {
        let mut item = BytesMut::with_capacity(self.json.len());
        self.write_item(&mut item);
        item.freeze()
    }

    /// Appends what [`Object::item`] returns.
    pub fn write_item(&self, out: &mut BytesMut) {
        if self.metadata > 0 {
            out.put_u8(b'{');
        }
        out.put_slice(&self.json[self.metadata..]);
    }

    /// Its value as stored, without resourceVersion.
    #[must_use]
    pub fn stored(&self) -> Bytes {
        if self.metadata == 0 {
            return self.json.clone();
        }
        let start = self.metadata + METADATA.len();
        let mut spliced = VERSION.len() + decimal_len(self.revision.0) + 1;
        if self.json.get(start + spliced) == Some(&b',') {
            spliced += 1;
        }
        let mut stored = BytesMut::with_capacity(self.json.len());
        stored.put_slice(&self.json[..start]);
        stored.put_slice(&self.json[start + spliced..]);
        stored.freeze()
    }

    /// The watch line of this object: `{"type":KIND,"object":..}` and a newline. Shared when `kind` is the kind of
    /// the change that brought the object about, a copy otherwise.
    #[must_use]
    pub fn watch_frame(&self, kind: EventKind) -> Bytes {
        if kind == self.kind {
            return self.frame.clone();
        }
        let mut frame = BytesMut::with_capacity(self.frame.len() + 8);
        open_frame(&mut frame, kind);
        frame.put_slice(&self.json);
        frame.put_slice(FRAME_END);
        frame.freeze()
    }

    /// What selectors look at.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        self.attributes.get_or_init(|| (self.attributes_of)(&self.key, &self.json))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} @ {}", self.key, self.revision)
    }
}

const FRAME_END: &[u8] = b"}\n";
const METADATA: &[u8] = b"\"metadata\":{";
const VERSION: &[u8] = b"\"resourceVersion\":\"";

fn open_frame(out: &mut BytesMut, kind: EventKind) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_str().as_bytes());
    out.put_slice(b"\",\"object\":");
}

fn decimal_len(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}

/// Stored bytes and where `"metadata"` begins in them.
struct Body<'a> {
    stored: &'a [u8],
    metadata: usize,
}

impl<'a> Body<'a> {
    /// Canonical values begin `{"apiVersion":"..","kind":"..","metadata":{`; others are served as they are.
    fn parse(stored: &'a [u8]) -> Self {
        let metadata = skip(stored, 0, b"{\"apiVersion\":\"")
            .and_then(|at| skip_string(stored, at))
            .and_then(|at| skip(stored, at, b",\"kind\":\""))
            .and_then(|at| skip_string(stored, at))
            .and_then(|at| skip(stored, at, b","))
            .filter(|at| skip(stored, *at, METADATA).is_some());
        Self { stored, metadata: metadata.unwrap_or(0) }
    }

    /// Writes the watch frame and returns where the object lies in it.
    fn write_frame(&self, out: &mut BytesMut, kind: EventKind, revision: Revision) -> Range<usize> {
        open_frame(out, kind);
        let begin = out.len();
        if self.metadata == 0 {
            out.put_slice(self.stored);
        } else {
            let (head, rest) = self.stored.split_at(self.metadata + METADATA.len());
            out.put_slice(head);
            out.put_slice(VERSION);
            out.put_slice(revision.to_string().as_bytes());
            out.put_slice(if rest.first() == Some(&b'}') { b"\"" } else { b"\"," });
            out.put_slice(rest);
        }
        let end = out.len();
        out.put_slice(FRAME_END);
        begin..end
    }
}

fn skip(bytes: &[u8], at: usize, expected: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(expected).then_some(at + expected.len())
}

/// Skips the rest of a JSON string without escapes; API versions and kinds have none.
fn skip_string(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..)?.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    (bytes[at + length] == b'"').then_some(at + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ResourceId;

    const STORED: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"x":1}}"#;

    fn object(stored: &str) -> Object {
        let key = Key::new(ResourceId::new("", "pods").unwrap(), Some("default"), "a").unwrap();
        Object::new(key, Revision(17), EventKind::Added, stored.as_bytes(), no_attributes())
    }

    #[test]
    fn splices_the_resource_version_first_into_metadata() {
        let expected = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"17","name":"a"},"spec":{"x":1}}"#;
        assert_eq!(object(STORED).json(), expected.as_bytes());
        let empty = object(r#"{"apiVersion":"v1","kind":"Pod","metadata":{}}"#);
        assert_eq!(
            empty.json(),
            &br#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"17"}}"#[..]
        );
    }

    #[test]
    fn items_leave_out_api_version_and_kind() {
        let expected = r#"{"metadata":{"resourceVersion":"17","name":"a"},"spec":{"x":1}}"#;
        assert_eq!(object(STORED).item(), expected.as_bytes());
    }

    #[test]
    fn frames_wrap_the_json_and_the_first_kind_is_shared() {
        let object = object(STORED);
        let added = object.watch_frame(EventKind::Added);
        let json = std::str::from_utf8(object.json()).unwrap();
        assert_eq!(added, format!("{{\"type\":\"ADDED\",\"object\":{json}}}\n").as_bytes());
        assert_eq!(added.as_ptr(), object.watch_frame(EventKind::Added).as_ptr());
        let gone = object.watch_frame(EventKind::Deleted);
        assert_eq!(gone, format!("{{\"type\":\"DELETED\",\"object\":{json}}}\n").as_bytes());
    }

    #[test]
    fn deleted_objects_carry_the_deletion_revision() {
        let gone = object(STORED).deleted(Revision(1234));
        assert_eq!(gone.revision(), Revision(1234));
        assert!(std::str::from_utf8(gone.json()).unwrap().contains(r#""resourceVersion":"1234","name":"a""#));
    }

    #[test]
    fn stored_bytes_come_back_unchanged() {
        for stored in
            [STORED, r#"{"apiVersion":"v1","kind":"Pod","metadata":{}}"#, r#"{"holder":"x"}"#, "free text"]
        {
            assert_eq!(object(stored).stored(), stored.as_bytes());
        }
    }

    #[test]
    fn attributes_are_found_by_name() {
        let attributes = Attributes::new([("b", "2"), ("a", "1")], [("spec.nodeName", "n")]);
        assert_eq!(attributes.label("a"), Some("1"));
        assert_eq!(attributes.label("c"), None);
        assert_eq!(attributes.field("spec.nodeName"), Some("n"));
    }
}
