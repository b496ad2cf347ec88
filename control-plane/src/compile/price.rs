//! A LiteLLM-style price entry → the prices that a proxy bills by. Numbers are read from their text, as
//! decimal strings or JSON numbers, and never pass through floating point.

use super::Broken;
use crate::db::rows::PriceRow;
use bytes::Bytes;
use contract::money::{LongContext, Price, PriorityTier};
use contract::pb;
use contract::table::{ModelPrice, Rows};
use prost::Message;
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// `<price>_above_<N>k_tokens`.
const TIER: (&str, &str) = ("_above_", "k_tokens");
/// Of the priority service tier.
const PRIORITY: &str = "_priority";
/// In the names of all prices that are for a number of something.
const PER: &str = "_cost_per_";
/// The one of them, besides those for tokens, that requests are billed by.
const PER_REQUEST: &str = "input_cost_per_request";
/// Multipliers that only one vendor has.
const VENDORS_OWN: &str = "provider_specific_entry";
/// Prices are per token; what is larger is a mistake in the unit. Also keeps products within bounds.
const MAX_PRICE: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

struct Entry<'a>(BTreeMap<String, &'a RawValue>);

impl Entry<'_> {
    fn get(&self, name: &str) -> Result<Option<Decimal>, Broken> {
        let Some(raw) = self.0.get(name) else { return Ok(None) };
        let text = raw.get().trim_matches('"');
        if text == "null" || text.is_empty() {
            return Ok(None);
        }
        let value = match text.contains(['e', 'E']) {
            true => Decimal::from_scientific(text),
            false => text.parse(),
        };
        match value {
            Ok(price) if price >= Decimal::ZERO && price <= MAX_PRICE => Ok(Some(price)),
            _ => Err(Broken::new(format!("data.{name}"), "is not a price in USD")),
        }
    }

    /// The long-context tiers, in thousands of tokens, the lowest first.
    fn tiers(&self) -> BTreeSet<u64> {
        let tier = |name: &str| {
            let (_, rest) = name.rsplit_once(TIER.0)?;
            let rest = rest.strip_suffix(PRIORITY).unwrap_or(rest);
            rest.strip_suffix(TIER.1)?.parse().ok().filter(|thousands| *thousands > 0)
        };
        self.0.keys().filter_map(|name| tier(name)).collect()
    }

    fn long(&self, thousands: u64) -> Result<LongContext, Broken> {
        let price = |name: &str| self.get(&format!("{name}{}{thousands}{}", TIER.0, TIER.1));
        let fast = |name: &str| self.get(&format!("{name}{}{thousands}{}{PRIORITY}", TIER.0, TIER.1));
        Ok(LongContext {
            threshold: thousands.saturating_mul(1_000),
            input: price("input_cost_per_token")?,
            output: price("output_cost_per_token")?,
            cache_read: price("cache_read_input_token_cost")?,
            cache_write: price("cache_creation_input_token_cost")?,
            cache_write_1h: price("cache_creation_input_token_cost_above_1hr")?,
            priority: PriorityTier {
                input: fast("input_cost_per_token")?,
                output: fast("output_cost_per_token")?,
                cache_read: fast("cache_read_input_token_cost")?,
            },
        })
    }

    /// Whether there is a price by the image, second, character, query or page.
    fn has_other_unit(&self) -> bool {
        let is_other = |name: &str| name.contains(PER) && !name.contains("token") && name != PER_REQUEST;
        self.0.keys().any(|name| is_other(name) && matches!(self.get(name), Ok(Some(_))))
    }

    /// How many times the usual prices fast mode costs. Whatever else stands there is none of our business.
    fn fast(&self) -> Option<Decimal> {
        let own = serde_json::from_str(self.0.get(VENDORS_OWN)?.get()).ok()?;
        Entry(own).get("fast").ok().flatten()
    }

    fn priority(&self) -> Result<Option<PriorityTier>, Broken> {
        let tier = PriorityTier {
            input: self.get("input_cost_per_token_priority")?,
            output: self.get("output_cost_per_token_priority")?,
            cache_read: self.get("cache_read_input_token_cost_priority")?,
        };
        Ok((tier != PriorityTier::default()).then_some(tier))
    }
}

pub(super) fn read(row: &PriceRow) -> Result<Rows, Broken> {
    let entry = serde_json::from_str(&row.data).map_err(|_| Broken::new("data", "is not an object"))?;
    let entry = Entry(entry);
    let price = Price {
        input: entry.get("input_cost_per_token")?,
        output: entry.get("output_cost_per_token")?,
        cache_read: entry.get("cache_read_input_token_cost")?,
        cache_write_5m: entry.get("cache_creation_input_token_cost")?,
        cache_write_1h: entry.get("cache_creation_input_token_cost_above_1hr")?,
        reasoning: entry.get("output_cost_per_reasoning_token")?,
        input_audio: entry.get("input_cost_per_audio_token")?,
        output_audio: entry.get("output_cost_per_audio_token")?,
        input_image: entry.get("input_cost_per_image_token")?,
        output_image: entry.get("output_cost_per_image_token")?,
        per_request: entry.get(PER_REQUEST)?,
        long: entry.tiers().into_iter().map(|thousands| entry.long(thousands)).collect::<Result<_, _>>()?,
        priority: entry.priority()?,
        fast: entry.fast(),
        other_unit: entry.has_other_unit(),
    };
    let price = ModelPrice { model: row.model_name.clone(), price };
    Ok(Rows { prices: vec![price], ..Rows::default() })
}

/// In place of a row that cannot be read: it tells proxies to keep the one that they have.
pub(super) fn unreadable(row: &PriceRow) -> Bytes {
    let price = pb::Price { model: row.model_name.clone(), unreadable: true, ..pb::Price::default() };
    pb::Rows { prices: vec![price], ..pb::Rows::default() }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(data: &str) -> Result<Price, Broken> {
        let row = PriceRow { id: 1, model_name: "m".to_owned(), data: data.to_owned(), deleted_at: None };
        read(&row).map(|mut rows| rows.prices.remove(0).price)
    }

    #[test]
    fn numbers_are_exact_in_every_spelling() {
        let want = "0.0000003".parse().ok();
        for data in ["3e-07", "3E-7", "0.0000003", "\"0.0000003\"", "\"3e-07\"", "0.30e-6"] {
            let price = read_one(&format!("{{\"input_cost_per_token\": {data}}}")).expect(data);
            assert_eq!(price.input, want, "{data}");
        }
        for data in ["-1", "\"x\"", "{}", "[1]", "true", "1e40"] {
            assert!(read_one(&format!("{{\"input_cost_per_token\": {data}}}")).is_err(), "{data}");
        }
        assert!(read_one("[]").is_err());
    }

    #[test]
    fn fast_mode_is_a_multiplier_of_the_vendors_own() {
        for (data, fast) in [
            (r#"{"provider_specific_entry":{"us":1.1,"fast":6.0}}"#, Some(Decimal::from(6))),
            (r#"{"provider_specific_entry":{"us":1.1}}"#, None),
            (r#"{"provider_specific_entry":"x"}"#, None),
            // No reason to lose the prices beside it.
            (r#"{"provider_specific_entry":{"fast":"much"}}"#, None),
            ("{}", None),
        ] {
            assert_eq!(read_one(data).expect(data).fast, fast, "{data}");
        }
    }

    #[test]
    fn tiers_go_by_the_name() {
        let price = read_one(
            r#"{"input_cost_per_token":"1","input_cost_per_token_above_272k_tokens":"2",
                "output_cost_per_token_above_272k_tokens":"3","input_cost_per_token_above_1000k_tokens":"6",
                "cache_creation_input_token_cost_above_1hr_above_272k_tokens":"7",
                "input_cost_per_token_above_272k_tokens_priority":"8","input_cost_per_token_priority":"4",
                "cache_creation_input_token_cost_above_1hr":"5","mode":"chat","max_tokens":8}"#,
        );
        let price = price.expect("price");
        let [long, longer] = &price.long[..] else { panic!("two tiers: {price:?}") };
        assert_eq!((long.threshold, long.input, long.output), (272_000, Some(2.into()), Some(3.into())));
        assert_eq!((long.cache_write_1h, long.priority.input), (Some(7.into()), Some(8.into())));
        assert_eq!((longer.threshold, longer.input, longer.output), (1_000_000, Some(6.into()), None));
        assert_eq!(price.priority.and_then(|tier| tier.input), Some(4.into()));
        assert_eq!(price.cache_write_1h, Some(5.into()));
    }

    #[test]
    fn a_unit_that_is_not_counted_is_seen() {
        for (data, is_priced, other_unit) in [
            (r#"{"input_cost_per_second":"0.0001"}"#, false, true),
            (r#"{"output_cost_per_image":0.02,"output_cost_per_token":0}"#, true, true),
            (r#"{"input_cost_per_query":null}"#, false, false),
            (r#"{"input_cost_per_request":"0.01"}"#, true, false),
            (r#"{"input_cost_per_token":"0.01","input_cost_per_token_batches":"0.01"}"#, true, false),
            (r#"{"search_context_cost_per_query":{"low":"0.01"},"mode":"chat"}"#, false, false),
            ("{}", false, false),
        ] {
            let price = read_one(data).expect(data);
            assert_eq!((price.is_priced(), price.other_unit), (is_priced, other_unit), "{data}");
        }
    }

    #[test]
    fn every_bundled_price_is_readable() {
        let table: BTreeMap<String, &RawValue> =
            serde_json::from_str(include_str!("../../assets/prices.json")).expect("a map");
        assert!(table.len() > 100);
        for (model, entry) in table {
            let price = read_one(entry.get()).unwrap_or_else(|broken| panic!("{model}: {broken:?}"));
            assert!(price.is_priced() || price.other_unit, "{model} has no price");
        }
    }
}
