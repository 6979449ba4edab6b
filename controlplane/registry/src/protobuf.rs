//! Protobuf bodies of built-in kinds, as most Go clients send them, to the JSON form that everything else works on.
//!
//! The envelope is `k8s\0` and a `runtime.Unknown` (1: TypeMeta, 2: the object's bytes). Field numbers come from
//! `tables/numbers.txt`, types from the schema table; a number that is not listed is skipped, as protobuf wants it.

use std::{collections::HashMap, sync::LazyLock};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    base64,
    schema::{Field, GroupVersionKind, Kind, Node, Object, Types, builtin},
};

const MAGIC: &[u8; 4] = b"k8s\0";
/// Messages nest no deeper than this; the deepest real one is a JSON schema inside a definition.
const MAX_DEPTH: usize = 64;

/// Why a protobuf body is refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ProtobufError {
    /// The envelope's first bytes are missing.
    #[error("the body is not a Kubernetes protobuf message: it does not begin with \"k8s\\0\"")]
    NoEnvelope,
    /// The bytes end early or do not form fields.
    #[error("the protobuf body is malformed in {0}")]
    Malformed(String),
    /// The kind has no protobuf form here.
    #[error("no kind {kind:?} of {api_version:?} is known in protobuf: send JSON")]
    UnknownKind {
        /// From the envelope.
        api_version: String,
        /// From the envelope.
        kind: String,
    },
}

/// The fields of one message: by number, its JSON name or the message whose fields stand beside it.
type Numbers = HashMap<u64, &'static str>;

static NUMBERS: LazyLock<HashMap<&'static str, Numbers>> =
    LazyLock::new(|| include_str!("../tables/numbers.txt").lines().filter_map(parse_line).collect());

fn parse_line(line: &'static str) -> Option<(&'static str, Numbers)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let fields =
        words.filter_map(|word| word.rsplit_once('=').and_then(|(name, n)| Some((n.parse().ok()?, name))));
    Some((name, fields.collect()))
}

/// Decodes a body to an object with apiVersion and kind.
///
/// # Errors
/// See [`ProtobufError`].
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoEnvelope)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(unknown) {
        match field.map_err(|()| malformed("the envelope"))? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field.map_err(|()| malformed("the envelope"))? {
                        (1, Wire::Bytes(text)) => api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, Wire::Bytes(text)) => kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let types = builtin::types();
    let object = definition(types, &api_version, &kind)
        .ok_or_else(|| ProtobufError::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut out = Map::new();
    out.insert("apiVersion".into(), api_version.into());
    out.insert("kind".into(), kind.into());
    message(types, object, short(&object.name), raw, &mut out, 0)?;
    Ok(Value::Object(out))
}

fn definition<'a>(types: &'a Types, api_version: &str, kind: &str) -> Option<&'a Object> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::new(group, version, kind);
    let own = types.objects().find(|object| object.gvk.as_ref() == Some(&gvk));
    // Options are the same in every group.
    let shared = || match kind {
        "DeleteOptions" | "Status" => types.id(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")),
        _ => None,
    };
    own.or_else(|| shared().map(|id| types.object(id)))
}

/// The name that the tables use.
fn short(name: &str) -> &str {
    name.strip_prefix("io.k8s.api.").unwrap_or(name)
}

fn malformed(place: &str) -> ProtobufError {
    ProtobufError::Malformed(place.to_owned())
}

/// Decodes the fields of one message into `out`; `object` says what their JSON names mean.
fn message(
    types: &Types,
    object: &Object,
    name: &str,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let Some(numbers) = NUMBERS.get(name) else { return Err(malformed(name)) };
    if depth > MAX_DEPTH {
        return Err(malformed(name));
    }
    for field in Fields(bytes) {
        let (number, wire) = field.map_err(|()| malformed(name))?;
        let Some(json_name) = numbers.get(&number) else { continue };
        if let Some(inline) = json_name.strip_prefix('~') {
            message(types, object, inline, wire.bytes(name)?, out, depth + 1)?;
        } else if let Some(field) = object.field(json_name) {
            put(types, field, wire, out, depth).map_err(|_| malformed(&format!("{name}.{json_name}")))?;
        }
    }
    Ok(())
}

/// Adds one occurrence of a field: lists and maps grow, everything else is set.
fn put(
    types: &Types,
    field: &Field,
    wire: Wire<'_>,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let name = &*field.name;
    match &field.node.kind {
        Kind::Array(items) => {
            let item = value(types, items, wire, depth)?;
            let list = out.entry(name).or_insert_with(|| json!([]));
            list.as_array_mut().ok_or_else(|| malformed(name))?.push(item);
        }
        Kind::Map(values) => {
            let (mut key, mut inner) = (String::new(), None);
            for entry in Fields(wire.bytes(name)?) {
                match entry.map_err(|()| malformed(name))? {
                    (1, Wire::Bytes(text)) => key = String::from_utf8_lossy(text).into_owned(),
                    (2, wire) => inner = Some(value(types, values, wire, depth)?),
                    _ => {}
                }
            }
            let map = out.entry(name).or_insert_with(|| json!({}));
            let inner = inner.unwrap_or_else(|| zero(values));
            map.as_object_mut().ok_or_else(|| malformed(name))?.insert(key, inner);
        }
        _ => {
            let decoded = value(types, &field.node, wire, depth)?;
            // What Go sends as an empty value of a plain field is absent in JSON.
            let absent = decoded.is_null() || field.omit_empty && crate::field::empty(&decoded);
            if !absent {
                out.insert(name.to_owned(), decoded);
            }
        }
    }
    Ok(())
}

fn zero(node: &Node) -> Value {
    match node.kind {
        Kind::String | Kind::Quantity | Kind::Bytes => json!(""),
        Kind::Int32 | Kind::Int64 => json!(0),
        Kind::Bool => json!(false),
        Kind::Array(_) => json!([]),
        _ => json!({}),
    }
}

fn value(types: &Types, node: &Node, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let text = |bytes: &[u8]| Value::String(String::from_utf8_lossy(bytes).into_owned());
    Ok(match &node.kind {
        Kind::String => text(wire.bytes("a text")?),
        Kind::Bytes => base64::encode(wire.bytes("bytes")?).into(),
        Kind::Bool => (wire.number()? != 0).into(),
        // Negative numbers travel as 64 bits whatever their width.
        Kind::Int32 | Kind::Int64 => i64::from_ne_bytes(wire.number()?.to_ne_bytes()).into(),
        Kind::Double => f64::from_bits(wire.number()?).into(),
        Kind::Time => time(wire.bytes("a time")?, false)?,
        Kind::MicroTime => time(wire.bytes("a time")?, true)?,
        Kind::Quantity => only(wire.bytes("a quantity")?)?.map_or_else(|| "0".into(), text),
        Kind::IntOrString => int_or_string(wire.bytes("a number or text")?)?,
        Kind::Raw | Kind::Any(_) => match only(wire.bytes("raw JSON")?)? {
            Some(raw) => serde_json::from_slice(raw).map_err(|error| malformed(&error.to_string()))?,
            None => Value::Null,
        },
        Kind::Array(items) => {
            // A list inside a map travels as a message with one repeated field.
            let fields = Fields(wire.bytes("a list")?).map(|field| field.map_err(|()| malformed("a list")));
            let items = fields.map(|field| value(types, items, field?.1, depth + 1));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Kind::Map(_) => return Err(malformed("a map inside a map")),
        Kind::Object(id) => {
            let object = types.object(*id);
            let mut out = Map::new();
            message(types, object, short(&object.name), wire.bytes(&object.name)?, &mut out, depth + 1)?;
            Value::Object(out)
        }
    })
}

/// The first field's bytes of a message that has no other.
fn only(bytes: &[u8]) -> Result<Option<&[u8]>, ProtobufError> {
    match Fields(bytes).next() {
        None => Ok(None),
        Some(Ok((1, Wire::Bytes(inner)))) => Ok(Some(inner)),
        Some(_) => Err(malformed("a wrapped value")),
    }
}

fn time(bytes: &[u8], micros: bool) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut any = false;
    for field in Fields(bytes) {
        let (number, wire) = field.map_err(|()| malformed("a time"))?;
        let signed = i64::from_ne_bytes(wire.number()?.to_ne_bytes());
        match number {
            1 => seconds = signed,
            2 => nanos = signed,
            _ => {}
        }
        any = true;
    }
    if !any {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(if micros { nanos } else { 0 }).map_err(|_| malformed("a time"))?;
    let at = Timestamp::new(seconds, nanos).map_err(|_| malformed("a time"))?;
    Ok(if micros { format!("{at:.6}") } else { format!("{at:.0}") }.into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field.map_err(|()| malformed("a number or text"))? {
            (1, wire) => is_text = wire.number()? == 1,
            (2, wire) => number = i64::from_ne_bytes(wire.number()?.to_ne_bytes()),
            (3, wire) => text = String::from_utf8_lossy(wire.bytes("a text")?).into_owned(),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// A field's value as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire<'a> {
    /// Varint, or fixed 32 or 64 bits.
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self, place: &str) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(malformed(place)),
        }
    }

    fn number(self) -> Result<u64, ProtobufError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(malformed("a number")),
        }
    }
}

/// The fields of a message, in order; ends after the first that is broken.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ()> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(())?;
        self.0 = tail;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, ()> {
        let mut out = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(()) };
            out |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(out);
            }
        }
        Err(())
    }

    fn field(&mut self) -> Result<(u64, Wire<'a>), ()> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| ())?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| ())?))),
            _ => return Err(()),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), ()>;

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
mod tests;
