//! Label and field selectors as queries spell them: parsing with upstream's grammar, and matching. Pure.

use std::collections::BTreeMap;

/// One label requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelTerm {
    /// `key`
    Exists(String),
    /// `!key`
    Absent(String),
    /// `key=v`, `key in (v, w)`
    In(String, Vec<String>),
    /// `key!=v`, `key notin (v, w)`: absent keys match
    NotIn(String, Vec<String>),
    /// `key>n`
    Greater(String, i64),
    /// `key<n`
    Less(String, i64),
}

/// All requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<LabelTerm>);

/// A selector that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Something unexpected at this place.
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Unexpected {
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A key that is no label key.
    #[error(
        "unable to parse requirement: <nil>: Invalid value: \"{0}\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    )]
    Key(String),
    /// A value that is no label value.
    #[error(
        "unable to parse requirement: values[0][{key}]: Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    )]
    Value {
        /// Key.
        key: String,
        /// Offending value.
        value: String,
    },
    /// A field selector term without an operator.
    #[error("invalid selector: '{0}'; can't understand '{0}'")]
    Field(String),
}

impl LabelSelector {
    /// Parses the text of `labelSelector`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser::new(text).selector()
    }

    /// Whether the selector accepts everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels satisfy every requirement.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|term| term.matches(&get))
    }
}

impl LabelTerm {
    fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Exists(key) => get(key).is_some(),
            Self::Absent(key) => get(key).is_none(),
            Self::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Greater(key, n) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Self::Less(key, n) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", ">", "<"];

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                break;
            }
            if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
                tokens.push(Token::Sign(sign));
                rest = &rest[sign.len()..];
                continue;
            }
            let end = rest
                .find(|c: char| c.is_whitespace() || matches!(c, '=' | '!' | ',' | '(' | ')' | '>' | '<'))
                .unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        Self { tokens, at: 0 }
    }

    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn eat(&mut self, sign: &'static str) -> bool {
        let hit = self.peek() == Token::Sign(sign);
        if hit {
            self.at += 1;
        }
        hit
    }

    fn selector(mut self) -> Result<LabelSelector, SelectorError> {
        let mut terms = Vec::new();
        if self.peek() == Token::End {
            return Ok(LabelSelector(terms));
        }
        loop {
            terms.push(self.term()?);
            match self.next() {
                Token::End => return Ok(LabelSelector(terms)),
                Token::Sign(",") => {
                    if !matches!(self.peek(), Token::Word(_) | Token::Sign("!")) {
                        return Err(unexpected(&self.peek(), "identifier after ','"));
                    }
                }
                other => return Err(unexpected(&other, "',' or 'end of string'")),
            }
        }
    }

    fn term(&mut self) -> Result<LabelTerm, SelectorError> {
        let absent = self.eat("!");
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(unexpected(&other, "!, identifier, or 'end of string'")),
        };
        if !valid_key(&key) {
            return Err(SelectorError::Key(key));
        }
        if absent {
            return Ok(LabelTerm::Absent(key));
        }
        match self.peek() {
            Token::End | Token::Sign(",") => Ok(LabelTerm::Exists(key)),
            Token::Sign("=" | "==") => {
                self.at += 1;
                Ok(LabelTerm::In(key.clone(), vec![self.value(&key)?]))
            }
            Token::Sign("!=") => {
                self.at += 1;
                Ok(LabelTerm::NotIn(key.clone(), vec![self.value(&key)?]))
            }
            Token::Sign(sign @ (">" | "<")) => {
                self.at += 1;
                self.bound(key, sign)
            }
            Token::Word(word) if word == "in" || word == "notin" => {
                self.at += 1;
                let values = self.values(&key)?;
                Ok(if word == "in" { LabelTerm::In(key, values) } else { LabelTerm::NotIn(key, values) })
            }
            other => Err(unexpected(&other, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn bound(&mut self, key: String, sign: &str) -> Result<LabelTerm, SelectorError> {
        let value = self.value(&key)?;
        let number =
            value.parse().map_err(|_not_a_number| SelectorError::Value { key: key.clone(), value })?;
        Ok(if sign == ">" { LabelTerm::Greater(key, number) } else { LabelTerm::Less(key, number) })
    }

    fn value(&mut self, key: &str) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Sign(",") => Ok(String::new()),
            Token::Word(word) => {
                self.at += 1;
                checked(key, word)
            }
            other => Err(unexpected(&other, "identifier")),
        }
    }

    fn values(&mut self, key: &str) -> Result<Vec<String>, SelectorError> {
        if !self.eat("(") {
            return Err(unexpected(&self.peek(), "'('"));
        }
        let mut values = Vec::new();
        let mut pending = true;
        loop {
            match self.next() {
                Token::Word(word) if pending => {
                    values.push(checked(key, word)?);
                    pending = false;
                }
                Token::Sign(",") => {
                    if pending {
                        values.push(String::new());
                    }
                    pending = true;
                }
                Token::Sign(")") => {
                    if pending {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                other => return Err(unexpected(&other, "',', ')' or identifier")),
            }
        }
    }
}

fn unexpected(token: &Token, expected: &'static str) -> SelectorError {
    let found = match token {
        Token::Word(word) => word.clone(),
        Token::Sign(sign) => (*sign).to_owned(),
        Token::End => String::new(),
    };
    SelectorError::Unexpected { found, expected }
}

fn checked(key: &str, value: String) -> Result<String, SelectorError> {
    if valid_value(&value) { Ok(value) } else { Err(SelectorError::Value { key: key.to_owned(), value }) }
}

fn valid_value(value: &str) -> bool {
    value.is_empty() || valid_name(value)
}

fn valid_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().last())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn valid_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => {
            !prefix.is_empty()
                && prefix.len() <= 253
                && prefix
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
                && valid_name(name)
        }
        None => valid_name(key),
    }
}

/// One field requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// Field path.
    pub field: String,
    /// Value compared with.
    pub value: String,
    /// `=` or `!=`.
    pub equal: bool,
}

/// All requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldTerm>);

impl FieldSelector {
    /// Parses the text of `fieldSelector`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            terms.push(parse_field(&term)?);
        }
        Ok(Self(terms))
    }

    /// Whether the selector accepts everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the fields satisfy every requirement; an unknown field is empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|t| (get(&t.field).unwrap_or("") == t.value) == t.equal)
    }

    /// The name asked for, when one term pins it.
    pub fn pinned(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => out.push(String::new()),
            c => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
        escaped = c == '\\' && !escaped;
    }
    out
}

fn parse_field(term: &str) -> Result<FieldTerm, SelectorError> {
    let (field, value, equal) = if let Some((f, v)) = term.split_once("!=") {
        (f, v, false)
    } else if let Some((f, v)) = term.split_once("==") {
        (f, v, true)
    } else if let Some((f, v)) = term.split_once('=') {
        (f, v, true)
    } else {
        return Err(SelectorError::Field(term.to_owned()));
    };
    Ok(FieldTerm { field: field.to_owned(), value: unescape(value), equal })
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next());
        } else {
            out.push(c);
        }
    }
    out
}

/// Evaluates the `metav1.LabelSelector` of an object (matchLabels + matchExpressions) against labels.
/// An absent selector matches nothing, an empty one everything.
pub fn object_selector_matches(selector: &serde_json::Value, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector.as_object() else { return false };
    let equal = selector
        .get("matchLabels")
        .and_then(|m| m.as_object())
        .is_none_or(|wanted| wanted.iter().all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str()));
    equal
        && selector
            .get("matchExpressions")
            .and_then(|e| e.as_array())
            .is_none_or(|terms| terms.iter().all(|term| expression_matches(term, labels)))
}

fn expression_matches(term: &serde_json::Value, labels: &BTreeMap<String, String>) -> bool {
    let key = term["key"].as_str().unwrap_or_default();
    let values = || term["values"].as_array().into_iter().flatten().filter_map(|v| v.as_str());
    let value = labels.get(key);
    match term["operator"].as_str().unwrap_or_default() {
        "In" => value.is_some_and(|v| values().any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| values().all(|w| w != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let parsed = LabelSelector::parse(selector).unwrap();
        parsed.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
    }

    #[test]
    fn equality_sets_and_existence_match() {
        let labels = [("t", "1"), ("app", "x")];
        for yes in [
            "",
            "t",
            "t=1",
            "t==1",
            "t in (1,2)",
            "t notin (2)",
            "!z",
            "t=1,app=x",
            "t>0",
            "z notin ()",
            "z!=1",
        ] {
            assert!(matches(yes, &labels), "{yes}");
        }
        for no in ["z", "t!=1", "t in (2)", "!t", "t=1,app=y", "t<1", "t="] {
            assert!(!matches(no, &labels), "{no}");
        }
    }

    #[test]
    fn broken_selectors_are_refused() {
        for bad in ["((", "=x", "a b", "x y=z", "t=b ad", "t=1,,app=x", "(t)", "t in", "-a=b"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_compare_and_negate() {
        let s = FieldSelector::parse("metadata.name=a,status.phase!=Running").unwrap();
        assert!(s.matches(|f| (f == "metadata.name").then_some("a")));
        assert_eq!(s.pinned("metadata.name"), Some("a"));
        assert!(FieldSelector::parse("bogus").is_err());
    }
}
