//! That a provider refuses to be asked for the usage of a stream: learnt by asking, and not for ever, because what is
//! remembered makes usage an estimate. Pure; atomics, because all threads share it.

use contract::ids::UserId;
use std::sync::atomic::{AtomicI64, Ordering};

/// How long it is remembered; then the provider is asked again.
const REMEMBERED_MS: i64 = 10 * 60_000;

/// See the module. One account's refusals hold for that account; two accounts' hold for everybody.
#[derive(Debug, Default)]
pub struct Reluctance {
    account: AtomicI64,
    /// Unix milliseconds; 0: never learnt.
    for_account_until: AtomicI64,
    for_all_until: AtomicI64,
}

impl Reluctance {
    /// Whether this account's requests had better not ask. `now_ms` is asked for only if something was learnt.
    pub fn holds(&self, account: UserId, now_ms: impl FnOnce() -> i64) -> bool {
        let own = self.for_account_until.load(Ordering::Relaxed);
        if own == 0 {
            return false;
        }
        let now_ms = now_ms();
        now_ms < self.for_all_until.load(Ordering::Relaxed)
            || now_ms < own && self.account.load(Ordering::Relaxed) == account.0
    }

    /// It refused one of this account's requests, and served it without.
    pub fn learn(&self, account: UserId, now_ms: i64) {
        let until = now_ms.saturating_add(REMEMBERED_MS);
        let before = self.account.swap(account.0, Ordering::Relaxed);
        let is_recent = now_ms < self.for_account_until.swap(until, Ordering::Relaxed);
        if is_recent && before != account.0 {
            self.for_all_until.store(until, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_accounts_teach_all_and_nothing_is_kept_for_ever() {
        let (ann, bob, eve) = (UserId(1), UserId(2), UserId(3));
        let known = Reluctance::default();
        let holds = |account, at_ms| known.holds(account, || at_ms);
        assert!(!holds(ann, 0));
        (0..9).for_each(|at_ms| known.learn(ann, at_ms));
        assert!(holds(ann, REMEMBERED_MS) && !holds(bob, 9) && !holds(ann, REMEMBERED_MS + 8));
        known.learn(bob, REMEMBERED_MS + 8);
        assert!(!holds(eve, REMEMBERED_MS + 9), "what one account said is forgotten by then");
        known.learn(ann, REMEMBERED_MS + 9);
        assert!(holds(eve, REMEMBERED_MS + 9) && holds(bob, REMEMBERED_MS + 9));
        assert!(!holds(eve, 2 * REMEMBERED_MS + 9) && !holds(ann, 2 * REMEMBERED_MS + 9));
    }
}
