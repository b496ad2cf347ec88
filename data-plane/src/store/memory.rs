//! Counters in this process, shared by its workers: for a proxy without Redis, and while Redis is away.
//! The rules are those of the scripts; time is the caller's. Bounded: what has expired is swept out.

mod account;
mod money;

use self::account::Account;
use super::{Answer, Bound, Charge, Leave, Mode, Options, Reserve, Seed, Slot, Store, StoreError, Taken, ms};
use contract::ids::ProviderId;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

    fn shard(&self, slot: Slot) -> usize {
        usize::try_from(self.hasher.hash_one(slot) % SHARDS as u64).unwrap_or_default()
    }

    fn with<T>(&self, slot: Slot, now_ms: i64, work: impl FnOnce(&mut Account) -> T) -> T {
        let mut locked = self.locked([slot].into_iter(), now_ms);
        work(locked.account(slot))
    }

    /// All of these accounts at once.
    fn locked(&self, slots: impl Iterator<Item = Slot>, now_ms: i64) -> Locked<'_> {
        let mut wanted: SmallVec<[usize; 10]> = slots.map(|slot| self.shard(slot)).collect();
        // Always in the same order, so that nobody waits for somebody who waits for him.
        wanted.sort_unstable();
        wanted.dedup();
        let lock = |at: usize| {
            // A panic under the lock leaves counters that are each valid.
            (at, self.shards[at].lock().unwrap_or_else(PoisonError::into_inner))
        };
        Locked { memory: self, shards: wanted.into_iter().map(lock).collect(), now_ms }
    }
}

/// The shards that one question needs.
struct Locked<'a> {
    memory: &'a MemoryStore,
    shards: SmallVec<[(usize, MutexGuard<'a, Shard>); 10]>,
    now_ms: i64,
}

impl Locked<'_> {
    fn account(&mut self, slot: Slot) -> &mut Account {
        let wanted = self.memory.shard(slot);
        let at = self.shards.iter().position(|(at, _)| *at == wanted).unwrap_or_default();
        let shard = &mut *self.shards[at].1;
        make_room(shard, slot, self.now_ms);
        let account = shard.accounts.entry(slot).or_default();
        account.used_ms = self.now_ms;
        account
    }

    fn reserve(&mut self, reserve: &Reserve<'_>, terms: Terms) -> Answer {
        let line = reserve.line.candidates;
        if reserve.mode == Mode::Back {
            let own = (reserve.slot, reserve.counters);
            let theirs = line.iter().map(|one| (Slot::Provider(one.provider), &*one.counters));
            for (slot, counters) in std::iter::once(own).chain(theirs) {
                self.account(slot).give_back(counters, reserve, (reserve.leaves, reserve.unsent), terms);
            }
            return Answer::Taken(Taken::default());
        }
        if let Some(Leave { provider, counters, session, unsent }) = reserve.leave {
            let account = self.account(Slot::Provider(provider));
            account.give_back(counters, reserve, (session, unsent), terms);
        }
        let force = reserve.mode == Mode::Force;
        if !force
            && let Some(answer) = self.account(reserve.slot).obstacle(reserve.counters, 0, reserve, terms)
        {
            return answer;
        }
        let bound = match reserve.bound {
            Bound::Known(bound) => bound,
            Bound::Ask => self.account(reserve.slot).bound(reserve.session, reserve.now_ms),
        };
        let mut chosen = None;
        for (at, one) in reserve.order(bound) {
            let from =
                reserve.counters.len() + line[..at].iter().map(|one| one.counters.len()).sum::<usize>();
            let account = self.account(Slot::Provider(one.provider));
            match account.obstacle(&one.counters, from, reserve, terms) {
                Some(Answer::Unseeded(missing)) if !force => return Answer::Unseeded(missing),
                Some(_) if !force => {}
                Some(_) | None => {
                    chosen = Some((at, one));
                    break;
                }
            }
        }
        if chosen.is_none() && !line.is_empty() && reserve.line.complete {
            return Answer::Full;
        }
        if reserve.mode == Mode::Check {
            return Answer::Taken(Taken::default());
        }
        let own = self.account(reserve.slot).take(reserve.counters, reserve, reserve.estimate, terms);
        let fresh = chosen.map_or(own, |(_, one)| {
            let account = self.account(Slot::Provider(one.provider));
            account.take(&one.counters, reserve, one.estimate, terms)
        });
        Answer::Taken(Taken { bound, at: chosen.map(|(at, _)| at), fresh })
    }
}

fn slots<'a>(reserve: &'a Reserve<'_>) -> impl Iterator<Item = Slot> + 'a {
    let theirs = reserve.line.candidates.iter().map(|one| one.provider);
    let left = reserve.leave.map(|leave| -> ProviderId { leave.provider });
    std::iter::once(reserve.slot).chain(theirs.chain(left).map(Slot::Provider))
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
        if reserve.counters.is_empty()
            && reserve.session.is_none()
            && reserve.line.candidates.is_empty()
            && reserve.leave.is_none()
        {
            return Ok(Answer::Taken(Taken::default()));
        }
        Ok(self.locked(slots(reserve), reserve.now_ms).reserve(reserve, self.terms()))
    }

    async fn seed(&self, reserve: &Reserve<'_>, seeds: &[Seed]) -> Result<(), StoreError> {
        let terms = self.terms();
        for seed in seeds {
            if let Some((counter, slot)) = reserve.counter(seed.index) {
                self.with(slot, reserve.now_ms, |account| account.seed(counter, seed, reserve.now_ms, terms));
            }
        }
        Ok(())
    }

    async fn settle(&self, charge: &Charge<'_>) -> Result<bool, StoreError> {
        let terms = self.terms();
        if let Some((provider, counters, stays)) = charge.provider {
            let theirs = Charge { counters, bind: None, provider: None, ..*charge };
            self.with(Slot::Provider(provider), charge.now_ms, |account| {
                account.settle(&theirs, stays, terms)
            });
        }
        Ok(self.with(charge.slot, charge.now_ms, |account| account.settle(charge, true, terms)))
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
