//! Resource quantities: a fixed-point number with a decimal (`500m`, `2k`), binary (`1Gi`) or exponent (`1e3`) suffix.
//!
//! Values are kept in nano units, the finest the API knows; finer input is rounded away from zero, as upstream does.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use thiserror::Error;

const NANOS: i128 = 1_000_000_000;
/// Largest magnitude: 2^63 - 1 whole units.
const LIMIT: i128 = (i64::MAX as i128) * NANOS;

/// Which suffixes a quantity is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `n u m k M G T P E`, powers of 1000.
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`, powers of 1024.
    BinarySi,
    /// `e3`, powers of ten.
    DecimalExponent,
}

/// A resource quantity. Equality and order are those of the value; the format is only how it is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum QuantityError {
    /// There is no text.
    #[error("quantity is empty: write a number with an optional suffix, such as 500m or 1Gi")]
    Empty,
    /// It is not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing, written as a decimal.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Whole units.
    #[must_use]
    pub fn whole(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANOS, format }
    }

    /// Thousandths.
    #[must_use]
    pub fn from_milli(value: i64) -> Self {
        Self { nanos: i128::from(value) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// Bytes, written with a binary suffix.
    #[must_use]
    pub fn from_bytes(value: i64) -> Self {
        Self::whole(value, Format::BinarySi)
    }

    /// Whole units, rounded up.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.rounded_up(NANOS)
    }

    /// Thousandths, rounded up.
    #[must_use]
    pub fn milli(&self) -> i64 {
        self.rounded_up(NANOS / 1000)
    }

    /// How it is written.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn signum(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// Whether it is a whole number of units.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Whether it is a whole number of thousandths.
    #[must_use]
    pub fn is_whole_milli(&self) -> bool {
        self.nanos % (NANOS / 1000) == 0
    }

    /// Without parts finer than a thousandth, rounded up.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        let unit = NANOS / 1000;
        let up = self.nanos.div_euclid(unit) + i128::from(self.nanos.rem_euclid(unit) != 0);
        Self { nanos: up * unit, format: self.format }
    }

    fn rounded_up(&self, unit: i128) -> i64 {
        let up = self.nanos.div_euclid(unit) + i128::from(self.nanos.rem_euclid(unit) != 0);
        i64::try_from(up).unwrap_or(if up > 0 { i64::MAX } else { i64::MIN })
    }

    fn capped(nanos: i128, format: Format) -> Self {
        Self { nanos: nanos.clamp(-LIMIT, LIMIT), format }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum; a zero takes the other's format.
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self::capped(self.nanos + other.nanos, format)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self::capped(self.nanos - other.nanos, format)
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Empty);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (scale, format) = Scale::parse(suffix)?;
        let nanos = scale.apply(whole, fraction);
        Ok(Self::capped(if negative { -nanos } else { nanos }, format))
    }
}

/// What a suffix multiplies with.
enum Scale {
    Ten(i32),
    Two(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Result<(Self, Format), QuantityError> {
        let decimal = |power| Ok((Self::Ten(power), Format::DecimalSi));
        let binary = |power| Ok((Self::Two(power), Format::BinarySi));
        match suffix {
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "" => decimal(0),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            "Ki" => binary(10),
            "Mi" => binary(20),
            "Gi" => binary(30),
            "Ti" => binary(40),
            "Pi" => binary(50),
            "Ei" => binary(60),
            _ => {
                let Some(digits) = suffix.strip_prefix(['e', 'E']) else {
                    let known = suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c));
                    return Err(if known { QuantityError::Suffix } else { QuantityError::Format });
                };
                let power = digits.parse::<i32>().map_err(|_| QuantityError::Suffix)?;
                Ok((Self::Ten(power.clamp(-60, 60)), Format::DecimalExponent))
            }
        }
    }

    /// The number in nano units, rounded up; saturates far beyond the limit.
    fn apply(&self, whole: &str, fraction: &str) -> i128 {
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let mut exponent = 9 - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
        let mut factor = 1i128;
        match self {
            Self::Ten(power) => exponent = exponent.saturating_add(*power),
            Self::Two(power) => factor = 1i128 << power,
        }
        let (kept, cut) = digits.split_at(digits.len().min(36));
        exponent = exponent.saturating_add(i32::try_from(cut.len()).unwrap_or(i32::MAX));
        let mut value = kept.parse::<i128>().unwrap_or(0);
        let mut rest = cut.bytes().any(|b| b != b'0');
        value = value.saturating_mul(factor);
        while exponent < 0 && value != 0 {
            rest |= value % 10 != 0;
            value /= 10;
            exponent += 1;
        }
        while exponent > 0 && value != 0 && value <= LIMIT {
            value = value.saturating_mul(10);
            exponent -= 1;
        }
        value.saturating_add(i128::from(rest)).min(LIMIT)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that keeps the number whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANOS {
            let whole = self.nanos.div_euclid(NANOS) + i128::from(self.nanos.rem_euclid(NANOS) != 0);
            let (number, power) = without_factors(whole, 1024, BINARY.len() - 1);
            return write!(f, "{number}{}", BINARY[power]);
        }
        let (number, power) = without_factors(self.nanos, 1000, DECIMAL.len() - 1);
        if self.format != Format::DecimalExponent {
            return write!(f, "{number}{}", DECIMAL[power]);
        }
        match i32::try_from(power).unwrap_or(0) * 3 - 9 {
            0 => write!(f, "{number}"),
            exponent => write!(f, "{number}e{exponent}"),
        }
    }
}

fn without_factors(mut number: i128, factor: i128, most: usize) -> (i128, usize) {
    let mut power = 0;
    while power < most && number % factor == 0 {
        number /= factor;
        power += 1;
    }
    (number, power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn writes_the_canonical_form() {
        for (given, expected) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1e3"),
            ("12e4", "120e3"),
            ("100000", "100k"),
            ("1500", "1500"),
            ("512", "512"),
            ("0", "0"),
            ("-2", "-2"),
            ("0.1n", "1n"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("+3", "3"),
            (".5", "500m"),
            ("5.", "5"),
        ] {
            assert_eq!(canonical(given), expected, "{given}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        assert_eq!("".parse::<Quantity>(), Err(QuantityError::Empty));
        assert_eq!("x".parse::<Quantity>(), Err(QuantityError::Format));
        assert_eq!("1Zi".parse::<Quantity>(), Err(QuantityError::Format));
        assert_eq!("1mm".parse::<Quantity>(), Err(QuantityError::Suffix));
        assert_eq!("1.2.3".parse::<Quantity>(), Err(QuantityError::Format));
    }

    #[test]
    fn compares_and_adds_across_formats() {
        let (gi, g): (Quantity, Quantity) = ("1Gi".parse().unwrap(), "1G".parse().unwrap());
        assert!(gi > g);
        assert_eq!("1000m".parse::<Quantity>().unwrap(), "1".parse().unwrap());
        assert_eq!((gi + gi).to_string(), "2Gi");
        assert_eq!((Quantity::ZERO + gi).to_string(), "1Gi");
    }

    #[test]
    fn rounds_up_to_units() {
        let cpu: Quantity = "1500m".parse().unwrap();
        assert_eq!((cpu.value(), cpu.milli()), (2, 1500));
        assert_eq!("100m".parse::<Quantity>().unwrap().value(), 1);
        assert!(!cpu.is_whole());
        assert_eq!("500u".parse::<Quantity>().unwrap().rounded_to_milli().to_string(), "1m");
    }

    #[test]
    fn caps_what_is_too_large() {
        assert_eq!("100E".parse::<Quantity>().unwrap().value(), i64::MAX);
        assert_eq!("1e50".parse::<Quantity>().unwrap().value(), i64::MAX);
    }
}
