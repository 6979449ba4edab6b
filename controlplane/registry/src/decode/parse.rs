//! Bodies to values: JSON and YAML text, and the protobuf form by its magic bytes (see [`wire`]). Members that appear
//! twice are noticed; the last one wins, as upstream.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{DecodeError, wire};
use crate::path::Path;

/// Parses a body of any encoding and names its duplicate fields.
///
/// # Errors
/// [`DecodeError::Syntax`] when it is neither JSON nor YAML.
pub fn parse(body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    if wire::is_wire(body) {
        return wire::decode(body)
            .map(|value| (value, Vec::new()))
            .map_err(|e| DecodeError::Syntax(e.to_string()));
    }
    let duplicates = RefCell::new(Vec::new());
    let seed = Noticing { path: &Path::ROOT, duplicates: &duplicates };
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    let value = if first == Some(&b'{') {
        let mut json = serde_json::Deserializer::from_slice(body);
        seed.deserialize(&mut json)
            .and_then(|v| json.end().map(|()| v))
            .map_err(|e| DecodeError::Syntax(e.to_string()))?
    } else {
        seed.deserialize(serde_yaml_ng::Deserializer::from_slice(body))
            .map_err(|e| DecodeError::Syntax(e.to_string()))?
    };
    Ok((value, duplicates.into_inner()))
}

#[derive(Clone, Copy)]
struct Noticing<'a> {
    path: &'a Path<'a>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Noticing<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noticing<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = self.path.index(items.len());
            match seq.next_element_seed(Noticing { path: &path, ..self })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<Key>()? {
            let path = self.path.field(&key.0);
            let value = map.next_value_seed(Noticing { path: &path, ..self })?;
            if members.contains_key(&key.0) {
                self.duplicates.borrow_mut().push(format!("duplicate field {:?}", path.to_string()));
            }
            members.insert(key.0, value);
        }
        Ok(Value::Object(members))
    }
}

/// A member name; YAML may write it as a number or truth value.
struct Key(String);

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(s) => Ok(Self(s)),
            Value::Number(n) => Ok(Self(n.to_string())),
            Value::Bool(b) => Ok(Self(b.to_string())),
            other => Err(D::Error::custom(format!("{other} cannot name a field"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_duplicates_and_keeps_the_last() {
        let (value, duplicates) = parse(br#"{"spec":{"a":[{"x":1,"x":2}]}}"#).unwrap();
        assert_eq!(value["spec"]["a"][0]["x"], 2);
        assert_eq!(duplicates, [r#"duplicate field "spec.a[0].x""#]);
    }

    #[test]
    fn reads_yaml() {
        let (value, _) = parse(b"kind: Pod\nspec:\n  hostNetwork: true\n").unwrap();
        assert_eq!(value["spec"]["hostNetwork"], true);
    }

    #[test]
    fn refuses_trailing_text() {
        assert!(parse(b"{} x").is_err());
    }
}
