//! Numbers that may be given as a share: `3` or `"25%"`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use thiserror::Error;

/// Which way a share is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Down, as for what may be unavailable.
    Down,
    /// Up, as for what may be added.
    Up,
}

/// A text that is no share.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("invalid value for IntOrString: {0:?} is not a percentage such as 25%")]
pub struct ShareError(String);

/// The percent number of a text such as `25%`.
#[must_use]
pub fn percent(text: &str) -> Option<i32> {
    let digits = text.strip_suffix('%')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The number itself, or the share of the total.
///
/// # Errors
/// When a text is no percentage.
pub fn scaled(value: &IntOrString, total: i32, rounding: Rounding) -> Result<i32, ShareError> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let share = percent(text).ok_or_else(|| ShareError(text.clone()))?;
            Ok(of_total(share, total, rounding))
        }
    }
}

/// So many percent of the total.
#[must_use]
pub fn of_total(percent: i32, total: i32, rounding: Rounding) -> i32 {
    let product = i64::from(percent) * i64::from(total);
    let share = match rounding {
        Rounding::Down => product.div_euclid(100),
        Rounding::Up => -(-product).div_euclid(100),
    };
    i32::try_from(share).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_shares_as_asked() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(scaled(&quarter, 3, Rounding::Up), Ok(1));
        assert_eq!(scaled(&quarter, 3, Rounding::Down), Ok(0));
        assert_eq!(scaled(&IntOrString::Int(7), 3, Rounding::Down), Ok(7));
    }

    #[test]
    fn refuses_texts_that_are_no_share() {
        assert!(scaled(&IntOrString::String("25".into()), 4, Rounding::Up).is_err());
        assert!(scaled(&IntOrString::String("-5%".into()), 4, Rounding::Up).is_err());
    }
}
