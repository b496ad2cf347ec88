//! Whether anybody besides one account sends anything: then that account's failures need a second witness. Two places
//! are enough to tell, and cost a request two comparisons.

use contract::ids::UserId;
use std::sync::atomic::{AtomicI64, Ordering};

/// Who sent nothing for so long is not there.
const GONE_MS: i64 = 10 * 60_000;
/// Times are kept as exactly as this, so that threads seldom write.
const EXACT_MS: i64 = 1_000;

/// The newest sender and the newest one before it that was another. Races lose a place, which lasts until the next request.
#[derive(Default)]
pub(super) struct Senders([Sender; 2]);

#[derive(Default)]
struct Sender {
    account: AtomicI64,
    at_ms: AtomicI64,
}

impl Senders {
    /// A request of this account is sent.
    pub(super) fn sends(&self, account: UserId, now_ms: i64) {
        let [newest, before] = &self.0;
        let last_ms = newest.at_ms.load(Ordering::Relaxed);
        let last = newest.account.load(Ordering::Relaxed);
        if last != account.0 {
            before.account.store(last, Ordering::Relaxed);
            before.at_ms.store(last_ms, Ordering::Relaxed);
            newest.account.store(account.0, Ordering::Relaxed);
            newest.at_ms.store(now_ms, Ordering::Relaxed);
        } else if (now_ms - last_ms).abs() >= EXACT_MS {
            newest.at_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Whether nobody else has sent anything for a while.
    pub(super) fn is_alone(&self, account: UserId, now_ms: i64) -> bool {
        let is_other = |sender: &Sender| {
            let other = sender.account.load(Ordering::Relaxed);
            other != 0 && other != account.0 && now_ms - sender.at_ms.load(Ordering::Relaxed) < GONE_MS
        };
        !self.0.iter().any(is_other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_account_is_seen_until_it_has_been_silent_for_long() {
        let (ann, bob) = (UserId(1), UserId(2));
        let senders = Senders::default();
        assert!(senders.is_alone(ann, 0));
        senders.sends(ann, 0);
        assert!(senders.is_alone(ann, 1) && !senders.is_alone(bob, 1));
        senders.sends(bob, 2_000);
        (3..600).for_each(|second| senders.sends(ann, second * 1_000));
        assert!(!senders.is_alone(ann, 2_000 + GONE_MS - 1), "however often it sends itself");
        assert!(senders.is_alone(ann, 2_000 + GONE_MS));
        senders.sends(bob, 2_000 + GONE_MS);
        assert!(!senders.is_alone(ann, 2_000 + GONE_MS) && !senders.is_alone(bob, 2_000 + GONE_MS));
    }
}
