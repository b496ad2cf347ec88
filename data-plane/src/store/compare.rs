//! Counters in Redis against the ledger: what settlements that Redis never got have left too low is raised again.
//!
//! A counter is compared when this process touches it for the first time (so what an earlier run of it lost is
//! found), every `compare_every` while it is in use, when a settlement was lost, and when it was seeded while reports
//! of proxies were outstanding. Lost settlements are also noted in Redis, for the other proxies. Here is which are due;
//! `round` compares them.

mod round;

pub(super) use round::Sum;

use super::{Complete, Home, Options, Slot};
use crate::clock::now_ms;
use crate::limit::Counter;
use bytes::Bytes;
use contract::table::CounterNaming;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counters of one round; fewer after one that the ledger did not answer in time.
const BATCH: usize = 200;
/// Counters that are remembered; beyond, all are forgotten, and compared again when they are touched.
const MOST: usize = 65_536;
/// A counter that could not be compared, or not to the end, comes again after this, and less and less often.
const AGAIN_MS: i64 = 5_000;
/// A counter that was not complete after so many rounds waits for the next regular one.
const ROUNDS: u32 = 60;
/// As many, where the control plane does not know how far the ledger is, or to lower what is too much.
const BLIND_ROUNDS: u32 = 3;
/// How often what other proxies noted is read.
const NOTES_MS: i64 = 10_000;
/// A window that ended so long ago, by any clock, is not compared any more.
const OVER_MS: i64 = 60_000;

/// A counter to compare.
#[derive(Clone)]
pub(super) struct Touched {
    pub(super) home: Home,
    pub(super) slot: Slot,
    pub(super) counter: Counter,
    /// Its name.
    pub(super) key: Bytes,
}

/// What Redis says of a counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// What is counted; -1: it is not seeded.
    pub(super) count: i64,
    /// What was done to it: raised, or lowered.
    pub(super) change: Option<&'static str>,
    /// Another after each seeding and each correction.
    pub(super) mark: Bytes,
    /// When the window that runs now began, of one from first.
    pub(super) start_ms: Option<i64>,
}

struct Entry {
    what: Touched,
    /// When it is compared next, Unix milliseconds.
    due_ms: i64,
    /// The ledger has to be complete up to here, or the comparison does not count.
    need_ms: i64,
    /// When it was in use last.
    touched_ms: i64,
    /// A settlement was lost, and Redis has not been told.
    unnoted: bool,
    rounds: u32,
    /// Redis could not count with its keys: it is not compared before this.
    parked_ms: i64,
    /// What was counted at a moment up to which the ledger was not complete yet.
    seen: Option<(i64, Look)>,
}

impl Entry {
    /// It is compared at this time.
    fn comes(&mut self, at_ms: i64) {
        self.due_ms = at_ms.max(self.parked_ms);
    }

    /// Whether it is of no use to compare it.
    fn is_over(&self, now_ms: i64, every_ms: i64) -> bool {
        let has_ended = self.what.counter.end_ms().is_some_and(|end| end + OVER_MS < now_ms);
        let is_owed = self.unnoted || self.rounds > 0;
        has_ended || !is_owed && now_ms - self.touched_ms > every_ms.saturating_mul(2)
    }
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Bytes, Entry>,
    /// Where they lie; and up to when the ledger has to be complete for a new one there.
    homes: HashMap<Home, i64>,
    notes_ms: i64,
}

/// What the workers of a process compare.
pub(super) struct Compare {
    inner: Mutex<Inner>,
    busy: AtomicBool,
    batch: AtomicUsize,
    every_ms: i64,
    /// No request takes longer.
    longest_ms: i64,
    begun_ms: i64,
}

impl Compare {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            inner: Mutex::default(),
            busy: AtomicBool::new(false),
            batch: AtomicUsize::new(BATCH),
            every_ms: super::ms(options.compare_every),
            longest_ms: super::ms(options.reservation_ttl),
            begun_ms: now_ms(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is a plain assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, what: Touched, change: impl FnOnce(&mut Entry)) {
        let mut inner = self.lock();
        if inner.entries.len() >= MOST && !inner.entries.contains_key(&what.key) {
            // Those that are owed a comparison stay, unless they are too many themselves.
            inner.entries.retain(|_, entry| entry.unnoted || entry.rounds > 0);
            if inner.entries.len() >= MOST {
                inner.entries.clear();
            }
        }
        let need_ms = self.need_ms(&mut inner, what.home);
        let new = Entry {
            due_ms: i64::MAX,
            need_ms,
            touched_ms: now_ms(),
            unnoted: false,
            rounds: 0,
            parked_ms: 0,
            seen: None,
            what: what.clone(),
        };
        let entry = inner.entries.entry(what.key.clone()).or_insert(new);
        // Windows go on under one name.
        entry.what = what;
        change(entry);
    }

    /// Up to when the ledger has to be complete for a counter that is new here. While counters are renamed, requests
    /// that began before are charged under the old names, and stand in the ledger only when the last of them has ended.
    fn need_ms(&self, inner: &mut Inner, home: Home) -> i64 {
        let begun_ms = self.begun_ms;
        let old = Home { naming: CounterNaming::ByUser, ..home };
        let is_renamed = home != old && inner.homes.contains_key(&old);
        let new = || if is_renamed { now_ms() + self.longest_ms } else { begun_ms };
        *inner.homes.entry(home).or_insert_with(new)
    }

    /// It is in use: compared now if it is new to this process, else from time to time.
    pub(super) fn touched(&self, what: Touched) {
        let now = now_ms();
        self.entry(what, |entry| {
            entry.touched_ms = now;
            if entry.due_ms == i64::MAX {
                entry.due_ms = now;
            }
        });
    }

    /// A settlement of a request that ended then never reached Redis.
    pub(super) fn lost(&self, what: Touched, ended_ms: i64) {
        let now = now_ms();
        self.entry(what, |entry| {
            (entry.unnoted, entry.rounds) = (true, 0);
            entry.comes(now);
            entry.need_ms = entry.need_ms.max(ended_ms);
        });
    }

    /// It was seeded at this moment, when the ledger did not have everything yet.
    pub(super) fn seeded_early(&self, what: Touched, at_ms: i64) {
        self.entry(what, |entry| {
            entry.rounds = 0;
            entry.comes(at_ms);
            entry.need_ms = entry.need_ms.max(at_ms);
        });
    }

    /// Its limit is there again: requests that began without it will be in the ledger when the last of them has ended.
    pub(super) fn came_back(&self, what: Touched) {
        let now = now_ms();
        self.entry(what, |entry| {
            entry.rounds = 0;
            entry.comes(now);
            entry.need_ms = entry.need_ms.max(now + self.longest_ms);
        });
    }

    /// Whether something is due, and nobody is at it; the caller is now.
    pub(super) fn begins(&self) -> bool {
        let now = now_ms();
        let inner = self.lock();
        let is_due = now - inner.notes_ms >= NOTES_MS && !inner.homes.is_empty()
            || inner.entries.values().any(|entry| entry.due_ms <= now);
        drop(inner);
        is_due && !self.busy.swap(true, Ordering::Acquire)
    }

    /// Those that have waited longest; what is of no use any more is forgotten.
    fn batch(&self) -> Vec<(Touched, bool)> {
        let now = now_ms();
        let mut inner = self.lock();
        inner.entries.retain(|_, entry| !entry.is_over(now, self.every_ms));
        let mut due: Vec<&mut Entry> =
            inner.entries.values_mut().filter(|entry| entry.due_ms <= now).collect();
        due.sort_unstable_by_key(|entry| entry.due_ms);
        due.truncate(self.batch.load(Ordering::Relaxed));
        due.into_iter()
            .map(|entry| {
                // Until the round is over; if it fails, it comes again.
                entry.rounds += 1;
                entry.due_ms = now + AGAIN_MS * i64::from(entry.rounds.min(12));
                (entry.what.clone(), entry.unnoted)
            })
            .collect()
    }

    /// Redis cannot count with its keys, which nothing here can mend.
    fn park(&self, key: &Bytes) {
        let next_ms = now_ms() + self.every_ms;
        if let Some(entry) = self.lock().entries.get_mut(key) {
            (entry.due_ms, entry.parked_ms, entry.rounds, entry.seen) = (next_ms, next_ms, 0, None);
        }
    }

    /// Whether Redis and the ledger answered in time: asked for less, they may.
    fn answered(&self, in_time: bool) {
        let size = self.batch.load(Ordering::Relaxed);
        let next = if in_time { (size * 2).min(BATCH) } else { (size / 2).max(1) };
        self.batch.store(next, Ordering::Relaxed);
    }

    /// The homes whose notes are to be read.
    fn noting(&self) -> Vec<Home> {
        let now = now_ms();
        let mut inner = self.lock();
        if now - inner.notes_ms < NOTES_MS {
            return Vec::new();
        }
        inner.notes_ms = now;
        inner.homes.keys().copied().collect()
    }

    fn noted(&self, key: &Bytes) {
        if let Some(entry) = self.lock().entries.get_mut(key) {
            entry.unnoted = false;
        }
    }

    /// Other proxies noted it: those that this one knows are compared.
    fn read(&self, key: &Bytes, need_ms: i64) {
        let now = now_ms();
        if let Some(entry) = self.lock().entries.get_mut(key)
            && entry.need_ms < need_ms
        {
            (entry.need_ms, entry.rounds) = (need_ms, 0);
            entry.comes(now);
        }
    }

    /// What it counted at the earliest moment since it was corrected last up to which the ledger was not complete yet.
    fn looked(&self, key: &Bytes, at_ms: i64, look: &Look) -> (i64, Look) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(key) else { return (at_ms, look.clone()) };
        match &entry.seen {
            Some(seen) if seen.1.mark == look.mark => seen.clone(),
            _ => entry.seen.insert((at_ms, look.clone())).clone(),
        }
    }

    /// A round over it has ended; up to when what it needs is known to be complete, if it is done. `excess`: it is
    /// above the ledger, as far as that can be known yet.
    fn compared(&self, key: &Bytes, complete: Complete, excess: Excess) -> Option<i64> {
        let now = now_ms();
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(key)?;
        if excess != Excess::Perhaps {
            entry.seen = None;
        } else if entry.rounds < BLIND_ROUNDS {
            return None;
        }
        let is_complete = complete.connected_ms.is_some_and(|at| at >= entry.need_ms);
        let most = if complete.connected_ms.is_some() { ROUNDS } else { BLIND_ROUNDS };
        if !is_complete && entry.rounds < most {
            return None;
        }
        (entry.due_ms, entry.rounds) = (now + self.every_ms, 0);
        is_complete.then_some(entry.need_ms)
    }
}

#[cfg(test)]
impl Compare {
    pub(super) fn due_for_tests(&self) -> Vec<Touched> {
        self.batch().into_iter().map(|(what, _)| what).collect()
    }

    pub(super) fn answered_for_tests(&self, in_time: bool) {
        self.answered(in_time);
    }

    pub(super) fn compared_for_tests(&self, key: &Bytes, complete: Complete) -> Option<i64> {
        self.compared(key, complete, Excess::None)
    }
}

/// Whether a counter is above the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excess {
    /// By so much.
    Of(i64),
    /// Not all reports are there that could tell.
    Perhaps,
    None,
}
