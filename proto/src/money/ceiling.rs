//! The dearest of several prices, which a model without a price of its own is held to. Pure arithmetic over
//! [`Price`]; it knows nothing of names.

use super::{LongContext, Price, PriorityTier, Rates};
use rust_decimal::Decimal;

impl Price {
    /// A price by which no request costs less than by any of `prices`, and hardly more than by the dearest of them.
    pub fn dearest(prices: &[&Self]) -> Self {
        let mut thresholds: Vec<u64> =
            prices.iter().flat_map(|price| price.long.iter().map(|tier| tier.threshold)).collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        let base = Both::of(prices, 0);
        let long: Vec<(u64, Both)> =
            thresholds.into_iter().map(|at| (at, Both::of(prices, at.saturating_add(1)))).collect();
        let all: Vec<&Both> = std::iter::once(&base).chain(long.iter().map(|(_, both)| both)).collect();
        // What falls back to the input or the output needs a price of its own only where one of them has a dearer one.
        let own = |field: fn(&Self) -> Option<Decimal>, rate: fn(&Rates) -> Decimal| {
            let dearest = prices.iter().filter_map(|price| field(price)).max()?;
            let rates = || all.iter().flat_map(|both| [rate(&both.usual), rate(&both.fast)]);
            (Some(dearest) > rates().min()).then(|| rates().fold(dearest, Decimal::max))
        };
        Self {
            input: Some(base.usual.input),
            output: Some(base.usual.output),
            cache_read: Some(base.usual.cache_read),
            cache_write_5m: Some(base.write_5m()),
            cache_write_1h: Some(base.write_1h()),
            reasoning: own(|p| p.reasoning, |r| r.output),
            input_audio: own(|p| p.input_audio, |r| r.input),
            output_audio: own(|p| p.output_audio, |r| r.output),
            input_image: own(|p| p.input_image, |r| r.input),
            output_image: own(|p| p.output_image, |r| r.output),
            per_request: prices.iter().filter_map(|price| price.per_request).max(),
            long: long.iter().map(|(threshold, both)| both.tier(*threshold)).collect(),
            priority: prices.iter().any(|price| price.is_tiered()).then(|| base.priority()),
            fast: prices.iter().map(|price| price.in_fast_mode()).max(),
            other_unit: false,
        }
    }

    /// Whether the priority tier costs something else.
    fn is_tiered(&self) -> bool {
        self.priority.is_some() || self.long.iter().any(|tier| tier.priority != PriorityTier::default())
    }
}

/// The dearest rates at one length of prompt, of the usual and of the priority tier.
struct Both {
    usual: Rates,
    fast: Rates,
}

impl Both {
    fn of(prices: &[&Price], prompt: u64) -> Self {
        let dearest = |priority| {
            let rates = prices.iter().map(|price| price.rates(prompt, priority));
            rates.reduce(Rates::dearer).unwrap_or_default()
        };
        Self { usual: dearest(false), fast: dearest(true) }
    }

    /// Writes to a cache have one price for both tiers.
    fn write_5m(&self) -> Decimal {
        self.usual.cache_write_5m.max(self.fast.cache_write_5m)
    }

    fn write_1h(&self) -> Decimal {
        self.usual.cache_write_1h.max(self.fast.cache_write_1h)
    }

    fn priority(&self) -> PriorityTier {
        let Rates { input, output, cache_read, .. } = self.fast;
        PriorityTier { input: Some(input), output: Some(output), cache_read: Some(cache_read) }
    }

    fn tier(&self, threshold: u64) -> LongContext {
        LongContext {
            threshold,
            input: Some(self.usual.input),
            output: Some(self.usual.output),
            cache_read: Some(self.usual.cache_read),
            cache_write: Some(self.write_5m()),
            cache_write_1h: Some(self.write_1h()),
            priority: self.priority(),
        }
    }
}

impl Rates {
    fn dearer(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cache_read: self.cache_read.max(other.cache_read),
            cache_write_5m: self.cache_write_5m.max(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::TokenCounts;
    use proptest::prelude::*;

    fn usd() -> impl Strategy<Value = Option<Decimal>> {
        prop::option::of((0i64..5_000).prop_map(|nano| Decimal::new(nano, 9)))
    }

    fn priority() -> impl Strategy<Value = PriorityTier> {
        (usd(), usd(), usd()).prop_map(|(input, output, cache_read)| PriorityTier {
            input,
            output,
            cache_read,
        })
    }

    fn tier() -> impl Strategy<Value = LongContext> {
        let fields = prop::collection::vec(usd(), 5);
        (0u64..4, fields, priority()).prop_map(|(at, fields, priority)| LongContext {
            threshold: at * 1_000,
            input: fields[0],
            output: fields[1],
            cache_read: fields[2],
            cache_write: fields[3],
            cache_write_1h: fields[4],
            priority,
        })
    }

    fn price() -> impl Strategy<Value = Price> {
        let fields = prop::collection::vec(usd(), 11);
        (fields, prop::collection::vec(tier(), 0..3), prop::option::of(priority())).prop_map(
            |(fields, mut long, priority)| {
                long.sort_by_key(|tier| tier.threshold);
                long.dedup_by_key(|tier| tier.threshold);
                Price {
                    input: fields[0],
                    output: fields[1],
                    cache_read: fields[2],
                    cache_write_5m: fields[3],
                    cache_write_1h: fields[4],
                    reasoning: fields[5],
                    input_audio: fields[6],
                    output_audio: fields[7],
                    input_image: fields[8],
                    output_image: fields[9],
                    per_request: fields[10],
                    long,
                    priority,
                    fast: fields[10],
                    other_unit: false,
                }
            },
        )
    }

    fn tokens() -> impl Strategy<Value = TokenCounts> {
        prop::collection::vec(prop_oneof![Just(0u64), 0u64..3_000], 10).prop_map(|counts| TokenCounts {
            input: counts[0],
            output: counts[1],
            reasoning: counts[2],
            cache_read: counts[3],
            cache_write_5m: counts[4],
            cache_write_1h: counts[5],
            input_audio: counts[6],
            output_audio: counts[7],
            input_image: counts[8],
            output_image: counts[9],
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_ceiling_is_never_below_a_sibling(
            prices in prop::collection::vec(price(), 1..5), tokens in tokens(), priority in any::<bool>(),
        ) {
            let siblings: Vec<&Price> = prices.iter().collect();
            let ceiling = Price::dearest(&siblings);
            // Ceilings are made of ceilings, too.
            let nested = Price::dearest(&[&Price::dearest(&siblings[..1]), &Price::dearest(&siblings[1..])]);
            for sibling in siblings {
                let cost = sibling.cost(&tokens, Decimal::ONE, priority).total;
                prop_assert!(ceiling.cost(&tokens, Decimal::ONE, priority).total >= cost);
                prop_assert!(nested.cost(&tokens, Decimal::ONE, priority).total >= cost);
            }
        }

        #[test]
        fn of_one_price_it_is_that_price(price in price(), tokens in tokens()) {
            // What has no price of its own in any tier falls back the same way in the ceiling.
            let price = Price { reasoning: None, input_audio: None, output_audio: None, input_image: None,
                output_image: None, long: Vec::new(), priority: None, ..price };
            let ceiling = Price::dearest(&[&price]);
            let cost = |price: &Price| price.cost(&tokens, Decimal::ONE, false).total;
            prop_assert_eq!(cost(&ceiling), cost(&price));
        }
    }

    #[test]
    fn each_component_is_the_dearest() {
        let usd = |nano| Some(Decimal::new(nano, 9));
        let cheap_input = Price { input: usd(1), output: usd(9), ..Price::default() };
        let cheap_output = Price { input: usd(2), output: usd(3), reasoning: usd(8), ..Price::default() };
        let dear_reasoning = Price { reasoning: usd(10), ..cheap_output.clone() };
        let of = |prices: &[&Price]| {
            let ceiling = Price::dearest(prices);
            (ceiling.input, ceiling.output, ceiling.reasoning, ceiling.priority)
        };
        assert_eq!(of(&[&cheap_input, &cheap_output]), (usd(2), usd(9), None, None));
        assert_eq!(of(&[&cheap_input, &dear_reasoning]), (usd(2), usd(9), usd(10), None));
        assert_eq!(of(&[]), (usd(0), usd(0), None, None));
    }
}
