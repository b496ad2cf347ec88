//! What a request used and what that costs. Reads the meter, changes nothing.

use super::super::force;
use super::Meter;
use crate::config::BillAborted;
use contract::money::Price;
use contract::usage::{Outcome, TokenCounts, UsageSource};
use rust_decimal::Decimal;
use std::collections::BTreeMap;

impl Meter {
    pub(super) fn usage(&mut self, outcome: Outcome) -> Usage {
        // Nothing is billed of an answer of which nothing came.
        let Some(scanner) = self.scanner.take().filter(|scanner| scanner.saw_anything()) else {
            return Usage::none();
        };
        let seen = scanner.finish();
        // Only the end of an answer says for certain which tier served it.
        let priority = seen.service_tier.as_deref() == Some("priority");
        let billed = matches!(outcome, Outcome::Completed | Outcome::Aborted | Outcome::Cut);
        let (mut tokens, source) = if !billed || !self.opening.kind.is_metered() {
            (seen.tokens, if seen.reported { UsageSource::Reported } else { UsageSource::None })
        } else {
            // What the upstream did not report was used all the same: the input as sent, the output as seen.
            seen.or_estimated(self.opening.request_bytes)
        };
        if let Some(up) = &self.upstream {
            let wish = self.opening.caller.key.cache_ttl;
            force::cache_writes(up, wish, &mut tokens, seen.lifetimes);
        }
        Usage { tokens, source, response_model: seen.response_model, priority }
    }

    pub(super) fn bill(&self, outcome: Outcome, usage: &Usage) -> Bill {
        let multiplier = self.upstream.as_ref().map_or(Decimal::ONE, |up| up.row.cost_multiplier);
        let free = match outcome {
            _ if !self.opening.kind.is_metered() => true,
            Outcome::Completed => false,
            Outcome::Aborted | Outcome::Cut => {
                usage.source == UsageSource::None || self.shared.config.bill_aborted == BillAborted::Free
            }
            Outcome::Rejected | Outcome::Exhausted | Outcome::Blocked | Outcome::Internal => true,
        };
        if free {
            return Bill { cost: Some(Decimal::ZERO), multiplier, ..Bill::default() };
        }
        let Some((model, price)) = self.price() else { return Bill { multiplier, ..Bill::default() } };
        let cost = price.cost(&usage.tokens, multiplier, usage.priority);
        let parts = cost.parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect();
        Bill { cost: Some(cost.total), parts, multiplier, model: Some(model) }
    }

    /// The price of the model that is billed: asked for or redirected, by the owner's choice; the other one
    /// if that has none. With the name in the price table, so that a bill can be checked against it.
    fn price(&self) -> Option<(String, &Price)> {
        let asked = Some(self.opening.model.as_str());
        let sent = self.upstream_model.as_deref();
        let owner = self.opening.table.owner(self.opening.caller.user.owner_id);
        let order = if owner.bill_redirected { [sent, asked] } else { [asked, sent] };
        order.into_iter().flatten().find_map(|model| {
            let (name, price) = self.opening.table.named_price(model)?;
            price.is_priced().then(|| (name.to_owned(), price))
        })
    }
}

/// What was used.
pub struct Usage {
    pub tokens: TokenCounts,
    pub source: UsageSource,
    pub response_model: Option<String>,
    /// Whether the priority tier served it.
    pub priority: bool,
}

impl Usage {
    fn none() -> Self {
        Self {
            tokens: TokenCounts::default(),
            source: UsageSource::None,
            response_model: None,
            priority: false,
        }
    }
}

/// What that costs.
#[derive(Default)]
pub struct Bill {
    pub cost: Option<Decimal>,
    pub parts: BTreeMap<String, Decimal>,
    pub multiplier: Decimal,
    pub model: Option<String>,
}
