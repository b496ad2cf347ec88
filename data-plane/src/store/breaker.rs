//! Whether this worker asks Redis at all. Opens with the first command that fails; the settler's probe closes
//! it. So a Redis that hangs costs the requests in flight one timeout, and the later ones nothing.
//!
//! One gauge per change and one log line per minute, over all workers of the process.

use super::{LIMITS_LOCAL, STORE_ERRORS, StoreError};
use crate::clock::now_ms;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

/// The same is said once in so many ms.
const SAY_EVERY_MS: i64 = 60_000;
/// How often Redis is tried while it is away.
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// A Redis that fails again this soon after it answered a probe is tried less and less often, down to
/// `PROBE_LAST`: it answers, but cannot be used.
const RELAPSE_MS: i64 = 60_000;
const PROBE_LAST: Duration = Duration::from_secs(30);

/// How many workers count alone, and until when some did.
#[derive(Default)]
pub(super) struct Degraded {
    workers: AtomicUsize,
    last_ms: AtomicI64,
    said_ms: AtomicI64,
    /// The last change was said, so its end is, too.
    said: AtomicBool,
    odd_said_ms: AtomicI64,
    unusable_said_ms: AtomicI64,
}

impl Degraded {
    /// Unix milliseconds at which a request was last counted in memory because Redis was away.
    pub(super) fn last_ms(&self) -> i64 {
        self.last_ms.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self, now_ms: i64) {
        self.last_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// One owner's counters cannot be used.
    pub(super) fn odd(&self, error: &StoreError) {
        metrics::counter!(STORE_ERRORS, "kind" => error.kind()).increment(1);
        if is_time(&self.odd_said_ms) {
            tracing::warn!(%error, "requests are counted by this proxy alone; others are not concerned");
        }
    }

    /// A counter's keys hold something else.
    pub(super) fn unusable(&self, counter: &str, error: &StoreError) {
        metrics::counter!(STORE_ERRORS, "kind" => error.kind()).increment(1);
        if is_time(&self.unusable_said_ms) {
            tracing::warn!(counter, %error, "Redis cannot count with this key: it is not compared with the ledger");
        }
    }

    fn enter(&self) -> bool {
        self.workers.fetch_add(1, Ordering::Relaxed) == 0
    }

    fn leave(&self) -> bool {
        self.workers.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Whether a minute has gone by since it was said last.
fn is_time(said_ms: &AtomicI64) -> bool {
    let (now, last) = (now_ms(), said_ms.load(Ordering::Relaxed));
    now - last >= SAY_EVERY_MS
        && said_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

#[derive(Default)]
pub(super) struct Breaker {
    open: Cell<bool>,
    recovered_ms: Cell<i64>,
    relapses: Cell<u32>,
}

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// A command failed; whether this opened the breaker.
    pub(super) fn failed(&self, error: &StoreError, degraded: &Degraded) -> bool {
        metrics::counter!(STORE_ERRORS, "kind" => error.kind()).increment(1);
        if self.open.replace(true) {
            return false;
        }
        let is_relapse = now_ms() - self.recovered_ms.get() < RELAPSE_MS;
        self.relapses.set(if is_relapse { self.relapses.get() + 1 } else { 0 });
        if degraded.enter() {
            metrics::gauge!(LIMITS_LOCAL).set(1);
            let is_said = is_time(&degraded.said_ms);
            degraded.said.store(is_said, Ordering::Relaxed);
            if is_said {
                tracing::warn!(%error, "Redis cannot be used: limits are counted by this proxy alone");
            }
        }
        true
    }

    /// How long to wait before Redis is tried again.
    pub(super) fn pause(&self) -> Duration {
        (PROBE_FIRST * 2u32.saturating_pow(self.relapses.get().min(5))).min(PROBE_LAST)
    }

    /// Redis answers again.
    pub(super) fn recovered(&self, degraded: &Degraded) {
        if !self.open.replace(false) {
            return;
        }
        self.recovered_ms.set(now_ms());
        if degraded.leave() {
            metrics::gauge!(LIMITS_LOCAL).set(0);
            if degraded.said.load(Ordering::Relaxed) {
                tracing::info!("Redis answers again: limits are exact across proxies");
            }
        }
    }
}
