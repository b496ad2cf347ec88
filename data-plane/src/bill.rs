//! What a request costs, and what it is held to where its model has no price. Pure: a table, names and counts in, a
//! bill out. The guard of a request and the recovery of requests that a kill interrupted bill by the same functions.
//!
//! Floor 2, beside `table` and `limit`. Never reads a clock, never counts.

mod classes;

pub use classes::{Classes, LastClasses, Place};

use crate::limit;
use crate::table::Snapshot;
use contract::ids::UserId;
use contract::money::{NanoUsd, Price};
use contract::table::{ProviderKind, Unpriced};
use contract::usage::{TokenCounts, UsageSource, WhyUnpriced};
use llm::estimate;
use rust_decimal::Decimal;
use std::collections::BTreeMap;

/// The names that a request's model has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// Asked for by the caller.
    pub asked: &'a str,
    /// Sent upstream, after redirects.
    pub sent: Option<&'a str>,
    /// Named in the answer.
    pub answered: Option<&'a str>,
    /// The body named models to fall back to, so one may have served that was neither asked for nor sent.
    pub falls_back: bool,
}

/// What is billed, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// Whose settings hold.
    pub owner: UserId,
    /// The model.
    pub names: Names<'a>,
    /// What kind of provider serves it.
    pub kind: ProviderKind,
    /// Product of all multipliers.
    pub multiplier: Decimal,
    /// Whether it is served in fast mode, which costs a multiple of the usual prices.
    pub fast: bool,
}

impl Service<'_> {
    fn multiplier(&self, price: &Price) -> Decimal {
        if self.fast { self.multiplier * price.in_fast_mode() } else { self.multiplier }
    }
}

/// What a request costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bill {
    /// USD; `None` without a price.
    pub cost: Option<Decimal>,
    /// USD by component, before the multiplier.
    pub parts: BTreeMap<String, Decimal>,
    /// As applied.
    pub multiplier: Decimal,
    /// The row of the price table that was used.
    pub model: Option<String>,
    /// Why there is no cost.
    pub unpriced: Option<WhyUnpriced>,
    /// USD that count towards money limits in place of the cost.
    pub held: Option<Decimal>,
}

impl Bill {
    /// Of a request that costs nothing.
    pub fn free(multiplier: Decimal) -> Self {
        Self { cost: Some(Decimal::ZERO), multiplier, ..Self::default() }
    }

    /// What counts towards money limits, if anything does.
    pub fn charge(&self) -> Option<Decimal> {
        self.cost.or(self.held).filter(|usd| !usd.is_zero())
    }
}

/// How a model is priced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pricing<'t> {
    /// By this row of the table.
    Row(&'t str, &'t Price),
    /// The table has a row, in a unit that is not counted.
    OtherUnit,
    /// Not at all.
    None,
}

impl Names<'_> {
    /// In the order in which prices are looked for: by the owner's choice the name that was sent goes before the one that
    /// was asked for; what the answer names comes last.
    fn in_order(&self, sent_first: bool) -> impl Iterator<Item = &str> {
        let asked = Some(self.asked);
        let [first, second] = if sent_first { [self.sent, asked] } else { [asked, self.sent] };
        [first, second, self.answered].into_iter().flatten()
    }
}

/// The price of the first of a request's names that has one; with the name in the price table, so that a bill can be
/// checked against it.
pub fn pricing<'t>(table: &'t Snapshot, owner: UserId, names: &Names<'_>) -> Pricing<'t> {
    let mut other_unit = false;
    for name in names.in_order(table.owner(owner).bill_redirected) {
        match table.named_price(name) {
            Some((row, price)) if price.is_priced() => return Pricing::Row(row, price),
            Some((_, price)) => other_unit |= price.other_unit,
            None => {}
        }
    }
    if other_unit { Pricing::OtherUnit } else { Pricing::None }
}

/// The bill of what was used. Where the caller let the upstream fall back, what the answer names is billed if it is
/// dearer: callers must not choose a cheaper price by the names that they add.
pub fn bill(table: &Snapshot, service: &Service<'_>, tokens: &TokenCounts, priority: bool) -> Bill {
    let bill = bill_by_name(table, service, tokens, priority);
    let Some(answered) = service.names.answered.filter(|_| service.names.falls_back) else { return bill };
    let names = Names { asked: answered, ..Names::default() };
    let other = bill_by_name(table, &Service { names, ..*service }, tokens, priority);
    if other.cost > bill.cost { other } else { bill }
}

fn bill_by_name(table: &Snapshot, service: &Service<'_>, tokens: &TokenCounts, priority: bool) -> Bill {
    let multiplier = service.multiplier;
    match pricing(table, service.owner, &service.names) {
        Pricing::Row(row, price) => {
            let multiplier = service.multiplier(price);
            let cost = price.cost(tokens, multiplier, priority);
            let parts = cost.parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect();
            Bill { cost: Some(cost.total), parts, multiplier, model: Some(row.to_owned()), ..Bill::default() }
        }
        Pricing::OtherUnit => Bill { multiplier, unpriced: Some(WhyUnpriced::OtherUnit), ..Bill::default() },
        Pricing::None => {
            let is_held = table.owner(service.owner).unpriced != Unpriced::Serve;
            let cost = |price: &Price| price.cost(tokens, service.multiplier(price), priority).total;
            let held = ceilings(table, service).filter(|_| is_held).map(cost).max();
            Bill { multiplier, unpriced: Some(WhyUnpriced::NoPrice), held, ..Bill::default() }
        }
    }
}

/// What a request is expected to cost, for its reservation: its input and a bounded part of the output that it allows. A
/// model without a price is reserved for at its ceiling, if such are held.
pub fn expected(
    table: &Snapshot,
    service: &Service<'_>,
    request_bytes: u64,
    max_output: Option<u64>,
) -> NanoUsd {
    let of = |price| {
        limit::estimate(Some(price), estimate::tokens(request_bytes), max_output, service.multiplier(price))
    };
    match pricing(table, service.owner, &service.names) {
        Pricing::Row(_, price) => of(price),
        Pricing::OtherUnit => NanoUsd(0),
        Pricing::None if table.owner(service.owner).unpriced == Unpriced::Serve => NanoUsd(0),
        Pricing::None => ceilings(table, service).map(of).max().unwrap_or_default(),
    }
}

/// The ceilings of all names of a model, the dearest of which holds: callers choose the name that they ask for.
#[cold]
fn ceilings<'t>(table: &'t Snapshot, service: &Service<'_>) -> impl Iterator<Item = &'t Price> {
    let families: Vec<&Price> =
        service.names.in_order(false).filter_map(|name| table.ceiling(name)).collect();
    let kind = if families.is_empty() { table.ceiling_of_kind(service.kind) } else { None };
    families.into_iter().chain(kind)
}

/// What a request used that was sent to an upstream, and of whose answer nothing is known: its input as estimated from
/// its size, in the price classes of its conversation's last answer, else uncached.
pub fn hung_up(request_bytes: u64, last: Option<Classes>) -> (TokenCounts, UsageSource) {
    (last.unwrap_or_default().split(estimate::tokens(request_bytes)), UsageSource::Estimated)
}

#[cfg(test)]
mod tests;
