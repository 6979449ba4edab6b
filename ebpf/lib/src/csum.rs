//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624), for tests and for user space.
//!
//! Programs let the kernel's helpers do this, because only the kernel knows whether a checksum is complete yet.

/// Folds carries into sixteen bits.
#[inline]
#[must_use]
pub const fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of bytes, not complemented, in host order.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(2);
    let mut total: u64 = chunks.by_ref().map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    if let [last] = chunks.remainder() {
        total += u64::from(*last) << 8;
    }
    total
}

/// The checksum of bytes, host order.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// A checksum after `from` became `to` (both of the same even length).
#[must_use]
pub fn update(checksum: u16, from: &[u8], to: &[u8]) -> u16 {
    let removed: u64 =
        from.chunks_exact(2).map(|pair| u64::from(!u16::from_be_bytes([pair[0], pair[1]]))).sum();
    !fold(u64::from(!checksum) + removed + sum(to))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_update_equals_a_new_checksum(mut bytes in prop::collection::vec(any::<u8>(), 8..64), to in any::<[u8; 4]>()) {
            bytes.truncate(bytes.len() & !1);
            // Bytes that are all zero have two spellings of their sum; packets never are.
            bytes.push(1);
            bytes.push(0);
            let before = checksum(&bytes);
            let from: Vec<u8> = bytes[2..6].to_vec();
            bytes[2..6].copy_from_slice(&to);
            prop_assert_eq!(update(before, &from, &to), checksum(&bytes));
        }

        #[test]
        fn a_block_with_its_checksum_sums_to_all_ones(mut bytes in prop::collection::vec(any::<u8>(), 20..60)) {
            bytes.truncate(bytes.len() & !1);
            bytes[10..12].copy_from_slice(&[0, 0]);
            bytes[0] = 0x45;
            let value = checksum(&bytes).to_be_bytes();
            bytes[10..12].copy_from_slice(&value);
            prop_assert_eq!(fold(sum(&bytes)), 0xffff);
        }
    }
}
