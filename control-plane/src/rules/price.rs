//! Price tables: LiteLLM's fields, USD per token, kept as decimal texts. Read from an upload, compared,
//! shown per million tokens, and turned into what a request is priced by.

mod table;

pub use table::{Failed, Table, parse_table};

use super::amount::{self, Exact};
use contract::money::{LongContext, Price, PriorityTier};
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

/// What a request is priced by. Of several long-context tiers the lowest counts: there is one per model.
pub fn to_contract(data: &Value) -> Result<Price, Invalid> {
    let fields = data.as_object().ok_or_else(|| invalid("data", "must be an object"))?;
    let read = |field: &str| cost(fields, field);
    let tier = PriorityTier {
        input: read("input_cost_per_token_priority")?,
        output: read("output_cost_per_token_priority")?,
        cache_read: read("cache_read_input_token_cost_priority")?,
    };
    Ok(Price {
        input: read("input_cost_per_token")?,
        output: read("output_cost_per_token")?,
        cache_read: read("cache_read_input_token_cost")?,
        cache_write_5m: read("cache_creation_input_token_cost")?,
        cache_write_1h: read("cache_creation_input_token_cost_above_1hr")?,
        reasoning: read("output_cost_per_reasoning_token")?,
        input_audio: read("input_cost_per_audio_token")?,
        output_audio: read("output_cost_per_audio_token")?,
        input_image: read("input_cost_per_image_token")?,
        output_image: read("output_cost_per_image_token")?,
        per_request: read("input_cost_per_request")?,
        long: long_context(fields)?,
        priority: (tier != PriorityTier::default()).then_some(tier),
    })
}

fn long_context(fields: &Map<String, Value>) -> Result<Option<LongContext>, Invalid> {
    let thousands = |field: &String| {
        let (_, rest) = field.split_once("_cost_per_token_above_")?;
        rest.strip_suffix("k_tokens")?.parse::<u64>().ok()
    };
    let Some(lowest) = fields.keys().filter_map(thousands).min() else { return Ok(None) };
    let read = |field: &str| cost(fields, &format!("{field}_above_{lowest}k_tokens"));
    Ok(Some(LongContext {
        threshold: lowest.saturating_mul(1000),
        input: read("input_cost_per_token")?,
        output: read("output_cost_per_token")?,
        cache_read: read("cache_read_input_token_cost")?,
        cache_write: read("cache_creation_input_token_cost")?,
    }))
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
    match price.is_sign_negative() && !price.is_zero() {
        true => Err(invalid(field, "must not be negative")),
        false => Ok(Some(price)),
    }
}

/// A price per token as USD per million tokens, for people.
pub fn per_million(data: &Value, field: &str) -> Option<Exact> {
    let price = cost(data.as_object()?, field).ok()??;
    price.checked_mul(Decimal::from(1_000_000)).map(Exact::decimal)
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

    fn decimal(text: &str) -> Option<Decimal> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn litellm_fields() {
        let data = json!({
            "mode": "chat",
            "input_cost_per_token": "0.000003",
            "output_cost_per_token": 1.5e-5,
            "cache_read_input_token_cost": "3e-07",
            "cache_creation_input_token_cost": "0.00000375",
            "cache_creation_input_token_cost_above_1hr": "0.000006",
            "input_cost_per_token_above_200k_tokens": "0.000006",
            "output_cost_per_token_above_200k_tokens": "0.0000225",
            "cache_creation_input_token_cost_above_200k_tokens": "0.0000075",
            "input_cost_per_token_above_272k_tokens": "0.000009",
            "input_cost_per_token_above_200k_tokens_priority": "1",
            "input_cost_per_token_priority": "0.000004",
            "output_cost_per_audio_token": null,
        });
        let price = to_contract(&data).unwrap();
        assert_eq!(price.input, decimal("0.000003"));
        assert_eq!(price.output, decimal("0.000015"));
        assert_eq!(price.cache_read, decimal("0.0000003"));
        assert_eq!(price.cache_write_1h, decimal("0.000006"));
        assert_eq!(price.output_audio, None);
        assert_eq!(price.priority.as_ref().and_then(|tier| tier.input), decimal("0.000004"));
        let long = price.long.as_ref().unwrap();
        assert_eq!((long.threshold, long.input), (200_000, decimal("0.000006")));
        assert_eq!(long.cache_write, decimal("0.0000075"));
        assert!(price.is_priced());

        for (bad, field) in [
            (json!({"input_cost_per_token": "-1"}), "input_cost_per_token"),
            (json!({"output_cost_per_token": true}), "output_cost_per_token"),
            (json!({"cache_read_input_token_cost": "abc"}), "cache_read_input_token_cost"),
            (json!([]), "data"),
        ] {
            assert_eq!(to_contract(&bad).map_err(|error| error.field), Err(field.to_owned()));
        }
    }

    #[test]
    fn the_bundled_table_is_sound() {
        let bundled: Map<String, Value> =
            serde_json::from_str(include_str!("../../assets/prices.json")).unwrap();
        assert!(bundled.len() > 100);
        for (model, data) in &bundled {
            assert!(to_contract(data).is_ok(), "{model}: {:?}", to_contract(data));
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
