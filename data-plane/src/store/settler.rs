//! Settles requests in the background, one task per worker, and notices that Redis is back. What could not be
//! settled while Redis was away is kept and settled then; a counter that was seeded meanwhile knows it already.

use super::back::Back;
use super::hold;
use super::lease::{Holder, TICK};
use super::limiter::Core;
use super::{
    Charge, LIMITER_FALLBACKS, SETTLEMENTS_LOST, SETTLEMENTS_WAITING, Settlement, Slot, Store, StoreError, ms,
};
use crate::clock::now_ms;
use contract::ids::RequestId;
use contract::table::CounterNaming;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Commands in flight; they share one connection and its round trips.
const CONCURRENCY: usize = 128;
/// How often it is looked whether Redis is to be tried, and what is to be renewed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) enum Job {
    Settle(Box<Settlement>),
    Back(Box<Back>),
    Hold(RequestId),
    Renew(Rc<Holder>),
    Probe,
}

/// What Redis has to be told when it is back.
enum Owed {
    Settle(Box<Settlement>),
    Back(Box<Back>),
}

/// The background half of a [`super::Limiter`].
pub struct Settler {
    core: Rc<Core>,
    jobs: mpsc::Receiver<Job>,
    backlog: RefCell<VecDeque<Owed>>,
    probing: Cell<bool>,
    probed_ms: Cell<i64>,
}

impl Settler {
    pub(super) fn new(core: Rc<Core>, jobs: mpsc::Receiver<Job>) -> Self {
        Self { core, jobs, backlog: RefCell::default(), probing: Cell::default(), probed_ms: Cell::default() }
    }

    /// Runs until every clone of the limiter is gone and the queue is empty. Not cancel-safe: dropped, it loses
    /// the settlements that wait.
    pub async fn run(mut self) {
        let (_, closed) = mpsc::channel(1);
        let mut jobs = std::mem::replace(&mut self.jobs, closed);
        let this = &self;
        let mut running = FuturesUnordered::new();
        let mut look = tokio::time::interval(LOOK_INTERVAL.min(this.hold_every()));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Apart from what is settled: it waits long, and nobody waits for it.
        let mut comparing: LocalBoxFuture<'_, ()> = Box::pin(std::future::pending());
        loop {
            tokio::select! {
                () = &mut comparing => comparing = Box::pin(std::future::pending()),
                job = jobs.recv(), if running.len() < CONCURRENCY => match job {
                    Some(job) => running.push(this.handle(job)),
                    None => break,
                },
                Some(()) = running.next() => {}
                _ = tick.tick(), if !this.core.leases.is_empty() => {
                    running.extend(this.due().into_iter().map(|holder| this.handle(Job::Renew(holder))));
                }
                _ = look.tick() => {
                    let due = this.core.holding.due(now_ms(), ms(this.hold_every()));
                    running.extend(due.into_iter().map(|request| this.handle(Job::Hold(request))));
                    if this.is_time_to_compare() {
                        comparing = Box::pin(this.core.compare());
                    }
                    if this.is_time_to_probe() {
                        running.push(this.handle(Job::Probe));
                    }
                }
            }
        }
        drop(comparing);
        while running.next().await.is_some() {}
        this.probe().await;
        let last = this.due().into_iter().map(async |holder| this.core.renew(&holder, now_ms(), true).await);
        futures_util::future::join_all(last).await;
        let lost = this.backlog.borrow().len();
        if lost > 0 {
            metrics::counter!(SETTLEMENTS_LOST).increment(lost as u64);
            tracing::warn!(
                lost,
                "stopping while Redis is away: the next start compares its counters with the ledger"
            );
        }
    }

    fn is_time_to_compare(&self) -> bool {
        let compare = &self.core.shared.compare;
        let Some(redis) = self.core.usable() else { return false };
        redis.touched().into_iter().for_each(|what| compare.touched(what));
        redis.passed.take().into_iter().for_each(|(what, ended_ms)| compare.lost(what, ended_ms));
        self.core.shared.ledger.is_some() && compare.begins()
    }

    fn is_time_to_probe(&self) -> bool {
        let has_lost_redis = self.core.breaker.is_open() || !self.backlog.borrow().is_empty();
        // The look before it came a moment too early.
        let pause = ms(self.core.breaker.pause() - LOOK_INTERVAL / 2);
        let is_time = has_lost_redis && !self.probing.get() && now_ms() - self.probed_ms.get() >= pause;
        if is_time {
            self.probing.set(true);
            self.probed_ms.set(now_ms());
        }
        is_time
    }

    fn hold_every(&self) -> Duration {
        hold::every(&self.core.shared.options).max(Duration::from_millis(1))
    }

    fn due(&self) -> Vec<Rc<Holder>> {
        self.core.leases.due(now_ms(), ms(self.hold_every()))
    }

    /// Boxed arm by arm: the room of a probe is not moved about for every settlement.
    fn handle(&self, job: Job) -> LocalBoxFuture<'_, ()> {
        match job {
            Job::Renew(holder) => Box::pin(async move { self.core.renew(&holder, now_ms(), false).await }),
            Job::Probe => Box::pin(async {
                self.probe().await;
                self.probing.set(false);
            }),
            Job::Settle(settlement) => Box::pin(self.settle(settlement)),
            Job::Hold(request) => Box::pin(self.core.renew_held(request)),
            Job::Back(back) => Box::pin(self.give_back(back)),
        }
    }

    async fn give_back(&self, back: Box<Back>) {
        // Memory does not fail.
        let _ = back.give(&self.core, &self.core.shared.memory).await;
        if self.core.redis.is_none() {
            return;
        }
        let given = match self.core.usable() {
            Some(redis) => back.give(&self.core, redis).await.inspect_err(|error| self.core.failed(error)),
            None => Err(StoreError::Disconnected),
        };
        if given.is_err_and(|error| error.is_everybodys()) {
            self.keep(Owed::Back(back));
        }
    }

    async fn settle(&self, settlement: Box<Settlement>) {
        let shared = &self.core.shared;
        let settled = match self.core.usable() {
            Some(redis) => in_store(redis, &settlement).await.inspect_err(|error| self.core.failed(error)),
            None => Err(StoreError::Disconnected),
        };
        // Also where a reservation may lie that was made while Redis was away.
        let lately = settlement.now_ms - shared.degraded.last_ms() <= ms(shared.options.reservation_ttl);
        if settled.is_err() || lately {
            // Memory does not fail.
            let _ = in_store(&shared.memory, &settlement).await;
        }
        let Err(error) = settled else { return };
        if self.core.redis.is_none() {
            return;
        }
        metrics::counter!(LIMITER_FALLBACKS).increment(1);
        if error.is_everybodys() {
            self.keep(Owed::Settle(settlement));
        } else {
            self.lost(&Owed::Settle(settlement));
        }
    }

    /// Keeps what Redis has to learn when it is back. Bindings are out of date by then.
    fn keep(&self, mut owed: Owed) {
        if let Owed::Settle(settlement) = &mut owed {
            settlement.bind = None;
            if settlement.counters.is_empty() && settlement.hold.is_none() {
                return;
            }
        }
        let mut backlog = self.backlog.borrow_mut();
        if backlog.len() >= self.core.shared.options.settle_backlog.max(1) {
            if let Some(oldest) = backlog.pop_front() {
                self.lost(&oldest);
            }
        } else {
            metrics::gauge!(SETTLEMENTS_WAITING).increment(1);
        }
        backlog.push_back(owed);
    }

    /// Redis never learns of it from here.
    fn lost(&self, owed: &Owed) {
        if let Owed::Settle(settlement) = owed {
            self.core.lost(settlement);
        }
    }

    /// Tries Redis; when it answers, settles what waits, oldest first, until it fails again.
    async fn probe(&self) {
        let Some(redis) = &self.core.redis else { return };
        if let Err(error) = redis.ping().await {
            self.core.failed(&error);
            return;
        }
        self.core.breaker.recovered(&self.core.shared.degraded);
        loop {
            let batch: Vec<Owed> = {
                let mut backlog = self.backlog.borrow_mut();
                let count = backlog.len().min(CONCURRENCY);
                backlog.drain(..count).collect()
            };
            if batch.is_empty() {
                return;
            }
            let pay = async |owed: &Owed| match owed {
                Owed::Settle(settlement) => in_store(redis, settlement).await,
                Owed::Back(back) => back.give(&self.core, redis).await,
            };
            let results = futures_util::future::join_all(batch.iter().map(pay)).await;
            let mut failed = None;
            for (owed, result) in batch.into_iter().zip(results).rev() {
                match result {
                    Err(error) if error.is_everybodys() => {
                        self.backlog.borrow_mut().push_front(owed);
                        failed = Some(error);
                    }
                    result => {
                        metrics::gauge!(SETTLEMENTS_WAITING).decrement(1);
                        if let Err(error) = result {
                            self.core.failed(&error);
                            self.lost(&owed);
                        }
                    }
                }
            }
            if let Some(error) = failed {
                self.core.failed(&error);
                return;
            }
        }
    }
}

/// The caller's counters and the provider's; together where they lie together. Done again after a failure, only what
/// was missing is charged.
async fn in_store<S: Store>(store: &S, settlement: &Settlement) -> Result<(), StoreError> {
    let hold = settlement.hold.as_ref();
    let stays = hold.is_some_and(|hold| settlement.answered || !hold.fresh);
    let charge = Charge {
        home: settlement.home,
        slot: Slot::User(settlement.user),
        request: settlement.request,
        now_ms: settlement.now_ms,
        last_ms: settlement.now_ms,
        age_ms: (now_ms() - settlement.now_ms).max(0),
        counters: &settlement.counters,
        actual: settlement.actual.unwrap_or_default(),
        session: settlement.session.as_deref(),
        bind: settlement.bind,
        provider: hold.map(|hold| (hold.provider, &*hold.counters, stays)),
    };
    if settlement.home.naming == CounterNaming::ByOwner {
        return store.settle(&charge).await.map(drop);
    }
    store.settle(&Charge { provider: None, ..charge }).await?;
    if let Some(hold) = hold {
        let slot = Slot::Provider(hold.provider);
        // Alone in its slot, it is the first group of the script.
        store
            .settle(&Charge { slot, counters: &hold.counters, bind: None, provider: None, ..charge })
            .await?;
    }
    Ok(())
}
