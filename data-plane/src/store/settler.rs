//! Settles requests in the background, one task per worker, and notices that Redis is back. What could not be
//! settled while Redis was away is kept and settled then; a counter that was seeded meanwhile knows it already.

use super::lease::{Holder, TICK};
use super::limiter::Core;
use super::{
    Charge, LIMITER_FALLBACKS, Mode, Reserve, SETTLEMENTS_LOST, SETTLEMENTS_WAITING, Settlement, Slot, Store,
    StoreError, ms,
};
use crate::clock::now_ms;
use crate::limit::{Counter, Counters};
use contract::ids::{ProviderId, RequestId};
use contract::money::NanoUsd;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Commands in flight; they share one connection and its round trips.
const CONCURRENCY: usize = 128;
/// How often Redis is tried while it is away.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

pub(super) enum Job {
    Settle(Box<Settlement>),
    Began(Box<Began>),
    Look { provider: ProviderId, counters: Counters, now_ms: i64 },
    Renew(Rc<Holder>),
    Probe,
}

/// A request on its way to a provider that limits requests or sessions.
pub(super) struct Began {
    pub(super) provider: ProviderId,
    pub(super) counters: Counters,
    pub(super) request: RequestId,
    pub(super) session: Option<Arc<str>>,
    pub(super) now_ms: i64,
}

/// The background half of a [`super::Limiter`].
pub struct Settler {
    core: Rc<Core>,
    jobs: mpsc::Receiver<Job>,
    backlog: RefCell<VecDeque<Box<Settlement>>>,
    probing: Cell<bool>,
}

impl Settler {
    pub(super) fn new(core: Rc<Core>, jobs: mpsc::Receiver<Job>) -> Self {
        Self { core, jobs, backlog: RefCell::default(), probing: Cell::default() }
    }

    /// Runs until every clone of the limiter is gone and the queue is empty. Not cancel-safe: dropped, it loses
    /// the settlements that wait.
    pub async fn run(mut self) {
        let (_, closed) = mpsc::channel(1);
        let mut jobs = std::mem::replace(&mut self.jobs, closed);
        let this = &self;
        let mut running = FuturesUnordered::new();
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                job = jobs.recv(), if running.len() < CONCURRENCY => match job {
                    Some(job) => running.push(this.handle(job)),
                    None => break,
                },
                Some(()) = running.next() => {}
                _ = tick.tick(), if !this.core.leases.is_empty() => {
                    running.extend(this.due().into_iter().map(|holder| this.handle(Job::Renew(holder))));
                }
                _ = probe.tick(), if !this.probing.get() && this.has_lost_redis() => {
                    this.probing.set(true);
                    running.push(this.handle(Job::Probe));
                }
            }
        }
        while running.next().await.is_some() {}
        this.probe().await;
        let last = this.due().into_iter().map(async |holder| this.core.renew(&holder, now_ms(), true).await);
        futures_util::future::join_all(last).await;
        let lost = this.backlog.borrow().len();
        if lost > 0 {
            metrics::counter!(SETTLEMENTS_LOST).increment(lost as u64);
            tracing::warn!(lost, "stopping while Redis is away: its counters learn of these from the ledger");
        }
    }

    fn has_lost_redis(&self) -> bool {
        self.core.breaker.is_open() || !self.backlog.borrow().is_empty()
    }

    fn due(&self) -> Vec<Rc<Holder>> {
        self.core.leases.due(now_ms(), ms(self.core.shared.options.reservation_ttl))
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
            Job::Look { provider, counters, now_ms } => {
                Box::pin(async move { self.core.look(provider, &counters, now_ms).await })
            }
            Job::Began(began) => Box::pin(self.began(began)),
        }
    }

    async fn began(&self, began: Box<Began>) {
        let reserve = Reserve {
            slot: Slot::Provider(began.provider),
            mode: Mode::Force,
            request: began.request,
            now_ms: began.now_ms,
            counters: &began.counters,
            estimate: NanoUsd(0),
            session: began.session.as_deref(),
            session_ttl: self.core.shared.options.session_ttl,
        };
        self.core.ask(&reserve).await;
    }

    async fn settle(&self, settlement: Box<Settlement>) {
        let shared = &self.core.shared;
        let settled = match self.core.usable() {
            Some(redis) => {
                in_store(redis, &settlement).await.inspect_err(|error| self.core.failed(error)).is_ok()
            }
            None => false,
        };
        // Also where a reservation may lie that was made while Redis was away.
        let lately = settlement.now_ms - shared.degraded.last_ms() <= ms(shared.options.reservation_ttl);
        if !settled || lately {
            // Memory does not fail.
            let _ = in_store(&shared.memory, &settlement).await;
        }
        if let Some((provider, counters)) = settlement.provider.as_ref().filter(|(_, list)| !list.is_empty())
            && shared.providers.charged(*provider, settlement.now_ms)
        {
            self.core.look(*provider, counters, settlement.now_ms).await;
        }
        if !settled && self.core.redis.is_some() {
            metrics::counter!(LIMITER_FALLBACKS).increment(1);
            self.keep(settlement);
        }
    }

    /// Keeps what Redis has to learn when it is back: money only. Sessions and bindings are out of date by then.
    fn keep(&self, mut settlement: Box<Settlement>) {
        settlement.bind = None;
        settlement.counters = settlement.counters.only(Counter::is_money);
        if let Some((_, counters)) = &mut settlement.provider {
            *counters = counters.only(Counter::is_money);
        }
        let provider_money = settlement.provider.as_ref().is_some_and(|(_, counters)| !counters.is_empty());
        if settlement.counters.is_empty() && !provider_money {
            return;
        }
        let mut backlog = self.backlog.borrow_mut();
        if backlog.len() >= self.core.shared.options.settle_backlog.max(1) {
            backlog.pop_front();
            metrics::counter!(SETTLEMENTS_LOST).increment(1);
        } else {
            metrics::gauge!(SETTLEMENTS_WAITING).increment(1);
        }
        backlog.push_back(settlement);
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
            let batch: Vec<Box<Settlement>> = {
                let mut backlog = self.backlog.borrow_mut();
                let count = backlog.len().min(CONCURRENCY);
                backlog.drain(..count).collect()
            };
            if batch.is_empty() {
                return;
            }
            let results = futures_util::future::join_all(batch.iter().map(|one| in_store(redis, one))).await;
            let mut failed = None;
            for (settlement, result) in batch.into_iter().zip(results).rev() {
                match result {
                    Ok(()) => metrics::gauge!(SETTLEMENTS_WAITING).decrement(1),
                    Err(error) => {
                        self.backlog.borrow_mut().push_front(settlement);
                        failed = Some(error);
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

/// The user's counters, then the provider's. Done again after a failure, only what was missing is charged.
async fn in_store<S: Store>(store: &S, settlement: &Settlement) -> Result<(), StoreError> {
    let charge = |slot, counters, bind| Charge {
        slot,
        request: settlement.request,
        now_ms: settlement.now_ms,
        counters,
        actual: settlement.actual.unwrap_or_default(),
        session: settlement.session.as_deref(),
        bind,
    };
    let counters: &[Counter] = &settlement.counters;
    store.settle(&charge(Slot::User(settlement.user), counters, settlement.bind)).await?;
    if let Some((provider, counters)) = settlement.provider.as_ref().filter(|(_, list)| !list.is_empty()) {
        store.settle(&charge(Slot::Provider(*provider), counters, None)).await?;
    }
    Ok(())
}
