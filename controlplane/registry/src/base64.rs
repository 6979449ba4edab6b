//! Standard base64 without a dependency: check, length, decode and encode, as Secrets and CSRs need them.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn digit(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// Where the text stops being base64 (line breaks are allowed), or `None` when it is all well.
pub(crate) fn wrong_byte(text: &str) -> Option<usize> {
    let padding =
        text.bytes().rev().take_while(|b| matches!(b, b'=' | b'\n' | b'\r')).filter(|b| *b == b'=').count();
    let mut digits = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\n' | b'\r' => {}
            b'=' if padding > 0 && digits % 4 >= 2 => break,
            b if digit(b).is_some() => digits += 1,
            _ => return Some(at),
        }
    }
    ((digits + padding) % 4 != 0 || padding > 2).then_some(text.len())
}

/// The bytes of a base64 text; what is not base64 is skipped (decoding has refused it before).
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for value in text.bytes().filter_map(digit) {
        bits = bits << 6 | value;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    out
}

/// The base64 text of bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let index = (bits >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in ["", "f", "fo", "foo", "foob"] {
            let encoded = encode(text.as_bytes());
            assert_eq!(wrong_byte(&encoded), None, "{encoded}");
            assert_eq!(decode(&encoded), text.as_bytes());
        }
        assert_eq!(encode(b"v"), "dg==");
    }

    #[test]
    fn finds_what_is_no_base64() {
        assert_eq!(wrong_byte("a$=="), Some(1));
        assert!(wrong_byte("abc").is_some());
        assert!(wrong_byte("a===").is_some());
    }
}
