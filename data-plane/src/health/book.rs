//! The health of all providers, shared by all threads. A provider without trouble has no entry and costs one
//! look into a map; one that serves costs an atomic more.

use super::machine::Machine;
use super::rest::Rests;
use super::senders::Senders;
use super::{Finding, Gate, Pass, Probe, Verdict};
use crate::map::Map;
use crate::table::{Snapshot, Upstream};
use arc_swap::ArcSwap;
use contract::ids::{ProviderId, UserId};
use contract::table::{CircuitState, Health};
use llm::EndpointKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The gate is open, no lock needed.
const SERVES: u8 = 1;
/// A success changes nothing, no lock needed.
const CLEAN: u8 = 2;

type Entries = Map<ProviderId, Arc<Entry>>;

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Book(Arc<Inner>);

#[derive(Default)]
struct Inner {
    entries: ArcSwap<Entries>,
    /// Transitions that nobody took yet; of one provider only the newest, so it is bounded by their number.
    pending: Mutex<BTreeMap<ProviderId, Health>>,
    changed: Notify,
    /// Providers that must be looked at: callers were refused too often, or one account's requests failed too often.
    suspects: Mutex<BTreeSet<ProviderId>>,
    suspected: Notify,
    rests: Rests,
    senders: Senders,
}

struct Entry {
    flags: AtomicU8,
    /// The machine's, to be read without its lock.
    epoch: AtomicI64,
    machine: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    machine: Machine,
    /// The newest epoch that the control plane is known to have.
    confirmed: i64,
}

impl Book {
    /// A book in which every provider is well.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to use a provider now. [`Gate::Trial`] takes its one trial and must be followed by [`Book::record`]
    /// with the pass.
    pub fn gate(&self, up: &Upstream, now_ms: i64) -> (Gate, Pass) {
        match self.0.entries.load().get(&up.row.id) {
            None => (Gate::Open, Pass::default()),
            Some(entry) if entry.has(SERVES) => (Gate::Open, entry.pass()),
            Some(entry) => {
                let mut held = entry.lock();
                let (gate, changed) = held.machine.enter(now_ms);
                let pass = held.machine.pass(gate);
                self.done(entry, held, up.row.id, changed);
                (gate, pass)
            }
        }
    }

    /// The pass of one that is used whatever its gate says, without a trial.
    pub fn pass(&self, id: ProviderId) -> Pass {
        self.0.entries.load().get(&id).map_or_else(Pass::default, |entry| entry.pass())
    }

    /// What [`Book::gate`] would answer; changes nothing.
    pub fn peek(&self, id: ProviderId, now_ms: i64) -> Gate {
        match self.0.entries.load().get(&id) {
            Some(entry) if !entry.has(SERVES) => entry.lock().machine.peek(now_ms),
            _ => Gate::Open,
        }
    }

    /// A request of this account is sent to somebody.
    pub fn sends(&self, account: UserId, now_ms: i64) {
        self.0.senders.sends(account, now_ms);
    }

    /// Takes note of the outcome of this account's attempt that was let through with `pass`.
    pub fn record(&self, up: &Upstream, pass: Pass, (verdict, account): (&Verdict, UserId), now_ms: i64) {
        let entry = match (self.entry(up.row.id), verdict) {
            (None, Verdict::Success | Verdict::Neutral) => return,
            (_, Verdict::Neutral) if pass.trial == 0 => return,
            (Some(entry), Verdict::Success | Verdict::Neutral) if entry.has(CLEAN) => return,
            (Some(entry), _) => entry,
            (None, _) => self.make(up.row.id),
        };
        let account = Some(account).filter(|account| !self.0.senders.is_alone(*account, now_ms));
        let mut held = entry.lock();
        let changed = held.machine.record(*verdict, Pass { account, ..pass }, &up.row.breaker, now_ms);
        let is_suspected = held.machine.is_suspected(&up.row.breaker);
        self.done(&entry, held, up.row.id, changed);
        if is_suspected && self.suspects().insert(up.row.id) {
            self.0.suspected.notify_one();
        }
    }

    /// Takes note of a request that the gateway itself made; see [`Machine::probed`].
    pub fn probed(&self, up: &Upstream, found: Finding, now_ms: i64) {
        let id = up.row.id;
        let Some(entry) = self.entry(id) else { return };
        if found.probe == Probe::Accepted {
            self.0.rests.forget(id);
        }
        let mut held = entry.lock();
        let changed = held.machine.probed(found, &up.row.breaker, now_ms);
        self.done(&entry, held, id, changed);
    }

    /// Waits for providers that must be looked at, and takes them. Cancel-safe.
    pub async fn suspected(&self) -> BTreeSet<ProviderId> {
        loop {
            let taken = std::mem::take(&mut *self.suspects());
            if !taken.is_empty() {
                return taken;
            }
            self.0.suspected.notified().await;
        }
    }

    /// Providers whose credential was found refused and not accepted since.
    pub fn refused(&self) -> BTreeSet<ProviderId> {
        let entries = self.0.entries.load();
        let sick = entries.iter().filter(|(_, entry)| !entry.has(SERVES));
        sick.filter(|(_, entry)| entry.lock().machine.is_refused()).map(|(id, _)| *id).collect()
    }

    /// Leaves a provider out of the choice for one kind of call and one model, while there are others.
    pub fn rest(&self, id: ProviderId, what: (EndpointKind, &str), now_ms: i64, until_ms: i64) {
        self.0.rests.add(id, what, now_ms, until_ms);
    }

    /// Why it is asleep, for people: whether it is on trial, and the reason of its state.
    pub fn reason(&self, id: ProviderId) -> (bool, &'static str) {
        self.entry(id).map_or((false, ""), |entry| entry.lock().machine.reason())
    }

    /// Whether it is to be left out. Costs one atomic while nobody rests.
    pub fn rests(&self, id: ProviderId, what: (EndpointKind, &str), now_ms: i64) -> bool {
        self.0.rests.has(id, what, now_ms)
    }

    /// Takes over the pushed state of providers; the newest epoch wins.
    pub fn adopt(&self, rows: &[Health], now_ms: i64) {
        for row in rows {
            let entry = self.make(row.provider_id);
            let mut held = entry.lock();
            held.confirmed = held.confirmed.max(row.epoch);
            if held.machine.adopt(row, now_ms) {
                if row.state == CircuitState::Closed {
                    self.0.rests.forget(row.provider_id);
                }
                // What this proxy had to say is older than what it was just told.
                self.pending().remove(&row.provider_id);
            }
            self.done(&entry, held, row.provider_id, false);
        }
    }

    /// Follows a new table: forgets providers that are gone, wakes those that may no longer be opened.
    pub fn follow(&self, table: &Snapshot) {
        self.0.entries.rcu(|entries| {
            let kept = entries.iter().filter(|(id, _)| table.upstream(**id).is_some());
            kept.map(|(id, entry)| (*id, Arc::clone(entry))).collect::<Entries>()
        });
        for (id, entry) in self.0.entries.load().iter() {
            if table.upstream(*id).is_some_and(|up| up.row.breaker.failure_threshold == 0) {
                let mut held = entry.lock();
                let changed = held.machine.force_closed();
                self.done(entry, held, *id, changed);
            }
        }
    }

    /// Where transitions come out, to be reported.
    pub fn transitions(&self) -> Transitions {
        Transitions(self.clone())
    }

    /// The state of every provider that is not simply well, for people.
    pub fn rows(&self) -> Vec<Health> {
        let mut rows: Vec<Health> =
            self.0.entries.load().iter().map(|(id, entry)| entry.lock().machine.row(*id)).collect();
        rows.sort_by_key(|row| row.provider_id);
        rows
    }

    fn entry(&self, id: ProviderId) -> Option<Arc<Entry>> {
        self.0.entries.load().get(&id).cloned()
    }

    fn make(&self, id: ProviderId) -> Arc<Entry> {
        if let Some(entry) = self.entry(id) {
            return entry;
        }
        let flags = AtomicU8::new(SERVES | CLEAN);
        let fresh = Arc::new(Entry { flags, epoch: AtomicI64::default(), machine: Mutex::default() });
        // Another thread may have been faster; then its entry stays.
        self.0.entries.rcu(|entries| {
            let mut next = Entries::clone(entries);
            next.entry(id).or_insert_with(|| Arc::clone(&fresh));
            next
        });
        self.entry(id).unwrap_or(fresh)
    }

    fn done(&self, entry: &Entry, held: MutexGuard<'_, Held>, id: ProviderId, changed: bool) {
        let serves = if held.machine.serves() { SERVES } else { 0 };
        let clean = if held.machine.is_clean() { CLEAN } else { 0 };
        entry.epoch.store(held.machine.epoch(), Ordering::Release);
        entry.flags.store(serves | clean, Ordering::Release);
        if changed {
            // Under the entry's lock, so that the pending rows of one provider never go backwards.
            let row = held.machine.row(id);
            self.pending().insert(id, row);
            drop(held);
            self.0.changed.notify_one();
        }
    }

    fn suspects(&self) -> MutexGuard<'_, BTreeSet<ProviderId>> {
        self.0.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<ProviderId, Health>> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    fn pass(&self) -> Pass {
        Pass { epoch: self.epoch.load(Ordering::Acquire), ..Pass::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transitions {
    /// Providers with failures in a row that this proxy counts, each with the time of the last one (Unix
    /// milliseconds), by id.
    pub fn failing(&self) -> Vec<(Health, i64)> {
        let entries = self.0.0.entries.load();
        let rows = entries.iter().map(|(id, entry)| {
            let held = entry.lock();
            (held.machine.row(*id), held.machine.failed_ms())
        });
        let mut failing: Vec<(Health, i64)> = rows.filter(|(row, _)| row.failures > 0).collect();
        failing.sort_by_key(|(row, _)| row.provider_id);
        failing
    }
}

/// The transitions of a [`Book`] that are still to be reported.
pub struct Transitions(Book);

impl Transitions {
    /// Waits for transitions and takes them: of each provider the newest. Cancel-safe.
    pub async fn next(&self) -> Vec<Health> {
        loop {
            let taken = std::mem::take(&mut *self.0.pending());
            if !taken.is_empty() {
                return taken.into_values().collect();
            }
            self.0.0.changed.notified().await;
        }
    }

    /// Queues again everything that the control plane was never seen to know. For a new stream: what was sent
    /// on the last one may not have arrived.
    pub fn repeat(&self) {
        for (id, entry) in self.0.0.entries.load().iter() {
            let held = entry.lock();
            if held.machine.epoch() > held.confirmed {
                let row = held.machine.row(*id);
                self.0.pending().insert(*id, row);
            }
        }
        self.0.0.changed.notify_one();
    }
}

#[cfg(test)]
impl Book {
    /// How a provider is, as it would be reported.
    pub(crate) fn row(&self, id: ProviderId) -> Health {
        self.entry(id).map_or_else(|| Machine::default().row(id), |entry| entry.lock().machine.row(id))
    }
}

#[cfg(test)]
mod tests;
