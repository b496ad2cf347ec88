//! How long the store waits, how much it remembers. Plain values.

use std::time::Duration;

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
    /// How often money counters in use are compared with the ledger.
    pub compare_every: Duration,
    /// How long a comparison waits between looking, asking and raising: longer than a settlement takes to Redis.
    pub compare_pause: Duration,
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
            compare_every: Duration::from_secs(15 * 60),
            compare_pause: Duration::from_secs(3),
        }
    }
}
