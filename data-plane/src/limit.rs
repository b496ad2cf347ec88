//! Which counters a request touches, in which order they are asked, and what it is expected to cost.
//!
//! Pure: table rows and a clock reading in, counters out. Depends on `contract` only; never waits, never counts.

use crate::memo::Memo;
use chrono_tz::Tz;
use contract::ids::ProviderId;
use contract::money::{NanoUsd, Price};
use contract::table::{Key, Limit, Measure, Provider, Scope, User};
use contract::window::{Span, Window};
use rust_decimal::{Decimal, RoundingStrategy};
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

pub mod plans;

#[cfg(test)]
mod tests;

/// Output tokens that a reservation assumes at most. Callers send ceilings of 32,000 and more and use little
/// of them; reserving the ceiling would refuse requests long before the money is spent. A request that costs
/// more is charged in full when it is settled.
pub const ESTIMATED_OUTPUT_TOKENS: u64 = 2_048;

/// One limit with the window that holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Whose limit it is.
    pub scope: Scope,
    /// The limit.
    pub limit: Limit,
    /// The current window, in the owner's time zone.
    pub span: Span,
    /// What a store calls it; made once, because it stays the same for as long as the counter does.
    pub words: Memo,
}

/// All counters of a request. Cheap to clone; requests of a key share one list while its windows last, see
/// [`plans::Plans`].
#[derive(Clone, Debug)]
pub struct Counters(Rc<[Counter]>);

impl Counters {
    /// Those that are wanted.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&Counter) -> bool) -> Self {
        self.iter().filter(|counter| wanted(counter)).cloned().collect()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self(Rc::new([]))
    }
}

impl Deref for Counters {
    type Target = [Counter];

    fn deref(&self) -> &[Counter] {
        &self.0
    }
}

impl FromIterator<Counter> for Counters {
    fn from_iter<I: IntoIterator<Item = Counter>>(counters: I) -> Self {
        Self(counters.into_iter().collect())
    }
}

impl Counter {
    /// A counter of `scope` for the window that holds `now_ms`.
    pub fn new(scope: Scope, limit: &Limit, zone: Tz, now_ms: i64) -> Self {
        Self { scope, limit: limit.clone(), span: limit.window.span(now_ms, zone), words: Memo::default() }
    }

    /// Where the counted time begins, if it is fixed: the window's start, or the soft reset after it.
    pub fn start_ms(&self) -> Option<i64> {
        match self.span {
            Span::Fixed { start_ms, .. } => Some(start_ms.max(self.limit.since_ms.unwrap_or(start_ms))),
            Span::Rolling { .. } | Span::FromFirst { .. } => None,
        }
    }

    /// When the window ends, if that is known without asking the store.
    pub fn end_ms(&self) -> Option<i64> {
        match self.span {
            Span::Fixed { end_ms, .. } => end_ms,
            Span::Rolling { .. } | Span::FromFirst { .. } => None,
        }
    }

    /// Whether it counts money.
    pub fn is_money(&self) -> bool {
        self.limit.measure == Measure::Usd
    }

    /// How long the answer "wait" holds for a fixed window.
    pub fn until_end(&self, now_ms: i64) -> Option<Duration> {
        self.end_ms().map(|end| Duration::from_millis(end.saturating_sub(now_ms).max(0).unsigned_abs()))
    }
}

/// The counters of a client request, in the order in which a refusal is reported: total USD, sessions,
/// requests, then the windows from short to long; of each the key's before the user's.
///
/// A key without a session limit inherits the user's: the user's own counter sees every session of every key,
/// so it refuses first and no second counter is needed.
pub fn counters(key: &Key, user: &User, zone: Tz, now_ms: i64) -> Counters {
    let of_key = key.limits.iter().map(|limit| Counter::new(Scope::Key(key.id), limit, zone, now_ms));
    let of_user = user.limits.iter().map(|limit| Counter::new(Scope::User(user.id), limit, zone, now_ms));
    let mut all: Vec<Counter> = of_key.chain(of_user).collect();
    // Stable: the key's limits stay before the user's.
    all.sort_by_key(|counter| rank(&counter.limit));
    Counters(all.into())
}

/// The counters of one upstream credential.
pub fn provider_counters(provider: &Provider, zone: Tz, now_ms: i64) -> Counters {
    provider_limits(provider.id, &provider.limits, zone, now_ms)
}

fn provider_limits(id: ProviderId, limits: &[Limit], zone: Tz, now_ms: i64) -> Counters {
    let mut all: Vec<Counter> =
        limits.iter().map(|limit| Counter::new(Scope::Provider(id), limit, zone, now_ms)).collect();
    all.sort_by_key(|counter| rank(&counter.limit));
    Counters(all.into())
}

fn rank(limit: &Limit) -> u8 {
    match (limit.measure, limit.window) {
        (Measure::Usd, Window::Total) => 0,
        (Measure::Sessions, _) => 1,
        (Measure::Requests, _) => 2,
        (Measure::Usd, Window::FiveHours | Window::FiveHoursFixed) => 3,
        (Measure::Usd, Window::Minute | Window::Concurrent | Window::Day { .. } | Window::DayRolling) => 4,
        (Measure::Usd, Window::Week) => 5,
        (Measure::Usd, Window::Month) => 6,
    }
}

/// What a request is expected to cost: its input, and output up to [`ESTIMATED_OUTPUT_TOKENS`]. An unpriced
/// model costs nothing. Needed only when a money counter is asked.
pub fn estimate(
    price: Option<&Price>,
    input_tokens: u64,
    max_output: Option<u64>,
    multiplier: Decimal,
) -> NanoUsd {
    let Some(price) = price else { return NanoUsd::default() };
    let output_tokens = max_output.unwrap_or(ESTIMATED_OUTPUT_TOKENS).min(ESTIMATED_OUTPUT_TOKENS);
    // A price or multiplier beyond all sense saturates, and the money limit refuses the request.
    nano(price, input_tokens, output_tokens, multiplier).unwrap_or(NanoUsd(i64::MAX))
}

/// An estimate at a provider whose multiplier is this.
pub fn scaled(estimate: NanoUsd, multiplier: Decimal) -> NanoUsd {
    if multiplier == Decimal::ONE {
        return estimate;
    }
    let nano = Decimal::from(estimate.0).checked_mul(multiplier);
    let nano = nano.map(|nano| nano.round_dp_with_strategy(0, RoundingStrategy::AwayFromZero));
    NanoUsd(nano.and_then(|nano| i64::try_from(nano).ok()).map_or(i64::MAX, |nano| nano.max(0)))
}

fn nano(price: &Price, input_tokens: u64, output_tokens: u64, multiplier: Decimal) -> Option<NanoUsd> {
    let input = price.above(input_tokens, |tier| tier.input).or(price.input).unwrap_or_default();
    let output = price.above(input_tokens, |tier| tier.output).or(price.output).unwrap_or_default();
    let usd = Decimal::from(input_tokens)
        .checked_mul(input)?
        .checked_add(Decimal::from(output_tokens).checked_mul(output)?)?
        .checked_add(price.per_request.unwrap_or_default())?
        .checked_mul(multiplier)?;
    let nano = usd
        .checked_mul(Decimal::from(1_000_000_000u32))?
        .round_dp_with_strategy(0, RoundingStrategy::AwayFromZero);
    i64::try_from(nano).ok().map(|nano| NanoUsd(nano.max(0)))
}
