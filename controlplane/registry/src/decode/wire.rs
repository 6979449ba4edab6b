//! Protobuf bodies of built-in kinds: the envelope that begins with `k8s\0`, and messages along the schema.
//!
//! Field numbers come from `tables/wire.txt`; what a field is made of is known from the schema, so one reader serves
//! every kind. The result is the JSON form, which then goes the way of every other body.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use skep_api::time;
use thiserror::Error;

use crate::base64;
use crate::schema::{GroupVersionKind, Kind, Node, Object, Types, builtin};

const MAGIC: &[u8] = b"k8s\0";
static NUMBERS: &str = include_str!("../../tables/wire.txt");

/// Why a protobuf body cannot be read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub(super) enum WireError {
    /// It ends in the middle of a field.
    #[error("protobuf body is cut off")]
    CutOff,
    /// It uses an encoding that these messages never have.
    #[error("protobuf body holds an unexpected wire type {0}")]
    WireType(u64),
    /// It is of a kind that has no protobuf form here.
    #[error("no protobuf form is known for {0} {1}: send JSON")]
    UnknownKind(String, String),
    /// A text is not UTF-8, or embedded JSON is none.
    #[error("protobuf body holds a malformed value: {0}")]
    Malformed(String),
}

type Members = Map<String, Value>;

/// One field of a message type.
struct Numbered {
    name: &'static str,
    /// The message whose fields stand in the parent in JSON.
    inlined: Option<String>,
}

type Messages = HashMap<String, HashMap<u64, Numbered>>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let mut messages = Messages::new();
    let mut current = String::new();
    for line in NUMBERS.lines() {
        match line.strip_prefix('=') {
            Some(name) => current = builtin::full_name(name),
            None => {
                let fields = line.split(' ').filter_map(numbered).collect();
                messages.insert(std::mem::take(&mut current), fields);
            }
        }
    }
    messages
});

fn numbered(word: &'static str) -> Option<(u64, Numbered)> {
    let (number, name) = word.split_once(':')?;
    let (name, inlined) = name.split_once('>').map_or((name, None), |(name, message)| (name, Some(message)));
    Some((number.parse().ok()?, Numbered { name, inlined: inlined.map(builtin::full_name) }))
}

/// Whether a body is in the protobuf form.
pub(super) fn is_wire(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Reads a body in the protobuf form.
pub(super) fn decode(body: &[u8]) -> Result<Value, WireError> {
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(body.get(MAGIC.len()..).unwrap_or_default()) {
        match field? {
            (1, Content::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, content) => api_version = content.text()?,
                        (2, content) => kind = content.text()?,
                        _ => {}
                    }
                }
            }
            (2, Content::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let gvk = GroupVersionKind::new(group, version, &kind);
    let types = builtin::types();
    let unknown = || WireError::UnknownKind(api_version.clone(), kind.clone());
    let object = builtin::object_of(&gvk).ok_or_else(unknown)?;
    let mut members = Members::new();
    members.insert("apiVersion".into(), api_version.as_str().into());
    members.insert("kind".into(), kind.as_str().into());
    Reader { types }.message(raw, object, &object.name, &mut members)?;
    Ok(Value::Object(members))
}

struct Reader<'a> {
    types: &'a Types,
}

impl Reader<'_> {
    /// Reads a message of the named type into the members of an object.
    fn message(
        &self,
        raw: &[u8],
        object: &Object,
        message: &str,
        into: &mut Members,
    ) -> Result<(), WireError> {
        let Some(numbers) = MESSAGES.get(message) else { return Ok(()) };
        for field in Fields(raw) {
            let (number, content) = field?;
            let Some(Numbered { name, inlined }) = numbers.get(&number) else { continue };
            if let (Some(inner), Content::Bytes(raw)) = (inlined, content) {
                self.message(raw, object, inner, into)?;
            } else if let Some(field) = object.field(name) {
                self.field(&field.node, name, content, into)?;
            }
        }
        Ok(())
    }

    fn field(
        &self,
        node: &Node,
        name: &str,
        content: Content<'_>,
        into: &mut Members,
    ) -> Result<(), WireError> {
        match &node.kind {
            Kind::Array(items) => {
                let list = into.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(self.value(items, content)?);
                }
            }
            Kind::Map(values) => {
                let (mut key, mut value) = (String::new(), Content::Bytes(&[]));
                for field in Fields(content.bytes()?) {
                    match field? {
                        (1, content) => key = content.text()?,
                        (2, content) => value = content,
                        _ => {}
                    }
                }
                let value = self.value(values, value)?;
                if let Value::Object(map) = into.entry(name).or_insert_with(|| Value::Object(Members::new()))
                {
                    map.insert(key, value);
                }
            }
            _ => {
                let value = self.value(node, content)?;
                if !value.is_null() {
                    into.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn value(&self, node: &Node, content: Content<'_>) -> Result<Value, WireError> {
        Ok(match &node.kind {
            Kind::String => content.text()?.into(),
            Kind::Bool => (content.number()? != 0).into(),
            Kind::Int32 | Kind::Int64 => content.number()?.cast_signed().into(),
            Kind::Double => f64::from_bits(content.number()?).into(),
            Kind::Bytes => base64::encode(content.bytes()?).into(),
            Kind::Quantity => first_text(content.bytes()?)?.into(),
            Kind::IntOrString => int_or_string(content.bytes()?)?,
            Kind::Time => timestamp(content.bytes()?, time::seconds)?,
            Kind::MicroTime => timestamp(content.bytes()?, time::micros)?,
            Kind::Raw | Kind::Any(_) => embedded(content.bytes()?)?,
            // A list as the value of a map is wrapped into a message of its own.
            Kind::Array(items) => {
                let mut list = Vec::new();
                for field in Fields(content.bytes()?) {
                    list.push(self.value(items, field?.1)?);
                }
                list.into()
            }
            Kind::Map(_) => Value::Object(Members::new()),
            Kind::Object(id) => {
                let object = self.types.object(*id);
                let mut members = Members::new();
                self.message(content.bytes()?, object, &object.name, &mut members)?;
                members.into()
            }
        })
    }
}

fn first_text(message: &[u8]) -> Result<String, WireError> {
    match Fields(message).next() {
        Some(field) => field?.1.text(),
        None => Ok("0".to_owned()),
    }
}

fn int_or_string(message: &[u8]) -> Result<Value, WireError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(message) {
        match field? {
            (1, content) => is_text = content.number()? == 1,
            (2, content) => number = content.number()?.cast_signed(),
            (3, content) => text = content.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// A time; an empty message is none.
fn timestamp(message: &[u8], write: fn(jiff::Timestamp) -> String) -> Result<Value, WireError> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in Fields(message) {
        match field? {
            (1, content) => seconds = Some(content.number()?.cast_signed()),
            (2, content) => nanos = i32::try_from(content.number()?.cast_signed()).unwrap_or(0),
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|e| WireError::Malformed(e.to_string()))?;
    Ok(write(time).into())
}

/// JSON inside a message.
fn embedded(message: &[u8]) -> Result<Value, WireError> {
    match Fields(message).next() {
        Some(field) => {
            serde_json::from_slice(field?.1.bytes()?).map_err(|e| WireError::Malformed(e.to_string()))
        }
        None => Ok(Value::Null),
    }
}

/// What a field holds on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Content<'a> {
    fn number(self) -> Result<u64, WireError> {
        match self {
            Self::Number(n) => Ok(n),
            Self::Bytes([]) => Ok(0),
            Self::Bytes(_) => Err(WireError::WireType(2)),
        }
    }

    fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(WireError::WireType(0)),
        }
    }

    fn text(self) -> Result<String, WireError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|e| WireError::Malformed(e.to_string()))
    }
}

/// Walks over the fields of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(WireError::CutOff)?;
            self.0 = rest;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::CutOff)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WireError::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Content<'a>), WireError> {
        let key = self.varint()?;
        let content = match key & 7 {
            0 => Content::Number(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Content::Number(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
            }
            2 => {
                let count = usize::try_from(self.varint()?).map_err(|_| WireError::CutOff)?;
                Content::Bytes(self.take(count)?)
            }
            other => return Err(WireError::WireType(other)),
        };
        Ok((key >> 3, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Content<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend(content);
        out
    }

    fn envelope(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, object)].concat()
    }

    #[test]
    fn reads_maps_and_nested_messages() {
        let metadata = field(1, b"c");
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let body = envelope("v1", "ConfigMap", &[field(1, &metadata), field(2, &entry)].concat());
        assert_eq!(
            decode(&body).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}})
        );
    }

    #[test]
    fn members_of_inlined_structs_stand_in_their_parent() {
        let host_path = field(1, &field(1, b"/x"));
        let volume = [field(1, b"v"), field(2, &host_path)].concat();
        let body = envelope("v1", "Pod", &field(2, &field(1, &volume)));
        let pod = decode(&body).unwrap();
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/x"}}]));
    }

    #[test]
    fn refuses_what_is_cut_off_or_unknown() {
        let body = envelope("v1", "ConfigMap", b"");
        assert!(decode(&body[..body.len() - 1]).is_err());
        assert!(matches!(decode(&envelope("v9", "X", b"")), Err(WireError::UnknownKind(..))));
    }
}
