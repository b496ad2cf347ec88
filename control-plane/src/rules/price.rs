//! Price tables: LiteLLM's fields, USD per token, kept as decimal texts. Read from an upload, compared,
//! shown per million tokens. What a request is priced by is made of them in `compile`.

mod table;

pub use table::{Failed, Table, parse_table};

use super::amount::{self, Exact};
use rust_decimal::Decimal;
use serde_json::{Map, Value};

/// A price entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Invalid {
    /// Which of LiteLLM's fields.
    pub field: String,
    /// What is wrong with it.
    pub why: &'static str,
}

fn invalid(field: &str, why: &'static str) -> Invalid {
    Invalid { field: field.to_owned(), why }
}

/// Prices above this are a mistake in the unit: the table is per token.
const MAX_USD: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// Whether every price of an entry is one, those that nothing bills by yet too. What they mean for a request
/// is decided by `compile`.
pub fn check(data: &Value) -> Result<(), Invalid> {
    let fields = data.as_object().ok_or_else(|| invalid("data", "must be an object"))?;
    for (field, value) in fields.iter().filter(|(field, _)| field.contains("cost")) {
        match value {
            Value::Object(_) | Value::Array(_) | Value::Bool(_) if is_billed(field) => {
                return Err(invalid(field, "must be a number"));
            }
            Value::Object(_) => check(value)?,
            Value::Array(_) | Value::Bool(_) => {}
            _ => {
                cost(fields, field)?;
            }
        }
    }
    Ok(())
}

/// Whether requests may be billed by a field: `compile` leaves an entry out in which such a one is no number.
fn is_billed(field: &str) -> bool {
    field.contains("_token") || field == "input_cost_per_request"
}

/// One price. Entries may hold numbers from hands that wrote to the table directly: their shortest decimal
/// form is taken, which is what was typed.
fn cost(fields: &Map<String, Value>, field: &str) -> Result<Option<Decimal>, Invalid> {
    let text = match fields.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(invalid(field, "must be a number")),
    };
    let price = amount::parse(&text).ok_or_else(|| invalid(field, "is no decimal number"))?;
    match price >= Decimal::ZERO && price <= MAX_USD {
        true => Ok(Some(price)),
        false => Err(invalid(field, "is not a price in USD per token")),
    }
}

/// A price per token as USD per million tokens, for people.
pub fn per_million(data: &Value, field: &str) -> Option<Exact> {
    per_million_of(data, &[(field, Decimal::ONE)])
}

/// The same of the first field that is priced, times its share: what a request is billed by where the table says nothing
/// of its own.
pub fn per_million_of(data: &Value, fields: &[(&str, Decimal)]) -> Option<Exact> {
    let data = data.as_object()?;
    let found = fields.iter().find_map(|(field, share)| Some(cost(data, field).ok()??.checked_mul(*share)));
    found?.and_then(|price| price.checked_mul(Decimal::from(1_000_000))).map(Exact::decimal)
}

/// LiteLLM's fields with prices as JSON numbers again, digit for digit.
pub fn shown(data: &Value) -> Shown<'_> {
    Shown(data)
}

/// See [`shown`].
#[derive(Debug)]
pub struct Shown<'a>(&'a Value);

impl serde::Serialize for Shown<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let Some(fields) = self.0.as_object() else { return self.0.serialize(serializer) };
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for (name, value) in fields {
            let number = value.as_str().filter(|_| name.contains("cost")).and_then(amount::parse);
            match number {
                Some(number) => map.serialize_entry(name, &Exact::decimal(number))?,
                None if value.is_object() => map.serialize_entry(name, &Shown(value))?,
                None => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_price_is_checked() {
        for (data, field) in [
            (
                json!({"mode": "chat", "input_cost_per_token": "0.000003", "output_cost_per_token": 1.5e-5}),
                None,
            ),
            (json!({"cache_read_input_token_cost": "3e-07", "output_cost_per_audio_token": null}), None),
            (json!({"search_context_cost_per_query": {"low_cost": "0.01"}}), None),
            (json!({"input_cost_per_token": "-1"}), Some("input_cost_per_token")),
            (json!({"input_cost_per_token": "1000001"}), Some("input_cost_per_token")),
            (json!({"output_cost_per_token": true}), Some("output_cost_per_token")),
            (json!({"input_cost_per_token": {"low_cost": "1"}}), Some("input_cost_per_token")),
            (json!({"cache_read_input_token_cost": "abc"}), Some("cache_read_input_token_cost")),
            (json!({"some_cost": {"low_cost": "x"}}), Some("low_cost")),
            (json!([]), Some("data")),
        ] {
            assert_eq!(check(&data).err().map(|error| error.field).as_deref(), field, "{data}");
        }
    }

    #[test]
    fn people_see_millions_and_exact_digits() {
        let data = json!({"input_cost_per_token": "0.0000003", "nested": {"cost": "0.01"}, "mode": "chat"});
        let text = serde_json::to_string(&per_million(&data, "input_cost_per_token")).unwrap();
        assert_eq!(text, "0.3");
        assert_eq!(per_million(&data, "output_cost_per_token"), None);
        let text = serde_json::to_string(&shown(&data)).unwrap();
        assert_eq!(text, r#"{"input_cost_per_token":0.0000003,"mode":"chat","nested":{"cost":0.01}}"#);
    }
}
