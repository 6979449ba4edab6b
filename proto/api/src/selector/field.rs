//! Field selectors: `metadata.name=x,spec.nodeName!=y`. Values may escape `\`, `,` and `=` with a backslash.

use std::fmt;
use std::str::FromStr;

use super::SelectorError;

/// One comparison of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Field name, as `spec.nodeName`.
    pub field: String,
    /// Must equal (true) or must differ (false).
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// All of some comparisons; with none, it selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// The comparisons.
    #[must_use]
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that a field must have, when there is exactly such a comparison.
    #[must_use]
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// Whether fields, looked up by the function, satisfy all comparisons; an absent field is an empty text.
    pub fn matches_with<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (field(&r.field).unwrap_or_default() == r.value) == r.equal)
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            requirements.push(parse_term(term)?);
        }
        Ok(Self { requirements })
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            terms.push(&text[start..i]);
            start = i + 1;
        }
    }
    terms.push(&text[start..]);
    terms
}

fn parse_term(term: &str) -> Result<FieldRequirement, SelectorError> {
    let wrong = || SelectorError::Term(term.to_owned());
    let at = term.find('=').ok_or_else(wrong)?;
    let (field, equal, value) = if let Some(field) = term[..at].strip_suffix('!') {
        (field, false, &term[at + 1..])
    } else {
        (&term[..at], true, term[at + 1..].strip_prefix('=').unwrap_or(&term[at + 1..]))
    };
    let value = unescape(value).ok_or_else(wrong)?;
    Ok(FieldRequirement { field: field.to_owned(), equal, value })
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let sign = if r.equal { "=" } else { "!=" };
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{sign}{value}", r.field)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_equal_and_different() {
        let selector: FieldSelector = "metadata.name==a,spec.nodeName!=b".parse().unwrap();
        let with = |node: &'static str| {
            selector.matches_with(|f| if f == "metadata.name" { Some("a") } else { Some(node) })
        };
        assert!(with("c"));
        assert!(!with("b"));
        assert_eq!(selector.required_value("metadata.name"), Some("a"));
    }

    #[test]
    fn reads_escapes_and_writes_them() {
        let selector: FieldSelector = r"a=x\,y\=z".parse().unwrap();
        assert_eq!(selector.requirements()[0].value, "x,y=z");
        assert_eq!(selector.to_string(), r"a=x\,y\=z");
    }

    #[test]
    fn refuses_terms_without_operator() {
        assert!("a".parse::<FieldSelector>().is_err());
        assert!("a=b=c".parse::<FieldSelector>().is_err());
    }
}
