//! Whether this worker asks Redis at all. Opens with the first command that fails; the settler's probe closes
//! it. So a Redis that hangs costs the requests in flight one timeout, and the later ones nothing.
//!
//! One log line and one gauge per change, over all workers of the process.

use super::{LIMITS_LOCAL, STORE_ERRORS, StoreError};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// How many workers count alone, and until when some did.
#[derive(Default)]
pub(super) struct Degraded {
    workers: AtomicUsize,
    last_ms: AtomicI64,
}

impl Degraded {
    /// Unix milliseconds at which a request was last counted in memory because Redis was away.
    pub(super) fn last_ms(&self) -> i64 {
        self.last_ms.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self, now_ms: i64) {
        self.last_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    fn enter(&self) -> bool {
        self.workers.fetch_add(1, Ordering::Relaxed) == 0
    }

    fn leave(&self) -> bool {
        self.workers.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[derive(Default)]
pub(super) struct Breaker {
    open: Cell<bool>,
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
        if degraded.enter() {
            metrics::gauge!(LIMITS_LOCAL).set(1);
            tracing::warn!(%error, "Redis does not answer: limits are counted by this proxy alone");
        }
        true
    }

    /// Redis answers again.
    pub(super) fn recovered(&self, degraded: &Degraded) {
        if self.open.replace(false) && degraded.leave() {
            metrics::gauge!(LIMITS_LOCAL).set(0);
            tracing::info!("Redis answers again: limits are exact across proxies");
        }
    }
}
