//! Counting against limits: reserve before a request, settle after it. Exact across proxies in Redis
//! (`redis`), alone in this process (`memory`); both pass the same tests. [`Limiter`] is what the walk uses:
//! Redis first, memory when Redis is away, money counters seeded from the ledger.
//!
//! Depends on `limit` and `contract`; never knows HTTP, never reads the table.

mod apart;
mod back;
mod breaker;
mod compare;
mod hold;
mod lease;
mod limiter;
mod memory;
mod naming;
mod notes;
mod options;
mod recall;
mod redis;
mod seeding;
mod settler;
#[cfg(test)]
mod tests;

pub use limiter::{Limiter, OpenError, Shared};
pub use options::Options;
pub use settler::Settler;

use crate::limit::{Counter, Counters};
use contract::ids::{ProviderId, RequestId, UserId};
use contract::money::NanoUsd;
use contract::table::{CounterNaming, Measure, Scope};
use smallvec::SmallVec;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Gauge: 1 while a worker counts limits in memory because Redis does not answer.
pub const LIMITS_LOCAL: &str = "switchyard_proxy_limits_local";
/// Counter: reservations counted in memory because Redis did not answer.
pub const LIMITER_FALLBACKS: &str = "switchyard_proxy_limiter_fallbacks_total";
/// Counter by `kind` (timeout, disconnected, unwritable, protocol, keys): commands to Redis that failed.
pub const STORE_ERRORS: &str = "switchyard_proxy_store_errors_total";
/// Counter by `source` (ledger, provisional): money counters that were seeded.
pub const COUNTERS_SEEDED: &str = "switchyard_proxy_counters_seeded_total";
/// Counter: settlements dropped because their queue or the backlog was full.
pub const SETTLEMENTS_LOST: &str = "switchyard_proxy_settlements_lost_total";
/// Counter by `change` (raised, lowered): counters in Redis that did not fit the ledger.
pub const COUNTERS_CORRECTED: &str = "switchyard_proxy_counters_corrected_total";
/// Gauge: settlements that wait for Redis to come back.
pub const SETTLEMENTS_WAITING: &str = "switchyard_proxy_settlements_waiting";

/// Whose users and providers, and how their counters are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Home {
    /// The owner: the counters of all its users and providers may be read and changed together.
    pub owner: UserId,
    /// How they are called; a request keeps the naming that it began with.
    pub naming: CounterNaming,
}

/// A request that wants to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The request.
    pub request: RequestId,
    /// Where its counters lie.
    pub home: Home,
    /// The caller.
    pub user: UserId,
    /// Unix milliseconds by this proxy's clock.
    pub now_ms: i64,
    /// Of [`crate::limit::counters`].
    pub counters: &'a Counters,
    /// Of [`crate::limit::estimate`].
    pub estimate: NanoUsd,
    /// The conversation, if there is one; without, the request counts as a session of its own.
    pub session: Option<&'a Arc<str>>,
    /// How long the session counts as alive after this request.
    pub session_ttl: Duration,
}

/// A provider that could serve a request.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which.
    pub provider: ProviderId,
    /// Its own limits; none: it always has room.
    pub counters: Counters,
    /// What the request is expected to cost there.
    pub estimate: NanoUsd,
    /// Whether a session that is bound to it goes there first.
    pub reusable: bool,
}

/// The providers that could serve a request, the best first; empty where none of them has limits of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line<'a> {
    /// In the order in which they are asked.
    pub candidates: &'a [Candidate],
    /// Whether there are no others: then nothing is taken where none of them has room.
    pub complete: bool,
}

/// What a request holds at a provider that has limits of its own, until it is settled or moves on.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Where.
    pub provider: ProviderId,
    /// That provider's limits.
    pub counters: Counters,
    /// What is reserved there.
    estimate: NanoUsd,
    /// The request brought its session there.
    fresh: bool,
}

/// What a [`Line`] gave.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which of the candidates.
    pub index: usize,
    /// What is held there; `None` where that candidate has no limits.
    pub hold: Option<Hold>,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug)]
#[must_use]
pub enum Admission {
    /// Everything was taken; give it back with [`Limiter::settle`].
    Admitted {
        /// The provider that served this session last.
        bound: Option<ProviderId>,
        /// Who of the line has taken it; `None`: no line, or none of them has room, but others were not asked.
        place: Option<Place>,
        /// The request brought its session; known only without a place.
        fresh: bool,
    },
    /// None of all candidates has room. Nothing was taken.
    Full,
    /// Nothing was taken.
    Refused(Refusal),
}

/// Which limit stopped a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The word of the refusal body.
    pub limit_type: &'static str,
    /// Whose limit.
    pub scope: Scope,
    /// What it counts.
    pub measure: Measure,
    /// Counted now; for money, what is spent and what is reserved by requests in flight, in nano-USD.
    pub current: i64,
    /// The limit.
    pub limit: i64,
    /// When the window ends, Unix milliseconds; `None` where it has no fixed end.
    pub reset_ms: Option<i64>,
    /// When it makes sense to ask again.
    pub retry_after: Option<Duration>,
}

/// A request that has ended.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The request.
    pub request: RequestId,
    /// Where its counters lie.
    pub home: Home,
    /// The caller.
    pub user: UserId,
    /// Unix milliseconds at which it ended, by this proxy's clock.
    pub now_ms: i64,
    /// The counters it was admitted with.
    pub counters: Counters,
    /// What it cost; `None`: nothing to charge.
    pub actual: Option<NanoUsd>,
    /// Its conversation.
    pub session: Option<Arc<str>>,
    /// Bind the session to this provider; set after a success.
    pub bind: Option<ProviderId>,
    /// What it held at the provider that served it, or failed last.
    pub hold: Option<Hold>,
    /// Whether that provider answered: then the session counts there.
    pub answered: bool,
}

/// What the ledger is asked: the sum of a scope since a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentQuery {
    /// Whose spend.
    pub scope: Scope,
    /// Unix milliseconds.
    pub since_ms: i64,
    /// 0: one sum; otherwise sums by buckets of this length, aligned to the epoch.
    pub bucket_ms: i64,
    /// Whether it is the end of a request that counts, and not its beginning; without buckets only.
    pub by_end: bool,
    /// Only what ended before [`Complete::connected_ms`]; meaningless where that is not known.
    pub settled: bool,
}

/// The ledger could not answer.
#[derive(Debug, thiserror::Error)]
#[error("the ledger did not answer: {0}")]
pub struct LedgerError(pub String);

/// What the ledger answers.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    /// Per query: (start of the bucket in ms, nano-USD), empty buckets left out.
    pub sums: Vec<Vec<(i64, i64)>>,
    /// How much of what has ended is in them.
    pub complete: Complete,
}

/// Which records are in the ledger for certain: those of all requests that ended before, Unix milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Complete {
    /// Of all proxies that are connected; `None`: one of them does not say.
    pub connected_ms: Option<i64>,
    /// Also of those that are away.
    pub all_ms: Option<i64>,
}

/// Knows what was really spent: the control plane, in production.
pub trait Ledger: Send + Sync {
    /// One answer per query, in order. Cancel-safe.
    fn spent<'a>(
        &'a self,
        queries: &'a [SpentQuery],
    ) -> Pin<Box<dyn Future<Output = Result<Spent, LedgerError>> + Send + 'a>>;
}

/// Whose counters: what stands together in memory, and under the first naming in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Slot {
    User(UserId),
    Provider(ProviderId),
}

/// What to do with the counters of a [`Reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Check all, then take from all or none.
    Take,
    /// Only check.
    Check,
    /// Take without checking; what is held already goes on being held.
    Force,
    /// Give back what may have been taken, from the caller and from every candidate.
    Back,
}

/// To which provider the session is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// The store knows.
    Ask,
    /// The caller of the store does.
    Known(Option<ProviderId>),
}

/// What happens to the session of a request that gives back what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// It was there before, or others have it there: it stays.
    Stays,
    /// The request brought it, and takes it along.
    Goes,
    /// It goes if it was counted, or renewed, within so many ms: nobody knows whether the request brought it.
    Since(i64),
    /// The request brought it so many ms ago, and takes it along, unless others of it were served since.
    Unshared(i64),
}

/// What a request gives back as it moves on.
#[derive(Clone, Copy, Debug)]
struct Leave<'a> {
    provider: ProviderId,
    counters: &'a [Counter],
    session: Leaves,
    /// Whether the request itself does not count there either, because it never got there.
    unsent: bool,
}

#[derive(Clone, Copy, Debug)]
struct Reserve<'a> {
    home: Home,
    slot: Slot,
    mode: Mode,
    request: RequestId,
    now_ms: i64,
    counters: &'a [Counter],
    estimate: NanoUsd,
    session: Option<&'a str>,
    session_ttl: Duration,
    bound: Bound,
    line: Line<'a>,
    leave: Option<Leave<'a>>,
    /// With [`Mode::Back`]: what happens to the session, and whether the request does not count.
    leaves: Leaves,
    unsent: bool,
}

impl<'a> Reserve<'a> {
    fn of(ask: &Ask<'a>) -> Self {
        Self {
            home: ask.home,
            slot: Slot::User(ask.user),
            mode: Mode::Take,
            request: ask.request,
            now_ms: ask.now_ms,
            counters: ask.counters,
            estimate: ask.estimate,
            session: ask.session.map(|session| &**session),
            session_ttl: ask.session_ttl,
            bound: Bound::Ask,
            line: Line::default(),
            leave: None,
            leaves: Leaves::Stays,
            unsent: true,
        }
    }

    /// The counter of that number, over the caller's and then those of the candidates in turn; with the
    /// counters' place and the first number of its group.
    fn counter(&self, index: usize) -> Option<(&'a Counter, Slot)> {
        let groups = std::iter::once((self.slot, self.counters))
            .chain(self.line.candidates.iter().map(|one| (Slot::Provider(one.provider), &*one.counters)));
        let mut from = 0;
        for (slot, counters) in groups {
            match counters.get(index - from) {
                Some(counter) => return Some((counter, slot)),
                None => from += counters.len(),
            }
        }
        None
    }

    /// The candidates in the order in which they are asked: the one to which the session is bound goes first.
    fn order(&self, bound: Option<ProviderId>) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let line = self.line.candidates;
        let first = bound.and_then(|id| line.iter().position(|one| one.reusable && one.provider == id));
        let rest = (0..line.len()).filter(move |index| Some(*index) != first);
        first.into_iter().chain(rest).map(move |index| (index, &line[index]))
    }
}

#[derive(Clone, Copy, Debug)]
struct Charge<'a> {
    home: Home,
    slot: Slot,
    request: RequestId,
    now_ms: i64,
    /// When the last of what is charged ended: `now_ms`, unless several requests are charged at once.
    last_ms: i64,
    /// How long ago `now_ms` was, in ms.
    age_ms: i64,
    counters: &'a [Counter],
    actual: NanoUsd,
    session: Option<&'a str>,
    bind: Option<ProviderId>,
    /// The provider, its counters, and whether the session goes on counting there.
    provider: Option<(ProviderId, &'a [Counter], bool)>,
}

/// What the ledger knows of the counter at `index`; `None`: it did not answer, the seed is provisional.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seed {
    index: usize,
    known: Option<Known>,
    /// How far behind the ledger is, in ms: what ended longer ago than this is in it.
    behind_ms: i64,
}

/// In the form of the counter's span.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// Fixed window: the sum.
    Sum(i64),
    /// Rolling window: sums by bucket number.
    Buckets(Vec<(i64, i64)>),
    /// From first: when the window began and its sum, if one is running.
    Started(Option<(i64, i64)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Taken(Taken),
    Over(Over),
    /// No candidate has room, and there are no others.
    Full,
    /// The money counters of these numbers, see [`Reserve::counter`].
    Unseeded(SmallVec<[usize; 8]>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Taken {
    bound: Option<ProviderId>,
    /// Of the candidates.
    at: Option<usize>,
    /// The session was not counted there before.
    fresh: bool,
}

/// The counter at `index` is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Over {
    index: usize,
    current: i64,
    reset_ms: Option<i64>,
    wait_ms: Option<i64>,
}

/// Why Redis gave no answer. Carries no URL and no key.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("no answer in time")]
    Timeout,
    #[error("not connected")]
    Disconnected,
    #[error("it takes no writes: {0}")]
    Unwritable(String),
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// Something under the keys of one owner, user or provider is not what it should be.
    #[error("one owner's counters cannot be used: {0}")]
    Keys(String),
    #[error("counters stay unseeded")]
    Unseeded,
}

impl StoreError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::Unwritable(_) => "unwritable",
            Self::Protocol(_) => "protocol",
            Self::Keys(_) | Self::Unseeded => "keys",
        }
    }

    /// Whether it says something of the whole Redis, and not of the counters that were asked for.
    fn is_everybodys(&self) -> bool {
        !matches!(self, Self::Keys(_) | Self::Unseeded)
    }

    /// Whether Redis may have done what it was told all the same.
    fn may_have_happened(&self) -> bool {
        matches!(self, Self::Timeout | Self::Disconnected | Self::Protocol(_))
    }
}

/// The contract that `tests/contract.rs` holds both implementations to.
trait Store {
    async fn reserve(&self, reserve: &Reserve<'_>) -> Result<Answer, StoreError>;
    async fn seed(&self, reserve: &Reserve<'_>, seeds: &[Seed]) -> Result<(), StoreError>;
    /// Whether it was the first settlement of its request.
    async fn settle(&self, charge: &Charge<'_>) -> Result<bool, StoreError>;
}

/// A settlement that ended this long before a counter was seeded is taken to be in the ledger's sum: the
/// reporter's linger plus the way to the control plane.
const LEDGER_SLACK_MS: i64 = 3_000;
/// A ledger that is further behind than this had reports outstanding: what it seeded is compared again.
const LEDGER_LATE_MS: i64 = 5_000;

/// Milliseconds of a duration.
fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
