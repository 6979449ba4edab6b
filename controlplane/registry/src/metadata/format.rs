//! The shapes of names: DNS labels and subdomains, qualified names, label values, ports, addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character";
const PREFIX: &str = "prefix part must be a lowercase RFC 1123 subdomain";

fn is_lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// At most 63 of a-z, 0-9 and `-`, with a letter or digit at both ends.
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_label_of_any_length(text)
}

fn is_label_of_any_length(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(is_lower_or_digit)
        && bytes.last().copied().is_some_and(is_lower_or_digit)
        && bytes.iter().all(|b| is_lower_or_digit(*b) || *b == b'-')
}

/// Labels joined by dots, at most 253.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label_of_any_length)
}

/// A DNS label that begins with a letter.
pub(crate) fn is_service_name(text: &str) -> bool {
    is_dns_label(text) && text.as_bytes()[0].is_ascii_lowercase()
}

/// A subdomain that may begin with the label `*`.
pub(crate) fn is_wildcard_domain(text: &str) -> bool {
    text.strip_prefix("*.").is_some_and(is_dns_subdomain)
}

/// What keeps a name from standing between slashes.
pub(crate) fn path_segment_problem(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        n if n.contains('/') => Some("may not contain '/'"),
        n if n.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

/// Everything that is wrong with a name that may have a DNS prefix.
pub(crate) fn qualified_name_problems(text: &str) -> Vec<&'static str> {
    let (prefix, name) = match text.split_once('/') {
        Some((_, name)) if name.contains('/') => return vec![QUALIFIED],
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let mut problems = Vec::new();
    match prefix {
        Some("") => problems.push("prefix part must be non-empty"),
        Some(prefix) if !is_dns_subdomain(prefix) => problems.push(PREFIX),
        _ => {}
    }
    if name.is_empty() {
        problems.push("name part must be non-empty");
    } else if name.len() > 63 {
        problems.push("name part must be no more than 63 bytes");
    }
    if name.is_empty() || !is_label_shaped(name) {
        problems.push(QUALIFIED);
    }
    problems
}

/// The shape of a label value, whatever its length.
fn is_label_shaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What is wrong with a label value.
pub(crate) fn label_value_problem(text: &str) -> Option<&'static str> {
    if skep_api::selector::is_label_value(text) { None } else { Some(LABEL_VALUE) }
}

/// Everything that is wrong with a port's name.
pub(crate) fn port_name_problems(text: &str) -> Vec<&'static str> {
    let bytes = text.as_bytes();
    let mut problems = Vec::new();
    if bytes.len() > 15 {
        problems.push("must be no more than 15 characters");
    }
    if bytes.is_empty() || !bytes.iter().all(|b| is_lower_or_digit(*b) || *b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        problems.push("must contain at least one letter (a-z)");
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens");
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen");
    }
    problems
}

/// A key of ConfigMaps and Secrets.
pub(crate) fn is_config_key(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text != "."
        && !text.starts_with("..")
}

/// A C identifier as environment variable names were once required to be; relaxed: printable ASCII but `=`.
pub(crate) fn is_env_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

/// An address in canonical decimal form.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// A CIDR block: its address and prefix length.
pub(crate) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = ip(address)?;
    if bits.is_empty() || bits.len() > 3 || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// Whether the block holds the address.
pub(crate) fn cidr_contains(block: (IpAddr, u8), address: IpAddr) -> bool {
    network(block.0, block.1) == network(address, block.1) && block.0.is_ipv4() == address.is_ipv4()
}

/// The address with the bits behind the prefix cleared.
pub(crate) fn network(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from(u32::from(v4) & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from(u128::from(v6) & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_names_apart() {
        assert!(is_dns_subdomain("a.b-c") && !is_dns_subdomain("a.") && !is_dns_subdomain("A"));
        assert!(is_service_name("a1") && !is_service_name("1a"));
        assert!(port_name_problems("http").is_empty());
        assert_eq!(port_name_problems("BAD").len(), 2);
        assert!(qualified_name_problems("a/b").is_empty() && qualified_name_problems("").len() == 2);
        assert!(is_config_key("a.b_c") && !is_config_key("..") && !is_config_key("a b"));
    }

    #[test]
    fn reads_blocks() {
        assert!(cidr("10.0.0.0/8").is_some() && cidr("10.0.0.0/33").is_none() && cidr("10.0.0.0").is_none());
        let block = cidr("10.1.0.0/16").unwrap();
        assert!(cidr_contains(block, "10.1.2.3".parse().unwrap()));
        assert!(!cidr_contains(block, "10.2.0.1".parse().unwrap()));
        assert!(cidr_contains(cidr("0.0.0.0/0").unwrap(), "1.2.3.4".parse().unwrap()));
    }
}
