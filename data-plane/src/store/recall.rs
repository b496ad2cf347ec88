//! Bindings of sessions, remembered for a moment by one worker: a conversation that goes on need not ask Redis
//! for every request where it has nothing else to ask. What is remembered is re-validated on use anyway.

use contract::ids::{ProviderId, UserId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// How long Redis' answer holds.
const FRESH_MS: i64 = 2_000;
/// A binding is written again when it has not been for so long; far below the life of a session.
const REWRITE_MS: i64 = 10_000;
/// Sessions remembered by a worker; beyond, all are forgotten.
const MAX_SESSIONS: usize = 16_384;

#[derive(Clone, Copy)]
struct Binding {
    provider: ProviderId,
    asked_ms: i64,
    written_ms: i64,
}

/// Sessions stand in it by a keyed hash of user and id.
#[derive(Default)]
pub(super) struct Recall {
    hasher: RandomState,
    bindings: RefCell<HashMap<u64, Binding>>,
}

impl Recall {
    /// The provider of the session, if Redis named it a moment ago.
    pub(super) fn bound(&self, user: UserId, session: &str, now_ms: i64) -> Option<ProviderId> {
        let bindings = self.bindings.borrow();
        let binding = bindings.get(&self.hasher.hash_one((user, session)))?;
        (now_ms - binding.asked_ms < FRESH_MS).then_some(binding.provider)
    }

    /// Redis' answer.
    pub(super) fn learn(&self, user: UserId, session: &str, provider: Option<ProviderId>, now_ms: i64) {
        let at = self.hasher.hash_one((user, session));
        let mut bindings = self.bindings.borrow_mut();
        let written_ms = |old: Option<&Binding>| {
            let same = old.filter(|old| Some(old.provider) == provider);
            same.map_or(i64::MIN / 2, |old| old.written_ms)
        };
        match provider {
            Some(provider) => {
                let written_ms = written_ms(bindings.get(&at));
                if bindings.len() >= MAX_SESSIONS {
                    bindings.clear();
                }
                bindings.insert(at, Binding { provider, asked_ms: now_ms, written_ms });
            }
            None => {
                bindings.remove(&at);
            }
        }
    }

    /// A request of the session succeeded at `provider`: whether that has to be written.
    pub(super) fn rebind(&self, user: UserId, session: &str, provider: ProviderId, now_ms: i64) -> bool {
        let at = self.hasher.hash_one((user, session));
        let mut bindings = self.bindings.borrow_mut();
        if let Some(binding) = bindings.get(&at)
            && binding.provider == provider
            && now_ms - binding.written_ms < REWRITE_MS
        {
            return false;
        }
        if bindings.len() >= MAX_SESSIONS {
            bindings.clear();
        }
        bindings.insert(at, Binding { provider, asked_ms: now_ms, written_ms: now_ms });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_and_written_now_and_then() {
        let recall = Recall::default();
        let (user, seven, eight) = (UserId(1), ProviderId(7), ProviderId(8));
        assert_eq!(recall.bound(user, "a", 0), None);
        assert!(recall.rebind(user, "a", seven, 0), "new");
        assert!(!recall.rebind(user, "a", seven, 1));
        assert_eq!(recall.bound(user, "a", 1_999), Some(seven));
        assert_eq!(recall.bound(UserId(2), "a", 0), None, "another user's session");
        assert_eq!(recall.bound(user, "a", 2_000), None, "asked again");
        recall.learn(user, "a", Some(seven), 2_000);
        assert_eq!(recall.bound(user, "a", 2_000), Some(seven));
        assert!(!recall.rebind(user, "a", seven, 9_999));
        assert!(recall.rebind(user, "a", seven, 10_000), "written again in time");
        assert!(recall.rebind(user, "a", eight, 10_001), "moved");
        recall.learn(user, "a", Some(seven), 10_002);
        assert!(recall.rebind(user, "a", eight, 10_003), "another proxy moved it meanwhile");
        recall.learn(user, "a", None, 10_004);
        assert_eq!(recall.bound(user, "a", 10_004), None);
    }
}
