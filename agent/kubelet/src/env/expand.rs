//! `$(NAME)` expansion: unknown names stay as they are, `$$` is a literal dollar. Pure.

/// Expands references in `input` with what `lookup` knows.
pub(crate) fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        output.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            output.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => output.push_str(&value),
                None => {
                    output.push_str("$(");
                    output.push_str(name);
                    output.push(')');
                }
            }
            rest = after;
        } else {
            output.push('$');
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(input: &str) -> String {
        expand(input, |name| (name == "A").then(|| "1".to_owned()))
    }

    #[test]
    fn expands_known_names_and_keeps_the_rest() {
        assert_eq!(known("x$(A)y"), "x1y");
        assert_eq!(known("$(B)"), "$(B)");
        assert_eq!(known("$$(A)"), "$(A)");
        assert_eq!(known("$$$(A)"), "$1");
        assert_eq!(known("cost $5 and $"), "cost $5 and $");
        assert_eq!(known("$(A"), "$(A");
    }

    proptest::proptest! {
        #[test]
        fn text_without_a_dollar_is_kept(text in "[^$]*") {
            proptest::prop_assert_eq!(known(&text), text);
        }

        #[test]
        fn no_text_panics(text in "[$()A-z]*") {
            let _ = known(&text);
        }
    }
}
