//! What the values of a form may be. Each check takes a [`Field`] and answers a [`Patch`]: absent, cleared or
//! set; the refusal names the field as the caller wrote it.

use super::amount::{self, Usd};
use super::form::{Field, Patch};
use super::refusal::{Code, Refusal};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Longest list of groups, as text.
const GROUPS_MAX: usize = 200;

impl Field {
    fn read<T: DeserializeOwned>(&self, code: Code) -> Result<Patch<T>, Refusal> {
        match self.json() {
            None => Ok(None),
            Some(None) => Ok(Some(None)),
            Some(Some(text)) => match serde_json::from_str(text) {
                Ok(value) => Ok(Some(Some(value))),
                Err(_) => Err(self.refuse(code)),
            },
        }
    }

    /// A refusal about this field.
    pub fn refuse(&self, code: Code) -> Refusal {
        Refusal::field(code, self.name)
    }

    /// A text of at most `max` characters, without white space around it.
    pub fn text(&self, max: usize) -> Result<Patch<String>, Refusal> {
        let Some(Some(text)) = self.read::<String>(Code::NotText)? else {
            return Ok(self.json().map(|_| None));
        };
        let text = text.trim();
        if text.contains('\0') {
            return Err(self.refuse(Code::ControlCharacter));
        }
        match text.chars().count() > max {
            true => Err(self.refuse(Code::MaxLength).with("max", max)),
            false => Ok(Some(Some(text.to_owned()))),
        }
    }

    /// A text that must not be empty; null is no text either.
    pub fn name(&self, max: usize) -> Result<Option<String>, Refusal> {
        match self.text(max)? {
            None => Ok(None),
            Some(None) => Err(self.refuse(Code::Required)),
            Some(Some(text)) if text.is_empty() => Err(self.refuse(Code::MinLength).with("min", 1)),
            Some(Some(text)) => Ok(Some(text)),
        }
    }

    /// True or false; null is `default`.
    pub fn flag(&self, default: bool) -> Result<Option<bool>, Refusal> {
        Ok(self.read::<bool>(Code::NotBoolean)?.map(|flag| flag.unwrap_or(default)))
    }

    /// The number's exact text; texts that hold a number count, as forms in browsers send them.
    fn digits(&self, code: Code) -> Result<Patch<rust_decimal::Decimal>, Refusal> {
        let Some(json) = self.json() else { return Ok(None) };
        let Some(text) = json else { return Ok(Some(None)) };
        let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        match amount::parse(inner) {
            Some(number) => Ok(Some(Some(number))),
            // It is a number to everybody else.
            None if inner.parse::<f64>().is_ok() && inner.contains(|c: char| c.is_ascii_digit()) => {
                Err(self.refuse(Code::NotExact))
            }
            None => Err(self.refuse(code)),
        }
    }

    /// A whole number within bounds.
    pub fn int(&self, bounds: RangeInclusive<i64>) -> Result<Patch<i64>, Refusal> {
        let Some(Some(number)) = self.digits(Code::NotInteger)? else {
            return Ok(self.json().map(|_| None));
        };
        if !number.fract().is_zero() {
            return Err(self.refuse(Code::NotInteger));
        }
        match i64::try_from(number.trunc()) {
            Ok(number) if bounds.contains(&number) => Ok(Some(Some(number))),
            _ => Err(self.refuse(Code::Range).with("min", *bounds.start()).with("max", *bounds.end())),
        }
    }

    /// The same for a column of 32 bits.
    pub fn int32(&self, bounds: RangeInclusive<i32>) -> Result<Patch<i32>, Refusal> {
        let wide = i64::from(*bounds.start())..=i64::from(*bounds.end());
        let narrow = |number: i64| i32::try_from(number).unwrap_or(*bounds.end());
        Ok(self.int(wide)?.map(|number| number.map(narrow)))
    }

    /// Zero (off), or a whole number within bounds; null is zero.
    pub fn int_or_zero(&self, bounds: RangeInclusive<i32>) -> Result<Option<i32>, Refusal> {
        match self.int32(i32::MIN..=i32::MAX)? {
            None => Ok(None),
            Some(None | Some(0)) => Ok(Some(0)),
            Some(Some(number)) if bounds.contains(&number) => Ok(Some(number)),
            Some(Some(_)) => {
                Err(self.refuse(Code::RangeOrZero).with("min", *bounds.start()).with("max", *bounds.end()))
            }
        }
    }

    /// The identity of a row: required.
    pub fn id(&self) -> Result<i64, Refusal> {
        match self.int(1..=i64::MAX)? {
            Some(Some(id)) => Ok(id),
            _ => Err(self.refuse(Code::Required)),
        }
    }

    /// An amount of US dollars from 0 to `max`.
    pub fn usd(&self, max: i64) -> Result<Patch<Usd>, Refusal> {
        let Some(Some(number)) = self.digits(Code::NotNumber)? else {
            return Ok(self.json().map(|_| None));
        };
        match number >= rust_decimal::Decimal::ZERO && number <= max.into() {
            // Counters hold billionths of a dollar; what rounds to none of them would be no limit at all.
            true if !number.is_zero() && number < amount::LEAST_LIMIT => {
                Err(self.refuse(Code::LimitTooSmall).with("min", amount::LEAST_LIMIT.to_string()))
            }
            true => Ok(Some(Some(amount::limit(number)))),
            false => Err(self.refuse(Code::Range).with("min", 0).with("max", max)),
        }
    }

    /// One of `words`; null is the first.
    pub fn word(&self, words: &[&'static str]) -> Result<Option<&'static str>, Refusal> {
        let first = words.first().copied();
        let wrong = || self.refuse(Code::OneOf).with("words", words.join(", "));
        match self.read::<String>(Code::NotText)? {
            None => Ok(None),
            Some(None) => Ok(first),
            Some(Some(text)) => words.iter().copied().find(|word| *word == text).map(Some).ok_or_else(wrong),
        }
    }

    /// A time of day as `HH:mm`.
    pub fn clock(&self) -> Result<Patch<String>, Refusal> {
        match self.text(8)? {
            Some(Some(text)) if text.is_empty() => Ok(Some(None)),
            Some(Some(text)) => match is_clock(&text) {
                true => Ok(Some(Some(text))),
                false => Err(self.refuse(Code::Clock)),
            },
            other => Ok(other),
        }
    }

    /// A list of texts, or one text with commas. Empty entries go; order and repetition stay.
    pub fn list(&self, items: usize, length: usize) -> Result<Option<Vec<String>>, Refusal> {
        let entries: Vec<String> = match self.read::<Value>(Code::NotList)? {
            None => return Ok(None),
            Some(None) => Vec::new(),
            Some(Some(Value::String(text))) => split(&text),
            Some(Some(Value::Array(entries))) => {
                let texts = entries.into_iter().map(|entry| match entry {
                    Value::String(text) => Ok(text.trim().to_owned()),
                    _ => Err(self.refuse(Code::NotList)),
                });
                texts.collect::<Result<_, _>>()?
            }
            Some(Some(_)) => return Err(self.refuse(Code::NotList)),
        };
        let entries: Vec<String> = entries.into_iter().filter(|entry| !entry.is_empty()).collect();
        if entries.len() > items {
            return Err(self.refuse(Code::MaxItems).with("max", items));
        }
        if entries.iter().any(|entry| entry.chars().count() > length) {
            return Err(self.refuse(Code::MaxLength).with("max", length));
        }
        Ok(Some(entries))
    }

    /// A comma list of groups: trimmed, without repetition, sorted.
    pub fn groups(&self) -> Result<Option<Vec<String>>, Refusal> {
        self.groups_within(GROUPS_MAX)
    }

    /// The same of at most `max` characters.
    pub fn groups_within(&self, max: usize) -> Result<Option<Vec<String>>, Refusal> {
        let Some(groups) = self.list(max, max)? else { return Ok(None) };
        let groups: BTreeSet<String> = groups.iter().flat_map(|entry| split(entry)).collect();
        let groups: Vec<String> = groups.into_iter().collect();
        match groups.join(",").chars().count() > max {
            true => Err(self.refuse(Code::MaxLength).with("max", max)),
            false => Ok(Some(groups)),
        }
    }

    /// An object.
    pub fn object(&self) -> Result<Patch<serde_json::Map<String, Value>>, Refusal> {
        self.read(Code::NotObject)
    }

    /// Any JSON; numbers as serde_json keeps them, so never for money.
    pub fn any(&self) -> Result<Patch<Value>, Refusal> {
        self.read(Code::NotObject)
    }
}

/// Splits at commas of both kinds and at line ends.
fn split(text: &str) -> Vec<String> {
    let parts = text.split([',', '，', '\n', '\r']).map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// Whether a text is a time of day as `HH:mm`.
pub fn is_clock(text: &str) -> bool {
    let two = |part: &str, max: u8| {
        part.len() == 2
            && part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u8>().is_ok_and(|n| n <= max)
    };
    text.split_once(':').is_some_and(|(hour, minute)| two(hour, 23) && two(minute, 59))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn field(json: &str) -> Field {
        Field { name: "x", raw: Some(RawValue::from_string(json.to_owned()).unwrap()) }
    }

    #[test]
    fn numbers() {
        let int = |json: &str| field(json).int(0..=1_000_000).map_err(|refusal| refusal.code);
        assert_eq!(int("60"), Ok(Some(Some(60))));
        assert_eq!(int("\"60\""), Ok(Some(Some(60))));
        assert_eq!(int("60.0"), Ok(Some(Some(60))));
        assert_eq!(int("1e3"), Ok(Some(Some(1000))));
        assert_eq!(int("null"), Ok(Some(None)));
        assert_eq!(int("1000000"), Ok(Some(Some(1_000_000))));
        for (json, code) in [
            ("-1", Code::Range),
            ("1000001", Code::Range),
            ("1e20", Code::Range),
            ("1.5", Code::NotInteger),
            ("\"abc\"", Code::NotInteger),
            ("\"\"", Code::NotInteger),
            ("true", Code::NotInteger),
            ("[]", Code::NotInteger),
            ("{}", Code::NotInteger),
            ("99999999999999999999999999999999999", Code::NotExact),
        ] {
            assert_eq!(int(json), Err(code), "{json}");
        }
        let usd =
            |json: &str| field(json).usd(100).map(|patch| patch.flatten().map(|usd| amount::plain(&usd)));
        assert_eq!(usd("0.1"), Ok(Some("0.1".to_owned())));
        assert_eq!(usd("100"), Ok(Some("100".to_owned())));
        assert_eq!(usd("100.01").map_err(|r| r.code), Err(Code::Range));
        assert_eq!(usd("0.000000001"), Ok(Some("0.000000001".to_owned())));
        assert_eq!(usd("0.0"), Ok(Some("0".to_owned())));
        for small in ["0.0000000009", "0.0000000004", "1e-12"] {
            assert_eq!(usd(small).map_err(|r| r.code), Err(Code::LimitTooSmall), "{small}");
        }
        assert_eq!(usd("-0.01").map_err(|r| r.code), Err(Code::Range));
    }

    #[test]
    fn texts_and_lists() {
        let name = |json: &str| field(json).name(4).map_err(|refusal| refusal.code);
        assert_eq!(name("\" ab \""), Ok(Some("ab".to_owned())));
        assert_eq!(name("\"四个汉字\""), Ok(Some("四个汉字".to_owned())));
        assert_eq!(name("\"  \""), Err(Code::MinLength));
        assert_eq!(name("null"), Err(Code::Required));
        assert_eq!(name("\"abcde\""), Err(Code::MaxLength));
        assert_eq!(name("5"), Err(Code::NotText));
        assert_eq!(Field::absent("x").name(4), Ok(None));
        assert_eq!(field("\"b, a，b\\nc\"").groups(), Ok(Some(vec!["a".into(), "b".into(), "c".into()])));
        assert_eq!(field("[\"a\",\"\"]").list(2, 3), Ok(Some(vec!["a".into()])));
        assert_eq!(field("[\"a\",1]").list(2, 3).map_err(|r| r.code), Err(Code::NotList));
        assert_eq!(field("[\"abcd\"]").list(2, 3).map_err(|r| r.code), Err(Code::MaxLength));
        assert_eq!(field("\"x\"").word(&["a", "b"]).map_err(|r| r.code), Err(Code::OneOf));
        assert_eq!(field("null").word(&["a", "b"]), Ok(Some("a")));
        assert_eq!(field("\"24:00\"").clock().map_err(|r| r.code), Err(Code::Clock));
        assert_eq!(field("\"23:59\"").clock(), Ok(Some(Some("23:59".to_owned()))));
        assert_eq!(field("0").int_or_zero(5..=9), Ok(Some(0)));
        assert_eq!(field("4").int_or_zero(5..=9).map_err(|r| r.code), Err(Code::RangeOrZero));
    }
}
