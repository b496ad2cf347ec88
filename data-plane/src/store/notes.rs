//! The part of Redis that is compared with the ledger: looking at counters, raising and lowering them, and notes for
//! other proxies about counters that lack a settlement.

use super::compare::{Look, Sum, Touched};
use super::naming::{Pack, Said, key, words};
use super::redis::{RedisStore, odd};
use super::{Charge, Home, Mode, Reserve, Slot, StoreError};
use crate::clock::now_ms;
use crate::limit::Counter;
use bytes::Bytes;
use contract::table::CounterNaming;
use fred::prelude::Value;
use smallvec::SmallVec;

/// Counters that are handed on at once; others come with their next use.
const MAX_TOUCHED: usize = 4_096;
/// Counters of limits that came back; beyond, all are forgotten, and seeded again.
const MAX_CAUGHT_UP: usize = 16_384;
/// How long a note stays.
const NOTE_TTL_MS: i64 = 35 * 86_400_000;

impl RedisStore {
    /// Remembers money counters whose time it is to be compared.
    pub(super) fn touch(
        &self,
        (home, slot): (Home, Slot),
        counters: &[Counter],
        said: &[Said<'_>],
        now_ms: i64,
    ) {
        for (counter, said) in counters.iter().zip(said).filter(|(counter, _)| counter.is_money()) {
            if let Said::Known(words) = said
                && words.is_due(now_ms, self.compare_every_ms)
            {
                let mut touched = self.touched.borrow_mut();
                if touched.len() < MAX_TOUCHED {
                    touched.push(Touched { home, slot, counter: counter.clone(), key: words.key.clone() });
                }
            }
        }
    }

    /// Numbers of the money counters, see [`Reserve::counter`], whose limit was absent for a while, until they have been
    /// seeded again: what was spent meanwhile was not charged to them.
    pub(super) fn stale(&self, reserve: &Reserve<'_>) -> SmallVec<[usize; 8]> {
        let is_absent = |counter: &&Counter| counter.is_money() && counter.limit.absent_until_ms.is_some();
        let line = reserve.line.candidates;
        let groups = || line.iter().map(|one| (Slot::Provider(one.provider), &*one.counters));
        let mut all = std::iter::once((reserve.slot, reserve.counters)).chain(groups());
        if !matches!(reserve.mode, Mode::Take | Mode::Check)
            || !all.any(|(_, list)| list.iter().any(|one| is_absent(&one)))
        {
            return SmallVec::new();
        }
        let caught_up = self.caught_up.borrow();
        let (mut stale, mut first) = (SmallVec::new(), 0);
        for (slot, list) in std::iter::once((reserve.slot, reserve.counters)).chain(groups()) {
            let said = words(reserve.home, slot, list, self.keep(reserve.session_ttl));
            for (at, counter) in list.iter().enumerate().filter(|(_, counter)| is_absent(counter)) {
                if caught_up.get(&said[at].key).copied() < counter.limit.absent_until_ms {
                    stale.push(first + at);
                }
            }
            first += list.len();
        }
        stale
    }

    /// The counter was seeded.
    pub(super) fn caught_up(&self, key: Bytes, counter: &Counter) {
        let Some(until_ms) = counter.limit.absent_until_ms else { return };
        let mut caught_up = self.caught_up.borrow_mut();
        if caught_up.len() >= MAX_CAUGHT_UP {
            caught_up.clear();
        }
        caught_up.insert(key, until_ms);
    }

    /// Remembers the money counters of a settlement that one of them left out: if it was not in the sums that the counter
    /// was given, because the ledger did not have it yet, a later comparison finds it.
    #[cold]
    pub(super) fn passed_over(&self, charge: &Charge<'_>) {
        let mut passed = self.passed.borrow_mut();
        let theirs = charge.provider.iter().map(|(id, counters, _)| (Slot::Provider(*id), *counters));
        for (slot, counters) in std::iter::once((charge.slot, charge.counters)).chain(theirs) {
            for counter in counters.iter().filter(|counter| counter.is_money()) {
                if passed.len() < MAX_TOUCHED {
                    passed.push((Touched::new(charge.home, slot, counter), charge.last_ms));
                }
            }
        }
    }

    /// Those that were remembered since the last call.
    pub(super) fn touched(&self) -> Vec<Touched> {
        self.touched.take()
    }

    /// Raises to sums of what ended so long ago, and lowers; what each counts then, and what was done. Only looks where
    /// no sum is given.
    pub(super) async fn compare(
        &self,
        list: &[Touched],
        sums: &[Sum],
        behind_ms: i64,
    ) -> Result<Vec<Look>, StoreError> {
        // By owner: those of several may lie in several slots.
        let mut answers = vec![Look::default(); list.len()];
        let mut homes: Vec<(Home, Option<Slot>)> = list.iter().map(place).collect();
        homes.sort_unstable_by_key(|(home, slot)| (home.owner, home.naming, slot.map(number)));
        homes.dedup();
        for home in homes {
            let of_home = || list.iter().enumerate().filter(move |(_, what)| place(what) == home);
            let said: Vec<_> = of_home()
                .map(|(_, what)| {
                    let counter = std::slice::from_ref(&what.counter);
                    words(what.home, what.slot, counter, self.keep(self.session_ttl))
                })
                .collect();
            let mut pack = Pack::new();
            said.iter().flatten().for_each(|words| pack.counter_key(words));
            let keys = pack.len();
            pack.number(behind_ms);
            pack.number(self.now(0));
            for (words, (at, _)) in said.iter().flatten().zip(of_home()) {
                pack.spec(words);
                pack.sum(&sums[at]);
                pack.number(sums[at].lower);
                pack.bytes(&sums[at].mark);
            }
            let Value::Array(found) = self.run(&self.compare, &pack.seal(), keys).await? else {
                return Err(odd());
            };
            for ((at, _), words) in of_home().zip(found.chunks(4)) {
                answers[at] = seen(words).ok_or_else(odd)?;
            }
        }
        Ok(answers)
    }

    /// Tells the other proxies that the counter lacks a settlement.
    pub(super) async fn note(&self, what: &Touched, need_ms: i64) -> Result<(), StoreError> {
        self.noting(what.home, "note", Some((&what.key, need_ms))).await.map(drop)
    }

    /// It was compared with a ledger that was complete up to there.
    pub(super) async fn forget_note(&self, what: &Touched, need_ms: i64) -> Result<(), StoreError> {
        self.noting(what.home, "forget", Some((&what.key, need_ms))).await.map(drop)
    }

    /// What was noted of an owner's counters.
    pub(super) async fn notes(&self, home: Home) -> Result<Vec<(Bytes, i64)>, StoreError> {
        let Value::Array(found) = self.noting(home, "read", None).await? else { return Ok(Vec::new()) };
        let note = |pair: &[Value]| Some((pair.first()?.as_bytes()?.to_vec().into(), pair.get(1)?.as_i64()?));
        Ok(found.chunks(2).filter_map(note).collect())
    }

    async fn noting(
        &self,
        home: Home,
        what: &str,
        about: Option<(&Bytes, i64)>,
    ) -> Result<Value, StoreError> {
        // Under the first naming nothing lies together; there only the regular comparison finds it.
        if home.naming == CounterNaming::ByUser {
            return Ok(Value::Null);
        }
        let mut pack = Pack::new();
        pack.notes_key(home.owner);
        pack.bytes(what.as_bytes());
        match about {
            Some((key, need_ms)) => {
                pack.bytes(key);
                pack.number(need_ms);
                pack.number(NOTE_TTL_MS);
            }
            None => pack.number(now_ms() - NOTE_TTL_MS),
        }
        self.run(&self.note, &pack.seal(), 1).await
    }
}

/// One counter's part of the answer of `compare.lua`.
fn seen(words: &[Value]) -> Option<Look> {
    let [count, change, mark, start] = words else { return None };
    let change = match change.as_i64()? {
        1 => Some("raised"),
        2 => Some("lowered"),
        _ => None,
    };
    let mark = mark.as_bytes()?.to_vec().into();
    Some(Look { count: count.as_i64()?, change, mark, start_ms: start.as_i64().filter(|at| *at > 0) })
}

/// What lies in one slot of a cluster.
fn place(what: &Touched) -> (Home, Option<Slot>) {
    (what.home, (what.home.naming == CounterNaming::ByUser).then_some(what.slot))
}

fn number(slot: Slot) -> (bool, i64) {
    match slot {
        Slot::User(id) => (false, id.0),
        Slot::Provider(id) => (true, id.0),
    }
}

impl Touched {
    pub(super) fn new(home: Home, slot: Slot, counter: &Counter) -> Self {
        Self { home, slot, counter: counter.clone(), key: key(home, slot, counter) }
    }
}
