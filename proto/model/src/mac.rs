//! Ethernet addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that is not six colon-separated hexadecimal bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ethernet address such as 02:00:0a:f4:00:02")]
pub struct MacError(String);

/// An Ethernet address, in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let refused = || MacError(text.into());
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refused)?;
            *byte = u8::from_str_radix(part, 16).ok().ok_or_else(refused)?;
        }
        if parts.next().is_some() { Err(refused()) } else { Ok(MacAddr(bytes)) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let mac: MacAddr = "02:00:0a:f4:00:02".parse().unwrap();
        assert_eq!(mac, MacAddr([2, 0, 10, 244, 0, 2]));
        assert_eq!(mac.to_string(), "02:00:0a:f4:00:02");
    }

    #[test]
    fn short_long_and_foreign_texts_are_refused() {
        for text in ["", "02:00", "02:00:0a:f4:00:02:03", "0g:00:0a:f4:00:02", "2:0:a:f4:0:2"] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
