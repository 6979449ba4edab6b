//! Content negotiation: which encoding and which shape (object, Table, metadata only) the client asks for, and what
//! encoding a body is in. Bodies may be protobuf; for answers the seam is [`Encoding`]: a variant and a codec.

use http::{HeaderMap, header};

use crate::status::ApiError;

/// How bytes are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
}

/// How a request body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEncoding {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`, which only built-in kinds have; the registry reads it.
    Protobuf,
}

/// What shape the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// The object or list itself.
    #[default]
    Object,
    /// A `Table` of the object or list.
    Table(MetaVersion),
    /// Metadata only.
    Partial(MetaVersion),
}

/// Version of `meta.k8s.io` asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaVersion {
    /// `v1`
    V1,
    /// `v1beta1`
    V1Beta1,
}

impl MetaVersion {
    /// `apiVersion` of the answer.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The outcome of negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Negotiated {
    /// Encoding of the answer.
    pub encoding: Encoding,
    /// Shape of the answer.
    pub shape: Shape,
}

/// Media types that answers are offered in.
pub const SUPPORTED: [&str; 2] = ["application/json", "application/yaml"];

impl Encoding {
    /// `Content-Type` of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// One clause of an `Accept` header.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause {
    /// `type/subtype`, lower case.
    pub media: String,
    /// Parameters without `q`.
    pub params: Vec<(String, String)>,
    quality: f32,
}

impl Clause {
    /// A parameter's value.
    pub fn param(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// The clauses of all `Accept` headers, best first.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause> {
    let mut out: Vec<Clause> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .map(parse_clause)
        .collect();
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    out
}

fn parse_clause(text: &str) -> Clause {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut clause = Clause { media, params: Vec::new(), quality: 1.0 };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "q" => clause.quality = value.parse().unwrap_or(1.0),
            _ => clause.params.push((key.to_owned(), value.trim_matches('"').to_owned())),
        }
    }
    clause
}

/// Chooses encoding and shape for an object answer.
pub fn negotiate(headers: &HeaderMap) -> Result<Negotiated, ApiError> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Negotiated::default());
    }
    clauses.iter().find_map(accept).ok_or_else(|| ApiError::not_acceptable(&SUPPORTED))
}

/// Encoding for an error: what was asked for when we have it, JSON otherwise.
pub fn error_encoding(headers: &HeaderMap) -> Encoding {
    clauses(headers).iter().find_map(encoding_of).unwrap_or_default()
}

fn encoding_of(clause: &Clause) -> Option<Encoding> {
    match clause.media.as_str() {
        "application/json" | "*/*" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        _ => None,
    }
}

fn accept(clause: &Clause) -> Option<Negotiated> {
    let encoding = encoding_of(clause)?;
    let version = match clause.param("v") {
        Some("v1beta1") => MetaVersion::V1Beta1,
        _ => MetaVersion::V1,
    };
    let shape = match (clause.param("as"), clause.param("g"), clause.param("v")) {
        (None, _, _) => Shape::Object,
        (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Shape::Table(version),
        (
            Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
            Some("meta.k8s.io"),
            Some("v1" | "v1beta1"),
        ) => Shape::Partial(version),
        _ => return None,
    };
    Some(Negotiated { encoding, shape })
}

/// Encoding of a request body; no header means JSON.
pub fn body_encoding(headers: &HeaderMap) -> Result<BodyEncoding, ApiError> {
    let media = content_media(headers);
    match media.as_str() {
        "" | "application/json" | "*/*" => Ok(BodyEncoding::Json),
        "application/yaml" => Ok(BodyEncoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyEncoding::Protobuf),
        _ => Err(ApiError::unsupported_media_type(&SUPPORTED)),
    }
}

/// Media type of the body without parameters, lower case; empty when absent.
pub fn content_media(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(accept: &str) -> Result<Negotiated, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        negotiate(&headers)
    }

    #[test]
    fn takes_the_first_clause_it_can_serve() {
        assert_eq!(ask("application/xml, */*").unwrap().encoding, Encoding::Json);
        assert_eq!(ask("application/json;q=0.5, application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(
            ask("application/vnd.kubernetes.protobuf,application/json").unwrap().encoding,
            Encoding::Json
        );
        assert_eq!(ask("application/json;stream=watch").unwrap().shape, Shape::Object);
    }

    #[test]
    fn refuses_what_it_cannot_serve() {
        for bad in
            ["text/html", "application/*", "application/cbor", "bogus", "application/json;as=Table;g=x;v=v1"]
        {
            assert_eq!(ask(bad).unwrap_err().code, 406, "{bad}");
        }
    }

    #[test]
    fn kubectl_gets_its_table() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(ask(accept).unwrap().shape, Shape::Table(MetaVersion::V1));
    }
}
