//! Query strings of the kubelet API: repeated keys, and flags by either of their two names. Pure.

/// A parsed query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what follows the question mark.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// All values of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The first value of a key.
    pub(crate) fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether any of these flags is set.
    pub(crate) fn flag(&self, names: &[&str]) -> bool {
        names.iter().any(|name| matches!(self.first(name), Some("1" | "true" | "True")))
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_repeated_keys_in_order_and_decodes() {
        let query = Query::parse(Some("command=sh&command=-c&command=echo%20a%2Bb+c&stdin=true&tailLines=5"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo a+b c"]);
        assert!(query.flag(&["input", "stdin"]));
        assert!(!query.flag(&["tty"]));
        assert_eq!(query.first("tailLines"), Some("5"));
        assert_eq!(Query::parse(None), Query::default());
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_parsed(text: String) {
            let _ = Query::parse(Some(&text));
        }
    }
}
