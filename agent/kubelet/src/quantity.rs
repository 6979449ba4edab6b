//! Reads Kubernetes quantities ("250m", "1Gi", "2e3") as integers in a unit of choice. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// Billionths of the unit, or nothing when the text is no quantity.
fn nanos(text: &str) -> Option<i128> {
    for (suffix, shift) in BINARY {
        if let Some(number) = text.strip_suffix(suffix) {
            return decimal(number, 9)?.checked_mul(1i128 << shift);
        }
    }
    if let Some(at) = text.find(['e', 'E']).filter(|at| at + 1 < text.len()) {
        let exponent: i32 = text.get(at + 1..)?.parse().ok()?;
        return decimal(text.get(..at)?, 9 + exponent);
    }
    for (suffix, exponent) in DECIMAL {
        if let Some(number) = text.strip_suffix(suffix) {
            return decimal(number, 9 + exponent);
        }
    }
    decimal(text, 9)
}

/// `number * 10^exponent`, rounded up to an integer.
fn decimal(number: &str, exponent: i32) -> Option<i128> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let joined: i128 = format!("{whole}{fraction}").parse().ok()?;
    let exponent = exponent - i32::try_from(fraction.len()).ok()?;
    let value = if exponent >= 0 {
        joined.checked_mul(10i128.checked_pow(exponent.unsigned_abs())?)?
    } else {
        divide_up(joined, 10i128.checked_pow(exponent.unsigned_abs())?)
    };
    Some(if negative { -value } else { value })
}

fn divide_up(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0)
}

fn in_unit(quantity: &Quantity, unit_nanos: i128) -> Option<i64> {
    i64::try_from(divide_up(nanos(quantity.0.trim())?, unit_nanos)).ok()
}

/// Whole units (bytes, pods), rounded up.
pub(crate) fn whole(quantity: &Quantity) -> Option<i64> {
    in_unit(quantity, 1_000_000_000)
}

/// Thousandths (CPU), rounded up.
pub(crate) fn milli(quantity: &Quantity) -> Option<i64> {
    in_unit(quantity, 1_000_000)
}

/// How many times `divisor` goes into `quantity`, rounded up: what a resource field reference shows.
pub(crate) fn divided(quantity: &Quantity, divisor: &Quantity) -> Option<i64> {
    let divisor = nanos(divisor.0.trim()).filter(|n| *n > 0)?;
    i64::try_from(divide_up(nanos(quantity.0.trim())?, divisor)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn reads_the_three_suffix_families() {
        assert_eq!(milli(&q("250m")), Some(250));
        assert_eq!(milli(&q("1.5")), Some(1500));
        assert_eq!(whole(&q("1Gi")), Some(1 << 30));
        assert_eq!(whole(&q("2e3")), Some(2000));
        assert_eq!(whole(&q("1500m")), Some(2));
        assert_eq!(whole(&q("1E")), Some(1_000_000_000_000_000_000));
        assert_eq!(whole(&q("0.5Ki")), Some(512));
    }

    #[test]
    fn rejects_what_is_no_quantity() {
        assert_eq!(whole(&q("")), None);
        assert_eq!(whole(&q("lots")), None);
        assert_eq!(whole(&q("1.2.3")), None);
    }

    #[test]
    fn divides_rounding_up() {
        assert_eq!(divided(&q("1500Mi"), &q("1Gi")), Some(2));
        assert_eq!(divided(&q("250m"), &q("1m")), Some(250));
        assert_eq!(divided(&q("250m"), &q("1")), Some(1));
        assert_eq!(divided(&q("1"), &q("0")), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = (whole(&q(&text)), milli(&q(&text)), divided(&q(&text), &q(&text)));
        }

        #[test]
        fn thousandths_are_a_thousand_times_whole_units(number in 0i64..1_000_000_000) {
            let quantity = q(&number.to_string());
            proptest::prop_assert_eq!(milli(&quantity), whole(&quantity).map(|w| w * 1000));
        }
    }
}
