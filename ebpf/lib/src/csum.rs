//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624), for tests and for user space.
//!
//! Classifiers let the kernel's helpers do this, because only the kernel knows whether a checksum is complete yet. XDP
//! sees packets as they came over the wire, with complete checksums, and uses [`replace`].

use skep_abi::Be16;

use crate::packet::ChecksumFix;

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

#[inline(always)]
const fn halves(word: u32) -> u64 {
    (word & 0xffff) as u64 + (word >> 16) as u64
}

/// A complete checksum after the change that `fix` describes. Where the checksum lies does not matter here.
#[inline(always)]
#[must_use]
pub const fn replace(checksum: Be16, fix: &ChecksumFix) -> Be16 {
    if fix.udp && checksum.raw() == 0 {
        return checksum;
    }
    // One's complement sums do not care about byte order, as long as all words have the same.
    let mask = if fix.size == 2 { 0xffff } else { u32::MAX };
    let removed = halves(!fix.from & mask);
    let sum = (!checksum.raw()) as u64 + removed + halves(fix.to & mask);
    let value = !fold(sum);
    Be16::from_raw(if fix.udp && value == 0 { 0xffff } else { value })
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
        fn a_replacement_equals_an_update(
            checksum in any::<u16>(), from in any::<[u8; 4]>(), to in any::<[u8; 4]>(), short in any::<bool>(),
        ) {
            let size = if short { 2 } else { 4 };
            let fix = ChecksumFix {
                at: 0,
                from: u32::from_ne_bytes([from[0], from[1], if short { 0 } else { from[2] }, if short { 0 } else { from[3] }]),
                to: u32::from_ne_bytes([to[0], to[1], if short { 0 } else { to[2] }, if short { 0 } else { to[3] }]),
                size: size as u32,
                pseudo: false,
                udp: false,
            };
            let value = replace(Be16::new(checksum), &fix);
            prop_assert_eq!(value.get(), update(checksum, &from[..size], &to[..size]));
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
