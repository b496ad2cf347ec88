//! Providers that refused one kind of call for one model: left out of the choice for a while, where there are others.
//! Nobody else hears of it. Bounded, and free while nobody rests.

use crate::map::Map;
use contract::ids::ProviderId;
use llm::EndpointKind;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Rests that are remembered. Beyond, those that are over are dropped, and new ones if there are none: whoever invents
/// models brings nobody else's rests to an end.
const MAX_RESTS: usize = 4096;

#[derive(Default)]
pub(super) struct Rests {
    /// When the last of them ends: later, nobody looks further.
    latest_ms: AtomicI64,
    until_ms: Mutex<Map<(ProviderId, u64), i64>>,
    hasher: RandomState,
}

impl Rests {
    pub(super) fn add(
        &self,
        id: ProviderId,
        (kind, model): (EndpointKind, &str),
        now_ms: i64,
        until_ms: i64,
    ) {
        let mut rests = self.until_ms.lock().unwrap_or_else(PoisonError::into_inner);
        if rests.len() >= MAX_RESTS {
            rests.retain(|_, until| *until > now_ms);
        }
        if rests.len() < MAX_RESTS {
            rests.insert((id, self.hasher.hash_one((kind, model))), until_ms);
            self.latest_ms.fetch_max(until_ms, Ordering::Release);
        }
    }

    pub(super) fn has(&self, id: ProviderId, (kind, model): (EndpointKind, &str), now_ms: i64) -> bool {
        if now_ms >= self.latest_ms.load(Ordering::Acquire) {
            return false;
        }
        let rests = self.until_ms.lock().unwrap_or_else(PoisonError::into_inner);
        rests.get(&(id, self.hasher.hash_one((kind, model)))).is_some_and(|until| now_ms < *until)
    }

    /// A person, or a probe, found it well.
    pub(super) fn forget(&self, id: ProviderId) {
        let mut rests = self.until_ms.lock().unwrap_or_else(PoisonError::into_inner);
        rests.retain(|(other, _), _| *other != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EndpointKind::{CountTokens, Messages};

    #[test]
    fn only_the_kind_and_the_model_rest_and_not_for_ever() {
        let rests = Rests::default();
        let (one, two) = (ProviderId(1), ProviderId(2));
        assert!(!rests.has(one, (Messages, "m"), 0));
        rests.add(one, (Messages, "m"), 0, 60);
        assert!(rests.has(one, (Messages, "m"), 59));
        for (id, what, now_ms) in [
            (one, (Messages, "m"), 60),
            (one, (Messages, "n"), 0),
            (one, (CountTokens, "m"), 0),
            (two, (Messages, "m"), 0),
        ] {
            assert!(!rests.has(id, what, now_ms), "{id} {what:?} {now_ms}");
        }
        rests.forget(one);
        assert!(!rests.has(one, (Messages, "m"), 0));
    }

    #[test]
    fn it_is_bounded() {
        let rests = Rests::default();
        let models: Vec<String> = (0..=MAX_RESTS).map(|n| n.to_string()).collect();
        models.iter().for_each(|model| rests.add(ProviderId(1), (Messages, model), 0, 60));
        assert!(
            rests.has(ProviderId(1), (Messages, "0"), 0)
                && !rests.has(ProviderId(1), (Messages, &models[MAX_RESTS]), 0)
        );
        rests.add(ProviderId(1), (Messages, "later"), 60, 120);
        assert!(rests.has(ProviderId(1), (Messages, "later"), 60), "those that are over make room");
    }
}
