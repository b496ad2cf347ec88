//! Which providers are at one of their own limits: remembered for a moment, so that choosing a provider never
//! waits for Redis. Shared by all workers.

use contract::ids::ProviderId;
use contract::table::Measure;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How long an answer holds.
const FRESH_MS: i64 = 1_000;
/// After a charge the provider is asked again, but not more often than this.
const CHARGED_MS: i64 = 20;
/// More providers than a table ever has; beyond, everything is forgotten and asked again.
const MAX_PROVIDERS: usize = 16_384;

#[derive(Clone, Copy, Default)]
struct Entry {
    checked_ms: i64,
    asked_ms: i64,
    over: Option<Measure>,
}

#[derive(Default)]
pub(super) struct Providers {
    entries: Mutex<HashMap<ProviderId, Entry>>,
}

impl Providers {
    fn lock(&self) -> MutexGuard<'_, HashMap<ProviderId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, and whether the caller shall have it asked again.
    pub(super) fn look(&self, id: ProviderId, now_ms: i64) -> (Option<Measure>, bool) {
        let mut entries = self.lock();
        if entries.len() >= MAX_PROVIDERS {
            entries.clear();
        }
        let entry = entries.entry(id).or_default();
        let stale = now_ms - entry.checked_ms >= FRESH_MS && now_ms - entry.asked_ms >= FRESH_MS;
        if stale {
            entry.asked_ms = now_ms;
        }
        (entry.over, stale)
    }

    /// Whether to ask again after a charge.
    pub(super) fn charged(&self, id: ProviderId, now_ms: i64) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(id).or_default();
        let due = now_ms - entry.checked_ms >= CHARGED_MS;
        if due {
            entry.asked_ms = now_ms;
        }
        due
    }

    /// The answer.
    pub(super) fn learn(&self, id: ProviderId, now_ms: i64, over: Option<Measure>) {
        self.lock().insert(id, Entry { checked_ms: now_ms, asked_ms: now_ms, over });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_once_per_moment() {
        let providers = Providers::default();
        let id = ProviderId(7);
        assert_eq!(providers.look(id, 10_000), (None, true), "unknown: may be used, is asked");
        assert_eq!(providers.look(id, 10_001), (None, false), "is being asked");
        providers.learn(id, 10_002, Some(Measure::Usd));
        assert_eq!(providers.look(id, 10_900), (Some(Measure::Usd), false));
        assert_eq!(providers.look(id, 11_002), (Some(Measure::Usd), true), "the old answer holds meanwhile");
        assert!(providers.charged(id, 11_003));
    }
}
