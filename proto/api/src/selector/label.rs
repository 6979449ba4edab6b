//! Label selectors: `a=b`, `a in (b,c)`, `!a`, `a>1`, and the LabelSelector object.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::{SelectorError, is_label_key, is_label_value};

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The label exists and has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label exists.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a whole number above the value.
    GreaterThan,
    /// The label is a whole number below the value.
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// How it compares.
    pub operator: Operator,
    /// With what.
    pub values: Vec<String>,
}

impl Requirement {
    /// A checked requirement.
    ///
    /// # Errors
    /// When key or values are no label texts, or the operator needs other values.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        if !is_label_key(key) {
            return Err(SelectorError::Key(key.to_owned()));
        }
        let wrong = |operator, detail| Err(SelectorError::Values { operator, detail });
        match operator {
            Operator::In if values.is_empty() => return wrong("In", "must have at least one value"),
            Operator::NotIn if values.is_empty() => return wrong("NotIn", "must have at least one value"),
            Operator::Exists if !values.is_empty() => return wrong("Exists", "must have no values"),
            Operator::DoesNotExist if !values.is_empty() => {
                return wrong("DoesNotExist", "must have no values");
            }
            Operator::GreaterThan | Operator::LessThan
                if values.len() != 1 || values[0].parse::<i64>().is_err() =>
            {
                return wrong("Gt, Lt", "must have one whole number as value");
            }
            _ => {}
        }
        match values.iter().find(|v| !is_label_value(v)) {
            Some(bad) => Err(SelectorError::Value(bad.clone())),
            None => Ok(Self { key: key.to_owned(), operator, values }),
        }
    }

    /// Whether a label's value (or absence) satisfies it.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        let compared = |v: &str| Some(v.parse::<i64>().ok()?.cmp(&self.values.first()?.parse::<i64>().ok()?));
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value.and_then(compared).is_some_and(std::cmp::Ordering::is_gt),
            Operator::LessThan => value.and_then(compared).is_some_and(std::cmp::Ordering::is_lt),
        }
    }
}

/// All of some requirements; with none, it selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Selects everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// From its requirements.
    #[must_use]
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// From a map of equal labels, as Services use it.
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let equal = |(k, v): (&String, &String)| Requirement {
            key: k.clone(),
            operator: Operator::In,
            values: vec![v.clone()],
        };
        Self { requirements: labels.into_iter().map(equal).collect() }
    }

    /// From the API's object form. An empty object selects everything; absence is the caller's to decide.
    ///
    /// # Errors
    /// When an expression is malformed.
    pub fn from_object(object: &meta::LabelSelector) -> Result<Self, SelectorError> {
        let mut selector = Self::from_labels(object.match_labels.iter().flatten());
        for expression in object.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            let values = expression.values.clone().unwrap_or_default();
            selector.requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(selector)
    }

    /// The requirements.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the labels satisfy all requirements.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether labels, looked up by the function, satisfy all requirements.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match (r.operator, r.values.as_slice()) {
                (Operator::In, [one]) => write!(f, "{}={one}", r.key)?,
                (Operator::In, many) => write!(f, "{} in ({})", r.key, many.join(","))?,
                (Operator::NotIn, [one]) => write!(f, "{}!={one}", r.key)?,
                (Operator::NotIn, many) => write!(f, "{} notin ({})", r.key, many.join(","))?,
                (Operator::Exists, _) => f.write_str(&r.key)?,
                (Operator::DoesNotExist, _) => write!(f, "!{}", r.key)?,
                (Operator::GreaterThan, values) => write!(f, "{}>{}", r.key, values.join(","))?,
                (Operator::LessThan, values) => write!(f, "{}<{}", r.key, values.join(","))?,
            }
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut tokens = Tokens::new(text);
        let mut requirements = Vec::new();
        if tokens.peek() == Token::End {
            return Ok(Self::default());
        }
        loop {
            requirements.push(requirement(&mut tokens)?);
            match tokens.next() {
                Token::End => return Ok(Self { requirements }),
                Token::Sign(",") if tokens.peek() != Token::End => {}
                other => return Err(other.unexpected("',' or 'end of string'")),
            }
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, SelectorError> {
    let absent = tokens.peek() == Token::Sign("!");
    if absent {
        tokens.next();
    }
    let key = match tokens.next() {
        Token::Word(key) => key,
        other => return Err(other.unexpected("!, identifier, or ','")),
    };
    if absent {
        return Requirement::new(key, Operator::DoesNotExist, Vec::new());
    }
    let operator = match tokens.peek() {
        Token::End | Token::Sign(",") => return Requirement::new(key, Operator::Exists, Vec::new()),
        Token::Sign("=" | "==") | Token::Word("in") => Operator::In,
        Token::Sign("!=") | Token::Word("notin") => Operator::NotIn,
        Token::Sign(">") => Operator::GreaterThan,
        Token::Sign("<") => Operator::LessThan,
        other => return Err(other.unexpected("in, notin, =, ==, !=, gt, lt")),
    };
    let listed = matches!(tokens.next(), Token::Word(_));
    let values = if listed { value_list(tokens)? } else { vec![single_value(tokens)?] };
    Requirement::new(key, operator, values)
}

fn single_value(tokens: &mut Tokens<'_>) -> Result<String, SelectorError> {
    match tokens.peek() {
        Token::End | Token::Sign(",") => Ok(String::new()),
        Token::Word(value) => {
            tokens.next();
            Ok(value.to_owned())
        }
        other => Err(other.unexpected("identifier")),
    }
}

fn value_list(tokens: &mut Tokens<'_>) -> Result<Vec<String>, SelectorError> {
    match tokens.next() {
        Token::Sign("(") => {}
        other => return Err(other.unexpected("'('")),
    }
    let mut values = Vec::new();
    loop {
        match tokens.peek() {
            Token::Word(value) => {
                tokens.next();
                values.push(value.to_owned());
            }
            Token::Sign("," | ")") => values.push(String::new()),
            other => return Err(other.unexpected("',', ')' or identifier")),
        }
        match tokens.next() {
            Token::Sign(",") => {}
            Token::Sign(")") => break,
            other => return Err(other.unexpected("',' or ')'")),
        }
    }
    values.sort();
    values.dedup();
    Ok(values)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

impl Token<'_> {
    fn unexpected(self, expected: &'static str) -> SelectorError {
        let found = match self {
            Self::Word(w) | Self::Sign(w) => w.to_owned(),
            Self::End => String::new(),
        };
        SelectorError::Syntax { found, expected }
    }
}

/// Splits a selector's text into words and signs.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn split(&self) -> (Token<'a>, &'a str) {
        let rest = self.rest.trim_start();
        if rest.is_empty() {
            return (Token::End, rest);
        }
        for sign in ["==", "!=", "=", "!", "(", ")", ",", ">", "<"] {
            if rest.starts_with(sign) {
                let (sign, rest) = rest.split_at(sign.len());
                return (Token::Sign(sign), rest);
            }
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace() || "=!(),><".contains(c)).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        (Token::Word(word), rest)
    }

    fn peek(&self) -> Token<'a> {
        self.split().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.split();
        self.rest = rest;
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn selects(selector: &str, pairs: &[(&str, &str)]) -> bool {
        selector.parse::<LabelSelector>().unwrap().matches(&labels(pairs))
    }

    #[test]
    fn matches_sets_and_absence() {
        assert!(selects("a in (b,c),!d", &[("a", "c")]));
        assert!(!selects("a in (b,c),!d", &[("a", "c"), ("d", "")]));
        assert!(selects("a notin (b)", &[]));
        assert!(selects("a!=b", &[("a", "x")]));
        assert!(selects("a", &[("a", "")]));
        assert!(selects("a=", &[("a", "")]));
        assert!(selects("a == b , c", &[("a", "b"), ("c", "1")]));
        assert!(selects("n>3,n<5", &[("n", "4")]));
        assert!(selects("", &[]));
    }

    #[test]
    fn refuses_broken_texts() {
        for text in ["a in b", "a in (b", ",", "a,", "a b", "!", "a in ()x", "a>x", "-a=b", "a=b=c"] {
            assert!(text.parse::<LabelSelector>().is_err(), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["a=b", "a in (b,c),!d,e", "a!=b", "a notin (b,c)", "n>3"] {
            assert_eq!(text.parse::<LabelSelector>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn reads_the_object_form() {
        let object: meta::LabelSelector = serde_json::from_str(
            r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"NotIn","values":["d"]}]}"#,
        )
        .unwrap();
        let selector = LabelSelector::from_object(&object).unwrap();
        assert!(selector.matches(&labels(&[("a", "b")])));
        assert!(!selector.matches(&labels(&[("a", "b"), ("c", "d")])));
    }
}
