//! The protobuf form of OpenAPI v2, which kubectl before 1.27 insists on: definitions, and of the paths what says that
//! a kind takes dry runs. Field numbers are those of the public `openapi.v2` messages.

use serde_json::{Map, Value};

/// Whether a media type names this form.
pub fn is_wanted(media: &str) -> bool {
    media.starts_with("application/com.github.proto-openapi.spec.v2") && media.ends_with("+protobuf")
}

/// Content type of the answer. Clients ask with an `@` before the version, which is no valid media type in an answer.
pub const CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, value: bool) {
        self.varint(field << 3);
        self.varint(u64::from(value));
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }
}

/// Encodes a document.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    out.message(2, &info);
    out.message(8, &paths(document));
    let mut definitions = Message::default();
    for (name, definition) in document["definitions"].as_object().into_iter().flatten() {
        definitions.message(1, &named(name, &schema(definition)));
    }
    out.message(9, &definitions);
    out.0
}

fn named(name: &str, value: &Message) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.message(2, value);
    out
}

/// A value of any kind: its text, which YAML parsers read.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}

fn extensions(out: &mut Message, field: u64, members: &Map<String, Value>) {
    for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
        out.message(field, &named(name, &any(value)));
    }
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    let Some(members) = value.as_object() else { return out };
    for (field, name) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description")] {
        out.text(field, &value[name]);
    }
    if let Some(default) = members.get("default") {
        out.message(5, &any(default));
    }
    for name in value["required"].as_array().into_iter().flatten() {
        out.text(19, name);
    }
    for allowed in value["enum"].as_array().into_iter().flatten() {
        out.message(20, &any(allowed));
    }
    if let Some(additional) = members.get("additionalProperties") {
        let mut item = Message::default();
        match additional {
            Value::Bool(flag) => item.flag(2, *flag),
            nested => item.message(1, &schema(nested)),
        }
        out.message(21, &item);
    }
    if let Some(kind) = members.get("type") {
        let mut item = Message::default();
        match kind {
            Value::Array(kinds) => kinds.iter().for_each(|kind| item.text(1, kind)),
            kind => item.text(1, kind),
        }
        out.message(22, &item);
    }
    if let Some(items) = members.get("items") {
        let mut item = Message::default();
        item.message(1, &schema(items));
        out.message(23, &item);
    }
    if let Some(properties) = value["properties"].as_object() {
        let mut all = Message::default();
        for (name, property) in properties {
            all.message(1, &named(name, &schema(property)));
        }
        out.message(25, &all);
    }
    extensions(&mut out, 31, members);
    out
}

/// One path for each kind, with the patch that takes a dry run: all that clients of this form look for.
fn paths(document: &Value) -> Message {
    let mut out = Message::default();
    for (name, definition) in document["definitions"].as_object().into_iter().flatten() {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let mut query = Message::default();
            query.bytes(2, b"query");
            query.bytes(4, b"dryRun");
            let mut operation = Message::default();
            operation.message(8, &nested(1, nested(2, nested(3, query))));
            operation.message(13, &named("x-kubernetes-group-version-kind", &any(kind)));
            let version = kind["version"].as_str().unwrap_or_default();
            let path = format!("/{name}/{}/{version}", kind["group"].as_str().unwrap_or_default());
            out.message(2, &named(&path, &nested(8, operation)));
        }
    }
    out
}

fn nested(field: u64, message: Message) -> Message {
    let mut out = Message::default();
    out.message(field, &message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_definitions_with_their_references() {
        let document = json!({"swagger": "2.0", "definitions": {"A": {"$ref": "B"}}});
        let bytes = encode(&document);
        // swagger, empty info, empty paths, definitions{ entry{ name "A", schema{ ref "B" } } }
        let expected = b"\x0a\x032.0\x12\x00\x42\x00\x4a\x0a\x0a\x08\x0a\x01A\x12\x03\x0a\x01B";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn is_asked_for_in_both_spellings() {
        assert!(is_wanted(CONTENT_TYPE));
        assert!(is_wanted("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"));
        assert!(!is_wanted("application/json"));
    }
}
