//! Prices: every field is an optional decimal string.

use super::{Invalid, decimal};
use crate::money::{LongContext, Price, PriorityTier};
use crate::pb;
use crate::table::ModelPrice;
use rust_decimal::Decimal;

fn read(text: &Option<String>, path: &str) -> Result<Option<Decimal>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    let value = decimal(text, path)?;
    if value.is_sign_negative() && !value.is_zero() {
        return Err(Invalid::new(path, "a price cannot be negative"));
    }
    Ok(Some(value))
}

fn write(value: Option<Decimal>) -> Option<String> {
    value.map(|v| v.normalize().to_string())
}

impl TryFrom<pb::Price> for ModelPrice {
    type Error = Invalid;

    fn try_from(wire: pb::Price) -> Result<Self, Invalid> {
        let long = LongContext {
            threshold: wire.long_threshold,
            input: read(&wire.long_input, "long_input")?,
            output: read(&wire.long_output, "long_output")?,
            cache_read: read(&wire.long_cache_read, "long_cache_read")?,
            cache_write: read(&wire.long_cache_write, "long_cache_write")?,
        };
        let tier = PriorityTier {
            input: read(&wire.priority_input, "priority_input")?,
            output: read(&wire.priority_output, "priority_output")?,
            cache_read: read(&wire.priority_cache_read, "priority_cache_read")?,
        };
        let price = Price {
            input: read(&wire.input, "input")?,
            output: read(&wire.output, "output")?,
            cache_read: read(&wire.cache_read, "cache_read")?,
            cache_write_5m: read(&wire.cache_write_5m, "cache_write_5m")?,
            cache_write_1h: read(&wire.cache_write_1h, "cache_write_1h")?,
            reasoning: read(&wire.reasoning, "reasoning")?,
            input_audio: read(&wire.input_audio, "input_audio")?,
            output_audio: read(&wire.output_audio, "output_audio")?,
            input_image: read(&wire.input_image, "input_image")?,
            output_image: read(&wire.output_image, "output_image")?,
            per_request: read(&wire.per_request, "per_request")?,
            long: (long.threshold > 0).then_some(long),
            priority: (tier != PriorityTier::default()).then_some(tier),
        };
        Ok(Self { model: wire.model, price })
    }
}

impl From<&ModelPrice> for pb::Price {
    fn from(row: &ModelPrice) -> Self {
        let price = &row.price;
        let long = price.long.clone().unwrap_or_default();
        let tier = price.priority.clone().unwrap_or_default();
        Self {
            model: row.model.clone(),
            input: write(price.input),
            output: write(price.output),
            cache_read: write(price.cache_read),
            cache_write_5m: write(price.cache_write_5m),
            cache_write_1h: write(price.cache_write_1h),
            reasoning: write(price.reasoning),
            input_audio: write(price.input_audio),
            output_audio: write(price.output_audio),
            input_image: write(price.input_image),
            output_image: write(price.output_image),
            per_request: write(price.per_request),
            long_input: write(long.input),
            long_output: write(long.output),
            long_cache_read: write(long.cache_read),
            long_cache_write: write(long.cache_write),
            long_threshold: long.threshold,
            priority_input: write(tier.input),
            priority_output: write(tier.output),
            priority_cache_read: write(tier.cache_read),
        }
    }
}
