//! Counting against limits: reserve before a request, settle after it. Exact across proxies in Redis
//! (`redis`), alone in this process (`memory`); both pass the same tests. [`Limiter`] is what the walk uses:
//! Redis first, memory when Redis is away, money counters seeded from the ledger.
//!
//! Depends on `limit` and `contract`; never knows HTTP, never reads the table.

mod breaker;
mod lease;
mod limiter;
mod memory;
mod naming;
mod providers;
mod recall;
mod redis;
mod seeding;
mod settler;
#[cfg(test)]
mod tests;

pub use limiter::{Limiter, OpenError, Shared};
pub use settler::Settler;

use crate::limit::{Counter, Counters};
use contract::ids::{ProviderId, RequestId, UserId};
use contract::money::NanoUsd;
use contract::table::{Measure, Scope};
use smallvec::SmallVec;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Gauge: 1 while a worker counts limits in memory because Redis does not answer.
pub const LIMITS_LOCAL: &str = "switchyard_proxy_limits_local";
/// Counter: reservations counted in memory because Redis did not answer.
pub const LIMITER_FALLBACKS: &str = "switchyard_proxy_limiter_fallbacks_total";
/// Counter by `kind` (timeout, disconnected, protocol): commands to Redis that failed.
pub const STORE_ERRORS: &str = "switchyard_proxy_store_errors_total";
/// Counter by `source` (ledger, provisional): money counters that were seeded.
pub const COUNTERS_SEEDED: &str = "switchyard_proxy_counters_seeded_total";
/// Counter: settlements dropped because their queue or the backlog was full.
pub const SETTLEMENTS_LOST: &str = "switchyard_proxy_settlements_lost_total";
/// Gauge: settlements that wait for Redis to come back.
pub const SETTLEMENTS_WAITING: &str = "switchyard_proxy_settlements_waiting";

/// How the store waits and remembers; filled from `config`.
#[derive(Clone, Debug)]
pub struct Options {
    /// `redis://`, `rediss://`, `redis-cluster://`, `redis-sentinel://` or `redis+unix://`; `None`: memory only.
    pub redis_url: Option<String>,
    /// Longest wait for one answer of Redis; then the request is counted in memory.
    pub redis_timeout: Duration,
    /// Longest wait for the ledger when a counter has to be seeded; then the seed is provisional.
    pub ledger_timeout: Duration,
    /// How long a session counts as alive, and stays bound to its provider, after its last request.
    pub session_ttl: Duration,
    /// How long the reservation of a proxy that died holds; above the longest answer promised, because the
    /// slot of a longer request is given away while it still runs.
    pub reservation_ttl: Duration,
    /// How long a provisional seed holds before the ledger is asked again.
    pub provisional_ttl: Duration,
    /// Whether hot keys are lent slices of their limits, so that most of their requests need not ask Redis; see
    /// `lease`.
    pub leases: bool,
    /// Settlements that may wait per worker; beyond, they are counted as lost.
    pub settle_queue: usize,
    /// Settlements that may wait per worker for Redis to come back; beyond, the oldest are counted as lost.
    pub settle_backlog: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            redis_url: None,
            redis_timeout: Duration::from_millis(100),
            ledger_timeout: Duration::from_millis(500),
            session_ttl: Duration::from_secs(300),
            reservation_ttl: Duration::from_secs(15 * 60),
            provisional_ttl: Duration::from_secs(30),
            leases: false,
            settle_queue: 16_384,
            settle_backlog: 65_536,
        }
    }
}

/// A request that wants to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The request.
    pub request: RequestId,
    /// The caller; all counters of a user lie in one place.
    pub user: UserId,
    /// Unix milliseconds by this proxy's clock.
    pub now_ms: i64,
    /// Of [`crate::limit::counters`].
    pub counters: &'a [Counter],
    /// Of [`crate::limit::estimate`].
    pub estimate: NanoUsd,
    /// The conversation, if there is one; without, the request counts as a session of its own.
    pub session: Option<&'a str>,
    /// How long the session counts as alive after this request.
    pub session_ttl: Duration,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Everything was taken; give it back with [`Limiter::settle`].
    Admitted {
        /// The provider that served this session last.
        bound: Option<ProviderId>,
    },
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
    /// Who served it, and that provider's limits.
    pub provider: Option<(ProviderId, Counters)>,
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
}

/// The ledger could not answer.
#[derive(Debug, thiserror::Error)]
#[error("the ledger did not answer: {0}")]
pub struct LedgerError(pub String);

/// Per query: (start of the bucket in ms, nano-USD), empty buckets left out.
pub type Spent = Vec<Vec<(i64, i64)>>;

/// Knows what was really spent: the control plane, in production.
pub trait Ledger: Send + Sync {
    /// One answer per query, in order. Cancel-safe.
    fn spent<'a>(
        &'a self,
        queries: &'a [SpentQuery],
    ) -> Pin<Box<dyn Future<Output = Result<Spent, LedgerError>> + Send + 'a>>;
}

/// Where a counter lives: all counters of one slot are read and changed together.
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
    /// Take without checking.
    Force,
}

#[derive(Clone, Copy, Debug)]
struct Reserve<'a> {
    slot: Slot,
    mode: Mode,
    request: RequestId,
    now_ms: i64,
    counters: &'a [Counter],
    estimate: NanoUsd,
    session: Option<&'a str>,
    session_ttl: Duration,
}

impl<'a> Reserve<'a> {
    fn of(ask: &Ask<'a>) -> Self {
        Self {
            slot: Slot::User(ask.user),
            mode: Mode::Take,
            request: ask.request,
            now_ms: ask.now_ms,
            counters: ask.counters,
            estimate: ask.estimate,
            session: ask.session,
            session_ttl: ask.session_ttl,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Charge<'a> {
    slot: Slot,
    request: RequestId,
    now_ms: i64,
    counters: &'a [Counter],
    actual: NanoUsd,
    session: Option<&'a str>,
    bind: Option<ProviderId>,
}

/// What the ledger knows of the counter at `index`; `None`: it did not answer, the seed is provisional.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seed {
    index: usize,
    known: Option<Known>,
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
    Taken { bound: Option<ProviderId> },
    Over(Over),
    Unseeded(SmallVec<[usize; 8]>),
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
    #[error("unexpected answer: {0}")]
    Protocol(String),
    #[error("counters stay unseeded")]
    Unseeded,
}

impl StoreError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::Protocol(_) | Self::Unseeded => "protocol",
        }
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

/// Milliseconds of a duration.
fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
