//! Exact money: decimals in records, integer nano-USD in counters. Never floating point.
//!
//! One formula prices a request; `reference` behaviour: uncached input, output, cache writes of 5 minutes
//! and 1 hour, cache reads, audio and image tokens, a fee per request, times the multipliers.

use crate::usage::TokenCounts;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod ceiling;

/// Decimal places kept in a record's cost; the column is `numeric(30,15)`.
pub const COST_SCALE: u32 = 15;

/// Billionths of a US dollar, the unit of all counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// Half a nano-dollar rounds away from zero; values beyond 9.2 billion USD saturate.
    pub fn from_usd(usd: Decimal) -> Self {
        let nano = (usd * Decimal::from(1_000_000_000u32))
            .round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero);
        Self(i64::try_from(nano).unwrap_or(if nano.is_sign_negative() { i64::MIN } else { i64::MAX }))
    }

    /// The same amount as an exact decimal of dollars.
    pub fn to_usd(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), 9).normalize()
    }
}

/// A cache read without a price of its own: this share of the input price, else of the output price.
pub const CACHE_READ_SHARE: Decimal = Decimal::from_parts(1, 0, 0, false, 1);
/// A write to a 5-minute cache without a price of its own: so many times the input price.
pub const CACHE_WRITE_SHARE: Decimal = Decimal::from_parts(125, 0, 0, false, 2);

/// Fast mode where the price table does not say what it costs: so many times the usual prices, as its vendor published.
pub const FAST_MODE: Decimal = Decimal::from_parts(6, 0, 0, false, 0);

/// What one model costs: USD per token, and per call. An absent field is not priced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Uncached input tokens.
    pub input: Option<Decimal>,
    /// Output tokens.
    pub output: Option<Decimal>,
    /// Input tokens read from a prompt cache; falls back to a tenth of `input`, else of `output`.
    pub cache_read: Option<Decimal>,
    /// Input tokens written to a 5-minute cache; falls back to 1.25 × `input`.
    pub cache_write_5m: Option<Decimal>,
    /// Input tokens written to a 1-hour cache; falls back to 2 × `input`.
    pub cache_write_1h: Option<Decimal>,
    /// Reasoning tokens (a part of the output); falls back to `output`.
    pub reasoning: Option<Decimal>,
    /// Audio input tokens; falls back to `input`.
    pub input_audio: Option<Decimal>,
    /// Audio output tokens; falls back to `output`.
    pub output_audio: Option<Decimal>,
    /// Image input tokens; falls back to `input`.
    pub input_image: Option<Decimal>,
    /// Image output tokens; falls back to `output`.
    pub output_image: Option<Decimal>,
    /// A fee per call.
    pub per_request: Option<Decimal>,
    /// The tiers for long prompts, by threshold, the lowest first.
    pub long: Vec<LongContext>,
    /// Prices of the priority service tier, where they differ.
    pub priority: Option<PriorityTier>,
    /// Times the usual prices in fast mode, see [`Price::in_fast_mode`].
    pub fast: Option<Decimal>,
    /// The table prices the model in a unit that is not counted: an image, a second, a character, a query.
    pub other_unit: bool,
}

/// Prices that hold for the whole request once its prompt is longer than `threshold` tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongContext {
    /// Prompt tokens (uncached + cache writes + cache reads + images) above which the tier applies.
    pub threshold: u64,
    /// Replaces `Price::input`.
    pub input: Option<Decimal>,
    /// Replaces `Price::output`.
    pub output: Option<Decimal>,
    /// Replaces `Price::cache_read`.
    pub cache_read: Option<Decimal>,
    /// Replaces `Price::cache_write_5m`.
    pub cache_write: Option<Decimal>,
    /// Replaces `Price::cache_write_1h`; falls back to 1.6 × `cache_write`, the ratio of the two (2 / 1.25).
    pub cache_write_1h: Option<Decimal>,
    /// Prices of the priority service tier for such prompts.
    pub priority: PriorityTier,
}

/// Prices of the priority service tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorityTier {
    /// Replaces `Price::input`.
    pub input: Option<Decimal>,
    /// Replaces `Price::output`.
    pub output: Option<Decimal>,
    /// Replaces `Price::cache_read`.
    pub cache_read: Option<Decimal>,
}

/// The priced request: the sum and its parts, both after the multiplier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// USD, rounded half to even at [`COST_SCALE`] places.
    pub total: Decimal,
    /// USD per component, unrounded and before the multiplier, for people who check a bill.
    pub parts: BTreeMap<&'static str, Decimal>,
}

impl Price {
    /// Whether there is any price in a unit that is counted. 0 is a price; an empty entry prices nothing.
    pub fn is_priced(&self) -> bool {
        self.input.is_some() || self.output.is_some() || self.per_request.is_some()
    }

    /// How many times the usual prices the model costs in fast mode.
    pub fn in_fast_mode(&self) -> Decimal {
        self.fast.unwrap_or(FAST_MODE)
    }

    /// Prices `tokens`. `multiplier` is the product of all multipliers; `priority` selects the priority tier.
    pub fn cost(&self, tokens: &TokenCounts, multiplier: Decimal, priority: bool) -> Cost {
        let rates = self.rates(tokens.prompt(), priority);
        let mut parts = BTreeMap::new();
        let mut add = |name, count: u64, price: Decimal| {
            if count > 0 && !price.is_zero() {
                parts.insert(name, Decimal::from(count) * price);
            }
        };
        let reasoning = tokens.reasoning.min(tokens.output);
        match self.reasoning {
            Some(price) if reasoning > 0 => {
                add("output", tokens.output - reasoning, rates.output);
                add("reasoning", reasoning, price);
            }
            _ => add("output", tokens.output, rates.output),
        }
        add("input", tokens.input, rates.input);
        add("cache_write_5m", tokens.cache_write_5m, rates.cache_write_5m);
        add("cache_write_1h", tokens.cache_write_1h, rates.cache_write_1h);
        add("cache_read", tokens.cache_read, rates.cache_read);
        add("input_audio", tokens.input_audio, self.input_audio.unwrap_or(rates.input));
        add("output_audio", tokens.output_audio, self.output_audio.unwrap_or(rates.output));
        add("input_image", tokens.input_image, self.input_image.unwrap_or(rates.input));
        add("output_image", tokens.output_image, self.output_image.unwrap_or(rates.output));
        add("per_request", 1, self.per_request.unwrap_or_default());
        let base: Decimal = parts.values().copied().sum();
        let total = (base * multiplier)
            .round_dp_with_strategy(COST_SCALE, RoundingStrategy::MidpointNearestEven)
            .normalize();
        Cost { total, parts }
    }

    /// The price of the highest tier below `prompt` tokens that has one.
    pub fn above(&self, prompt: u64, field: fn(&LongContext) -> Option<Decimal>) -> Option<Decimal> {
        self.long.iter().rev().filter(|tier| prompt > tier.threshold).find_map(field)
    }

    fn rates(&self, prompt: u64, priority: bool) -> Rates {
        let long = |field: fn(&LongContext) -> Option<Decimal>| self.above(prompt, field);
        let tier = self.priority.as_ref().filter(|_| priority);
        // What is said of both, a long prompt and the priority tier, goes before what is said of one of them.
        let fast = |both: fn(&LongContext) -> Option<Decimal>, one: fn(&PriorityTier) -> Option<Decimal>| {
            long(both).filter(|_| priority).or_else(|| tier.and_then(one))
        };
        let input = fast(|l| l.priority.input, |t| t.input).or(long(|l| l.input)).or(self.input);
        let output = fast(|l| l.priority.output, |t| t.output).or(long(|l| l.output)).or(self.output);
        let cache_read = fast(|l| l.priority.cache_read, |t| t.cache_read);
        let cache_read = cache_read.or(long(|l| l.cache_read)).or(self.cache_read);
        let in_price = input.unwrap_or_default();
        let write_5m = long(|l| l.cache_write).or(self.cache_write_5m);
        let write_1h = long(|l| l.cache_write_1h.or(l.cache_write.map(|price| price * Decimal::new(16, 1))));
        let write_1h = write_1h.or(self.cache_write_1h);
        Rates {
            input: in_price,
            output: output.unwrap_or_default(),
            cache_read: cache_read
                .or(input.map(|p| p * CACHE_READ_SHARE))
                .or(output.map(|p| p * CACHE_READ_SHARE))
                .unwrap_or_default(),
            cache_write_5m: write_5m.unwrap_or(in_price * CACHE_WRITE_SHARE),
            cache_write_1h: write_1h.unwrap_or(in_price * Decimal::TWO),
        }
    }
}

#[derive(Default)]
struct Rates {
    input: Decimal,
    output: Decimal,
    cache_read: Decimal,
    cache_write_5m: Decimal,
    cache_write_1h: Decimal,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn per_million(text: &str) -> Option<Decimal> {
        let price: Decimal = text.parse().expect("decimal literal");
        Some(price / Decimal::from(1_000_000))
    }

    /// The entry T of the reference's billing cases.
    fn sonnet() -> Price {
        Price {
            input: per_million("3"),
            output: per_million("15"),
            cache_read: per_million("0.30"),
            cache_write_5m: per_million("3.75"),
            cache_write_1h: per_million("6"),
            long: vec![LongContext {
                threshold: 200_000,
                input: per_million("6"),
                output: per_million("22.5"),
                cache_read: per_million("0.60"),
                cache_write: per_million("7.5"),
                ..LongContext::default()
            }],
            ..Price::default()
        }
    }

    fn counts(input: u64, output: u64, write_5m: u64, write_1h: u64, read: u64) -> TokenCounts {
        TokenCounts {
            input,
            output,
            cache_write_5m: write_5m,
            cache_write_1h: write_1h,
            cache_read: read,
            ..TokenCounts::default()
        }
    }

    #[test]
    fn golden_invoices() {
        let bare = Price { input: per_million("3"), output: per_million("15"), ..Price::default() };
        let gpt = Price {
            input: per_million("1.25"),
            output: per_million("10"),
            cache_read: per_million("0.125"),
            ..Price::default()
        };
        let tier = |threshold, input, output, cache_write_1h| LongContext {
            threshold,
            input: per_million(input),
            output,
            cache_write_1h,
            ..LongContext::default()
        };
        let tiers = Price {
            long: vec![
                tier(100_000, "5", per_million("20"), None),
                tier(300_000, "10", None, per_million("40")),
            ],
            ..bare.clone()
        };
        let cases = [
            ("below all tiers", tiers.clone(), counts(100_000, 1000, 0, 0, 0), "1", "0.315"),
            ("first of two tiers", tiers.clone(), counts(300_000, 1000, 0, 0, 0), "1", "1.52"),
            ("second; output of the first", tiers.clone(), counts(400_000, 1000, 0, 0, 0), "1", "4.02"),
            ("a 1 h price of its own", tiers, counts(400_000, 0, 0, 1000, 0), "1", "4.04"),
            ("cache 5m", sonnet(), counts(1000, 500, 200, 0, 1000), "1", "0.01155"),
            ("multipliers", sonnet(), counts(1000, 500, 200, 0, 1000), "0.30", "0.003465"),
            ("cache 1h", sonnet(), counts(1000, 500, 0, 200, 1000), "1", "0.012"),
            ("fallbacks 5m", bare.clone(), counts(1000, 500, 200, 0, 1000), "1", "0.01155"),
            ("fallbacks 1h", bare, counts(1000, 500, 0, 200, 1000), "1", "0.012"),
            ("long tier", sonnet(), counts(150_000, 1000, 0, 0, 60_000), "1", "0.9585"),
            ("at the threshold", sonnet(), counts(140_000, 1000, 0, 0, 60_000), "1", "0.453"),
            ("openai cached", gpt, counts(600, 100, 0, 0, 400), "1", "0.0018"),
        ];
        let fast = Price {
            priority: Some(PriorityTier { input: per_million("9"), ..PriorityTier::default() }),
            long: vec![LongContext {
                threshold: 200_000,
                input: per_million("6"),
                output: per_million("20"),
                priority: PriorityTier { input: per_million("18"), ..PriorityTier::default() },
                ..LongContext::default()
            }],
            ..sonnet()
        };
        for (prompt, priority, want) in [
            (100_000, false, "0.315"),
            (100_000, true, "0.915"),
            (300_000, false, "1.82"),
            (300_000, true, "5.42"),
        ] {
            let cost = fast.cost(&counts(prompt, 1000, 0, 0, 0), Decimal::ONE, priority);
            assert_eq!(cost.total, want.parse::<Decimal>().expect("decimal"), "{prompt} {priority}");
        }
        for (name, price, tokens, multiplier, want) in cases {
            let cost = price.cost(&tokens, multiplier.parse().expect("decimal"), false);
            assert_eq!(cost.total, want.parse::<Decimal>().expect("decimal"), "{name}");
        }
    }

    proptest! {
        #[test]
        fn cost_is_additive_below_the_tier(a in 0u64..90_000, b in 0u64..90_000) {
            let price = sonnet();
            let one = |n| price.cost(&counts(n, n, 0, 0, 0), Decimal::ONE, false).total;
            prop_assert_eq!(one(a) + one(b), one(a + b));
        }

        #[test]
        fn nano_round_trips(n in any::<i32>()) {
            let nano = NanoUsd(i64::from(n));
            prop_assert_eq!(NanoUsd::from_usd(nano.to_usd()), nano);
        }
    }
}
