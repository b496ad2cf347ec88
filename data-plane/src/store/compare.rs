//! Counters in Redis against the ledger: what settlements that Redis never got have left too low is raised again.
//!
//! A counter is compared when this process touches it for the first time (so what an earlier run of it lost is
//! found), every `compare_every` while it is in use, when a settlement was lost, and when it was seeded while reports
//! of proxies were outstanding. Lost settlements are also noted in Redis, for the other proxies.
//!
//! One round looks at the counters, waits, asks the ledger, waits again, and raises those that are below its sums
//! even now: in the second wait, whatever the ledger knew arrives here if it arrives at all. So a round never
//! counts twice; what was spent meanwhile may hide a part of what is missing until the next round. A fixed window
//! that was above is lowered, but only if the ledger has every record that ended before the look: of all proxies,
//! also of those that are away. Other windows forget by themselves.

use super::limiter::Core;
use super::redis::RedisStore;
use super::{COUNTERS_CORRECTED, Complete, Home, Known, Slot, seeding};
use crate::clock::now_ms;
use crate::limit::Counter;
use bytes::Bytes;
use contract::window::Span;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counters of one round.
const BATCH: usize = 200;
/// Counters that are remembered; beyond, all are forgotten, and compared again when they are touched.
const MOST: usize = 65_536;
/// Waits for the ledger are so many times those of a request.
const PATIENCE: u32 = 10;
/// A counter that could not be compared, or not to the end, comes again after this, and less and less often.
const AGAIN_MS: i64 = 5_000;
/// A counter that was not complete after so many rounds waits for the next regular one.
const ROUNDS: u32 = 60;
/// As many, where the control plane does not know how far the ledger is.
const BLIND_ROUNDS: u32 = 3;
/// How often what other proxies noted is read.
const NOTES_MS: i64 = 10_000;

/// A counter to compare.
#[derive(Clone)]
pub(super) struct Touched {
    pub(super) home: Home,
    pub(super) slot: Slot,
    pub(super) counter: Counter,
    /// Its name.
    pub(super) key: Bytes,
}

struct Entry {
    what: Touched,
    /// When it is compared next, Unix milliseconds.
    due_ms: i64,
    /// The ledger has to be complete up to here, or the comparison does not count.
    need_ms: i64,
    /// A settlement was lost, and Redis has not been told.
    unnoted: bool,
    rounds: u32,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Bytes, Entry>,
    homes: HashSet<Home>,
    notes_ms: i64,
}

/// What the workers of a process compare.
pub(super) struct Compare {
    inner: Mutex<Inner>,
    busy: AtomicBool,
    every_ms: i64,
    begun_ms: i64,
}

impl Compare {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            inner: Mutex::default(),
            busy: AtomicBool::new(false),
            every_ms: super::ms(every),
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
        inner.homes.insert(what.home);
        let new =
            Entry { due_ms: i64::MAX, need_ms: self.begun_ms, unnoted: false, rounds: 0, what: what.clone() };
        let entry = inner.entries.entry(what.key.clone()).or_insert(new);
        // Windows go on under one name.
        entry.what = what;
        change(entry);
    }

    /// It is in use: compared now if it is new to this process, else from time to time.
    pub(super) fn touched(&self, what: Touched) {
        let now = now_ms();
        self.entry(what, |entry| {
            if entry.due_ms == i64::MAX {
                entry.due_ms = now;
            }
        });
    }

    /// A settlement of a request that ended then never reached Redis.
    pub(super) fn lost(&self, what: Touched, ended_ms: i64) {
        let now = now_ms();
        self.entry(what, |entry| {
            (entry.due_ms, entry.unnoted, entry.rounds) = (now, true, 0);
            entry.need_ms = entry.need_ms.max(ended_ms);
        });
    }

    /// It was seeded at this moment, when the ledger did not have everything yet.
    pub(super) fn seeded_early(&self, what: Touched, at_ms: i64) {
        self.entry(what, |entry| {
            (entry.due_ms, entry.rounds) = (at_ms, 0);
            entry.need_ms = entry.need_ms.max(at_ms);
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

    fn batch(&self) -> Vec<(Touched, bool)> {
        let now = now_ms();
        let mut inner = self.lock();
        let due = inner.entries.values_mut().filter(|entry| entry.due_ms <= now).take(BATCH);
        due.map(|entry| {
            // Until the round is over; if it fails, it comes again.
            entry.rounds += 1;
            entry.due_ms = now + AGAIN_MS * i64::from(entry.rounds.min(12));
            (entry.what.clone(), entry.unnoted)
        })
        .collect()
    }

    /// The homes whose notes are to be read.
    fn noting(&self) -> Vec<Home> {
        let now = now_ms();
        let mut inner = self.lock();
        if now - inner.notes_ms < NOTES_MS {
            return Vec::new();
        }
        inner.notes_ms = now;
        inner.homes.iter().copied().collect()
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
            (entry.need_ms, entry.due_ms, entry.rounds) = (need_ms, now, 0);
        }
    }

    /// A round over it has ended; up to when what it needs is known to be complete, if it is done.
    fn compared(&self, key: &Bytes, complete: Complete) -> Option<i64> {
        let now = now_ms();
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(key)?;
        let is_complete = complete.connected_ms.is_some_and(|at| at >= entry.need_ms);
        let most = if complete.connected_ms.is_some() { ROUNDS } else { BLIND_ROUNDS };
        if !is_complete && entry.rounds < most {
            return None;
        }
        (entry.due_ms, entry.rounds) = (now + self.every_ms, 0);
        is_complete.then_some(entry.need_ms)
    }
}

impl Core {
    /// One round. Whatever fails in it is done again later.
    pub(super) async fn compare(&self) {
        let result = self.compare_round().await;
        self.shared.compare.busy.store(false, Ordering::Release);
        if let Err(error) = result {
            tracing::debug!(error, "counters were not compared with the ledger; they are again later");
        }
    }

    async fn compare_round(&self) -> Result<(), String> {
        let compare = &self.shared.compare;
        let Some(redis) = self.usable() else { return Ok(()) };
        let text = |error: super::StoreError| error.to_string();
        for home in compare.noting() {
            for (key, need_ms) in redis.notes(home).await.map_err(text)? {
                compare.read(&key, need_ms);
            }
        }
        let batch = compare.batch();
        let Some(ledger) = self.shared.ledger.as_ref().filter(|_| !batch.is_empty()) else { return Ok(()) };
        for (what, _) in batch.iter().filter(|(_, unnoted)| *unnoted) {
            redis.note(what, now_ms()).await.map_err(text)?;
            compare.noted(&what.key);
        }
        let list: Vec<Touched> = batch.into_iter().map(|(what, _)| what).collect();
        let pause = self.shared.options.compare_pause;
        let looked_ms = now_ms();
        let before = self.look(redis, &list).await?;
        tokio::time::sleep(pause).await;
        let asked_ms = now_ms();
        let queries: Vec<_> = list.iter().map(|what| seeding::query(&what.counter, asked_ms)).collect();
        let patience = self.shared.options.ledger_timeout * PATIENCE;
        let spent = tokio::time::timeout(patience, ledger.spent(&queries)).await;
        let spent =
            spent.map_err(|_| "the ledger did not answer in time")?.map_err(|error| error.to_string())?;
        if spent.sums.len() != list.len() {
            return Err("the ledger answered another number of questions".to_owned());
        }
        tokio::time::sleep(pause).await;
        let knows_all = spent.complete.all_ms.is_some_and(|at| at >= looked_ms);
        let mut sums = Vec::with_capacity(list.len());
        for ((what, buckets), before) in list.iter().zip(&spent.sums).zip(before) {
            let seed = seeding::seed(0, &what.counter, buckets, asked_ms);
            let lower = match (&seed.known, what.counter.span) {
                (Some(Known::Sum(sum)), Span::Fixed { .. }) if knows_all && before > *sum => before - sum,
                _ => 0,
            };
            sums.push(Sum { known: seed.known, lower });
        }
        let complete_ms = spent.complete.connected_ms.unwrap_or(0);
        let after = redis.compare(&list, &sums, complete_ms).await.map_err(text)?;
        for (what, (_, change)) in list.iter().zip(after) {
            if let Some(change) = change {
                metrics::counter!(COUNTERS_CORRECTED, "change" => change).increment(1);
                tracing::info!(counter = %String::from_utf8_lossy(&what.key), change, "a counter did not fit the ledger");
            }
            if let Some(need_ms) = compare.compared(&what.key, spent.complete) {
                redis.forget_note(what, need_ms).await.map_err(text)?;
            }
        }
        Ok(())
    }

    async fn look(&self, redis: &RedisStore, list: &[Touched]) -> Result<Vec<i64>, String> {
        let look: Vec<Sum> = list.iter().map(|_| Sum { known: None, lower: 0 }).collect();
        let seen = redis.compare(list, &look, 0).await.map_err(|error| error.to_string())?;
        Ok(seen.into_iter().map(|(count, _)| count).collect())
    }
}

/// What a counter is raised to, or lowered by.
pub(super) struct Sum {
    pub(super) known: Option<Known>,
    pub(super) lower: i64,
}
