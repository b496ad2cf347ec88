//! Counters in this process, shared by its workers: for a proxy without Redis, and while Redis is away.
//! The rules are those of the scripts; time is the caller's. Bounded: what has expired is swept out.

mod account;
mod money;

use self::account::Account;
use super::{Answer, Charge, Options, Reserve, Seed, Slot, Store, StoreError, ms};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Locks; users that share one wait for each other for microseconds.
const SHARDS: usize = 64;
/// Users and providers per shard; at the bound the eighth of them goes that was idle longest. Their money
/// counters are seeded again if they come back.
const MAX_ACCOUNTS: usize = 8_192;
/// How often a shard is swept, in ms.
const SWEEP_MS: i64 = 30_000;

/// Times that all accounts share, in ms.
#[derive(Clone, Copy, Debug)]
struct Terms {
    session_ms: i64,
    reservation_ms: i64,
    provisional_ms: i64,
    /// Bases of an older epoch do not count as seeded.
    epoch: u64,
}

#[derive(Default)]
struct Shard {
    accounts: HashMap<Slot, Account>,
    swept_ms: i64,
}

pub(super) struct MemoryStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    terms: Terms,
    epoch: AtomicU64,
}

impl MemoryStore {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            terms: Terms {
                session_ms: ms(options.session_ttl),
                reservation_ms: ms(options.reservation_ttl),
                provisional_ms: ms(options.provisional_ttl),
                epoch: 0,
            },
            epoch: AtomicU64::new(0),
        }
    }

    /// Money was spent elsewhere since the counters were seeded: ask the ledger again.
    pub(super) fn forget_bases(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    fn terms(&self) -> Terms {
        Terms { epoch: self.epoch.load(Ordering::Relaxed), ..self.terms }
    }

    fn with<T>(&self, slot: Slot, now_ms: i64, work: impl FnOnce(&mut Account) -> T) -> T {
        let shard = usize::try_from(self.hasher.hash_one(slot) % SHARDS as u64).unwrap_or_default();
        // A panic under the lock leaves counters that are each valid.
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut shard, slot, now_ms);
        let account = shard.accounts.entry(slot).or_default();
        account.used_ms = now_ms;
        work(account)
    }
}

fn make_room(shard: &mut Shard, slot: Slot, now_ms: i64) {
    if now_ms - shard.swept_ms >= SWEEP_MS {
        shard.swept_ms = now_ms;
        shard.accounts.retain(|_, account| account.sweep(now_ms));
    }
    if shard.accounts.len() >= MAX_ACCOUNTS && !shard.accounts.contains_key(&slot) {
        let mut idle: Vec<(i64, Slot)> =
            shard.accounts.iter().map(|(slot, account)| (account.used_ms, *slot)).collect();
        let eighth = idle.len() / 8;
        idle.select_nth_unstable_by_key(eighth, |(used_ms, _)| *used_ms);
        for (_, slot) in &idle[..=eighth] {
            shard.accounts.remove(slot);
        }
    }
}

impl Store for MemoryStore {
    async fn reserve(&self, reserve: &Reserve<'_>) -> Result<Answer, StoreError> {
        if reserve.counters.is_empty() && reserve.session.is_none() {
            return Ok(Answer::Taken { bound: None });
        }
        let terms = self.terms();
        Ok(self.with(reserve.slot, reserve.now_ms, |account| account.reserve(reserve, terms)))
    }

    async fn seed(&self, reserve: &Reserve<'_>, seeds: &[Seed]) -> Result<(), StoreError> {
        let terms = self.terms();
        self.with(reserve.slot, reserve.now_ms, |account| account.seed(reserve, seeds, terms));
        Ok(())
    }

    async fn settle(&self, charge: &Charge<'_>) -> Result<bool, StoreError> {
        let terms = self.terms();
        Ok(self.with(charge.slot, charge.now_ms, |account| account.settle(charge, terms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::UserId;

    #[test]
    fn idle_accounts_go_and_the_bound_holds() {
        let mut shard = Mutex::new(Shard::default());
        let shard = shard.get_mut().expect("lock");
        let many = i64::try_from(MAX_ACCOUNTS).expect("small") + 100;
        for user in 0..many {
            make_room(shard, Slot::User(UserId(user)), 1);
            shard.accounts.entry(Slot::User(UserId(user))).or_default().used_ms = user;
            assert!(shard.accounts.len() <= MAX_ACCOUNTS);
        }
        assert!(!shard.accounts.contains_key(&Slot::User(UserId(0))), "the idlest has gone");
        assert!(shard.accounts.contains_key(&Slot::User(UserId(many - 1))));
        make_room(shard, Slot::User(UserId(0)), SWEEP_MS + 1);
        assert!(shard.accounts.is_empty(), "accounts without any counter are swept");
    }
}
