//! Numbers that stay exact on their way between JSON, Postgres and the domain. Never floating point.

use bigdecimal::BigDecimal;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Places of a money limit: nano-USD, the unit of all counters.
const LIMIT_SCALE: u32 = 9;

/// The least money limit, one nano-dollar. Less would be stored as 0, which is unlimited.
pub const LEAST_LIMIT: Decimal = Decimal::from_parts(1, 0, 0, false, LIMIT_SCALE);

/// US dollars of a limit, as Postgres keeps them.
pub type Usd = BigDecimal;

/// A number in JSON or a text, exactly. Takes `0.1`, `3e-06` and `1E+2`.
pub fn parse(text: &str) -> Option<Decimal> {
    let text = text.trim();
    // A scale beyond 28 places or more digits than 96 bits hold would have to be rounded: refused.
    match text.split_once(['e', 'E']) {
        None => Decimal::from_str_exact(text).ok(),
        Some((base, exponent)) => {
            Decimal::from_str_exact(base).ok()?;
            let exponent = exponent.strip_prefix('+').unwrap_or(exponent);
            Decimal::from_scientific(&format!("{base}e{exponent}")).ok()
        }
    }
}

/// A money limit, rounded to nano-dollars.
pub fn limit(value: Decimal) -> Usd {
    to_big(value.round_dp_with_strategy(LIMIT_SCALE, RoundingStrategy::MidpointAwayFromZero))
}

/// Exactly the same number for Postgres.
pub fn to_big(value: Decimal) -> BigDecimal {
    BigDecimal::from_bigint(value.mantissa().into(), i64::from(value.scale())).normalized()
}

/// The plain decimal text of a number from Postgres: no exponent, no trailing zeros.
pub fn plain(value: &BigDecimal) -> String {
    let text = value.to_plain_string();
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text.as_str(),
    };
    match text {
        "-0" | "" => "0".to_owned(),
        text => text.to_owned(),
    }
}

/// A number that JSON shows with all its digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exact(String);

impl Exact {
    /// Of a column.
    pub fn of(value: &BigDecimal) -> Self {
        Self(plain(value))
    }

    /// Of a nullable column.
    pub fn maybe(value: Option<&BigDecimal>) -> Option<Self> {
        value.map(Self::of)
    }

    /// Of a domain value.
    pub fn decimal(value: Decimal) -> Self {
        Self(value.normalize().to_string())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.0.clone()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_survive() {
        let cases = [
            ("3e-06", "0.000003"),
            ("1.5E-5", "0.000015"),
            ("1E+2", "100"),
            ("0.1", "0.1"),
            ("10.00", "10"),
            ("0", "0"),
            ("-0.0", "0"),
            ("0.0000000000000000000000000001", "0.0000000000000000000000000001"),
        ];
        for (text, want) in cases {
            let value = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(plain(&to_big(value)), want, "{text}");
            let json = serde_json::to_string(&Exact::of(&to_big(value))).unwrap();
            assert_eq!(json, want, "{text}");
        }
        for text in ["", "abc", "1e-40", "NaN", "Infinity", "1e", "0x10", "1e99"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn limits_are_nano_dollars() {
        assert_eq!(plain(&limit(parse("0.30000000000000004").unwrap())), "0.3");
        assert_eq!(plain(&limit(parse("0.0000000015").unwrap())), "0.000000002");
    }
}
