//! The part of Redis that is compared with the ledger: looking at counters, raising and lowering them, and notes for
//! other proxies about counters that lack a settlement.

use super::compare::{Sum, Touched};
use super::naming::{Pack, Said, key, words};
use super::redis::{RedisStore, odd};
use super::{Home, Slot, StoreError};
use crate::limit::Counter;
use bytes::Bytes;
use contract::table::CounterNaming;
use fred::prelude::Value;

/// Counters that are handed on at once; others come with their next use.
const MAX_TOUCHED: usize = 4_096;
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

    /// Those that were remembered since the last call.
    pub(super) fn touched(&self) -> Vec<Touched> {
        self.touched.take()
    }

    /// Raises and lowers; what each counts then, and what was done. Only looks where no sum is given.
    pub(super) async fn compare(
        &self,
        list: &[Touched],
        sums: &[Sum],
        complete_ms: i64,
    ) -> Result<Vec<(i64, Option<&'static str>)>, StoreError> {
        // By owner: those of several may lie in several slots.
        let mut answers = vec![(-1, None); list.len()];
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
            pack.number(complete_ms);
            pack.number(self.now(0));
            for (words, (at, _)) in said.iter().flatten().zip(of_home()) {
                pack.spec(words);
                pack.sum(&sums[at]);
                pack.number(sums[at].lower);
            }
            let Value::Array(found) = self.run(&self.compare, &pack.seal(), keys).await? else {
                return Err(odd());
            };
            for ((at, _), pair) in of_home().zip(found.chunks(2)) {
                let [count, change] = pair else { return Err(odd()) };
                let change = match change.as_i64() {
                    Some(1) => Some("raised"),
                    Some(2) => Some("lowered"),
                    _ => None,
                };
                answers[at] = (count.as_i64().ok_or_else(odd)?, change);
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
        if let Some((key, need_ms)) = about {
            pack.bytes(key);
            pack.number(need_ms);
            pack.number(NOTE_TTL_MS);
        }
        self.run(&self.note, &pack.seal(), 1).await
    }
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
