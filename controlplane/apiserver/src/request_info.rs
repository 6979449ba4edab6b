//! What a path means: resource or not, verb, group, version, namespace, name, subresource. Pure; the authorizer and
//! the dispatcher read the same answer, so they cannot disagree.

/// A parsed request line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path addresses a resource.
    pub is_resource: bool,
    /// API verb for resources (`get`, `list`, `watch`, `create`, ...), lower-case method otherwise.
    pub verb: String,
    /// Path without the query.
    pub path: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, when the path names one.
    pub namespace: Option<String>,
    /// Resource plural.
    pub resource: String,
    /// Subresource, when the path names one.
    pub subresource: Option<String>,
    /// Object name, when the path names one.
    pub name: Option<String>,
    /// Path segments after the subresource, for proxies.
    pub rest: Option<String>,
    /// The deprecated `/watch/` prefix was used.
    pub watch_prefix: bool,
}

/// Subresources of namespaces that are not resources inside of it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Parses method, path and query. Never fails: what is no resource is a non-resource path.
    pub fn parse(method: &str, path: &str, query: &Query) -> Self {
        let plain = Self { verb: method.to_ascii_lowercase(), path: path.to_owned(), ..Self::default() };
        let parts: Vec<&str> = path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
        if parts.iter().any(|p| p.is_empty()) {
            return plain;
        }
        let (group, version, mut rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return plain,
        };
        let mut info = Self {
            is_resource: true,
            group: group.to_owned(),
            version: version.to_owned(),
            verb: verb_of(method).to_owned(),
            ..plain
        };
        if rest[0] == "watch" && rest.len() > 1 {
            info.watch_prefix = true;
            info.verb = "watch".to_owned();
            rest = &rest[1..];
        } else if rest[0] == "proxy" {
            return Self { is_resource: false, verb: method.to_ascii_lowercase(), ..info };
        }
        info.take_segments(rest);
        info.settle_verb(method, query);
        info
    }

    fn take_segments(&mut self, segments: &[&str]) {
        let mut rest = segments;
        if rest[0] == "namespaces" && rest.len() > 1 {
            self.namespace = Some(rest[1].to_owned());
            if rest.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&rest[2]) {
                rest = &rest[2..];
            }
        }
        self.resource = rest[0].to_owned();
        self.name = rest.get(1).map(|s| (*s).to_owned());
        self.subresource = rest.get(2).map(|s| (*s).to_owned());
        if rest.len() > 3 {
            self.rest = Some(rest[3..].join("/"));
        }
    }

    fn settle_verb(&mut self, method: &str, query: &Query) {
        if self.watch_prefix {
            if let Some(name) = self.field_name(query) {
                self.name.get_or_insert(name);
            }
            return;
        }
        if self.name.is_none() && (self.verb == "get" || self.verb == "delete") {
            self.verb = match self.verb.as_str() {
                "get" if query.flag("watch") => "watch",
                "get" => "list",
                _ => "deletecollection",
            }
            .to_owned();
        }
        // HEAD is not a verb of any resource; the dispatcher answers 405.
        if method == "HEAD" && matches!(self.verb.as_str(), "get" | "list" | "watch") {
            self.verb = "head".to_owned();
        }
    }

    /// The single name a `metadata.name=` field selector asks for.
    pub fn field_name(&self, query: &Query) -> Option<String> {
        query
            .get("fieldSelector")?
            .split(',')
            .find_map(|term| term.strip_prefix("metadata.name="))
            .map(|n| n.trim_start_matches('=').to_owned())
            .filter(|n| !n.is_empty())
    }
}

fn verb_of(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Decoded query parameters, in order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    raw: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses the part after `?`.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(key), decode(value))
            })
            .collect();
        Self { raw: raw.to_owned(), pairs }
    }

    /// The text as the client sent it.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// First value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// First value, unless it is empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|v| !v.is_empty())
    }

    /// Truth of a boolean parameter as Go clients spell it: present and neither `0` nor `false`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"))
    }
}

/// Percent-decodes, `+` is a space; broken escapes stay as they are.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escaped = (bytes[i] == b'%')
            .then(|| text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        match (bytes[i], escaped) {
            (_, Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                i += 1;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, path: &str, query: &str) -> RequestInfo {
        RequestInfo::parse(method, path, &Query::parse(query))
    }

    #[test]
    fn reads_a_namespaced_subresource() {
        let info = parse("GET", "/apis/apps/v1/namespaces/a/deployments/d/scale", "");
        assert_eq!(
            (info.group.as_str(), info.resource.as_str(), info.verb.as_str()),
            ("apps", "deployments", "get")
        );
        assert_eq!(info.subresource.as_deref(), Some("scale"));
        assert_eq!(info.namespace.as_deref(), Some("a"));
    }

    #[test]
    fn a_namespace_is_in_itself() {
        let info = parse("DELETE", "/api/v1/namespaces/a", "");
        assert_eq!((info.resource.as_str(), info.name.as_deref()), ("namespaces", Some("a")));
        assert_eq!(info.namespace.as_deref(), Some("a"));
        let info = parse("PUT", "/api/v1/namespaces/a/finalize", "");
        assert_eq!((info.resource.as_str(), info.subresource.as_deref()), ("namespaces", Some("finalize")));
    }

    #[test]
    fn tells_list_watch_and_deletecollection() {
        assert_eq!(parse("GET", "/api/v1/pods", "").verb, "list");
        assert_eq!(parse("GET", "/api/v1/pods", "watch=1").verb, "watch");
        assert_eq!(parse("GET", "/api/v1/pods", "watch=false").verb, "list");
        assert_eq!(parse("DELETE", "/api/v1/namespaces/a/pods", "").verb, "deletecollection");
        assert_eq!(parse("GET", "/api/v1/watch/namespaces/a/pods/p", "").name.as_deref(), Some("p"));
    }

    #[test]
    fn other_paths_are_no_resources() {
        assert!(!parse("GET", "/healthz", "").is_resource);
        assert!(!parse("GET", "/api/v1", "").is_resource);
        assert!(!parse("GET", "/api/v1//configmaps", "").is_resource);
    }

    #[test]
    fn decodes_escapes_and_keeps_broken_ones() {
        assert_eq!(decode("a%3Db+c%zz"), "a=b c%zz");
    }
}
