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

fn tier(wire: &pb::LongContext) -> Result<LongContext, Invalid> {
    Ok(LongContext {
        threshold: wire.threshold,
        input: read(&wire.input, "long.input")?,
        output: read(&wire.output, "long.output")?,
        cache_read: read(&wire.cache_read, "long.cache_read")?,
        cache_write: read(&wire.cache_write, "long.cache_write")?,
        cache_write_1h: read(&wire.cache_write_1h, "long.cache_write_1h")?,
        priority: PriorityTier {
            input: read(&wire.priority_input, "long.priority_input")?,
            output: read(&wire.priority_output, "long.priority_output")?,
            cache_read: read(&wire.priority_cache_read, "long.priority_cache_read")?,
        },
    })
}

impl From<&LongContext> for pb::LongContext {
    fn from(tier: &LongContext) -> Self {
        Self {
            threshold: tier.threshold,
            input: write(tier.input),
            output: write(tier.output),
            cache_read: write(tier.cache_read),
            cache_write: write(tier.cache_write),
            cache_write_1h: write(tier.cache_write_1h),
            priority_input: write(tier.priority.input),
            priority_output: write(tier.priority.output),
            priority_cache_read: write(tier.priority.cache_read),
        }
    }
}

impl TryFrom<pb::Price> for ModelPrice {
    type Error = Invalid;

    fn try_from(wire: pb::Price) -> Result<Self, Invalid> {
        if wire.unreadable {
            return Err(Invalid::new("unreadable", "the stored row is broken; the row before it holds"));
        }
        let long = wire.long.iter().map(tier).collect::<Result<Vec<_>, _>>()?;
        if !long.is_sorted_by(|one, next| one.threshold < next.threshold) {
            return Err(Invalid::new("long", "the tiers are not in order"));
        }
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
            long,
            priority: (tier != PriorityTier::default()).then_some(tier),
            fast: read(&wire.fast, "fast")?,
            other_unit: wire.other_unit,
        };
        Ok(Self { model: wire.model, price })
    }
}

impl From<&ModelPrice> for pb::Price {
    fn from(row: &ModelPrice) -> Self {
        let price = &row.price;
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
            priority_input: write(tier.input),
            priority_output: write(tier.output),
            priority_cache_read: write(tier.cache_read),
            long: price.long.iter().map(pb::LongContext::from).collect(),
            fast: write(price.fast),
            other_unit: price.other_unit,
            unreadable: false,
        }
    }
}
