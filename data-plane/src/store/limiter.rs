//! What the walk uses: Redis while it answers, memory otherwise; counters that the store does not know are
//! seeded from the ledger. Never fails: every question has an answer within `redis_timeout`, or `ledger_timeout`
//! where a counter is seen for the first time.

use super::breaker::{Breaker, Degraded};
use super::lease::{Holder, Leases};
use super::memory::MemoryStore;
use super::providers::Providers;
use super::recall::Recall;
use super::redis::{Clock, RedisStore};
use super::settler::{Began, Job, Settler};
use super::{
    Admission, Answer, Ask, COUNTERS_SEEDED, LIMITER_FALLBACKS, Ledger, Mode, Options, Over, Refusal,
    Reserve, SETTLEMENTS_LOST, Seed, Settlement, Slot, Store, StoreError, seeding,
};
use crate::limit::{self, Counter, Counters};
use chrono_tz::Tz;
use contract::ids::{ProviderId, RequestId};
use contract::money::NanoUsd;
use contract::table::{Measure, Provider};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Callers that wait for the same ledger answer stand in one of so many lines.
const TURNS: usize = 64;
/// A counter that is unknown again right after it was seeded (Redis emptied meanwhile) is seeded so often.
const SEED_ROUNDS: usize = 3;

/// What the workers of a process share.
pub struct Shared {
    pub(super) options: Options,
    pub(super) memory: MemoryStore,
    pub(super) providers: Providers,
    pub(super) degraded: Degraded,
    ledger: Option<Arc<dyn Ledger>>,
    turns: Box<[tokio::sync::Mutex<()>]>,
}

impl Shared {
    /// Without a ledger, counters begin at zero.
    pub fn new(options: Options, ledger: Option<Arc<dyn Ledger>>) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(&options),
            options,
            providers: Providers::default(),
            degraded: Degraded::default(),
            ledger,
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
        })
    }

    fn turn(&self, slot: Slot) -> &tokio::sync::Mutex<()> {
        let (Slot::User(contract::ids::UserId(id)) | Slot::Provider(ProviderId(id))) = slot;
        &self.turns[usize::try_from(id.rem_euclid(TURNS as i64)).unwrap_or_default()]
    }
}

/// `REDIS_URL` makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("REDIS_URL is wrong: {0}")]
pub struct OpenError(String);

/// One worker's way to the stores.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) redis: Option<RedisStore>,
    pub(super) breaker: Breaker,
    pub(super) leases: Leases,
    recall: Recall,
}

/// Admits requests and settles them. One per worker thread, made inside its runtime; clones are handles.
#[derive(Clone)]
pub struct Limiter {
    core: Rc<Core>,
    queue: mpsc::Sender<Job>,
    full: Rc<Cell<bool>>,
}

impl Limiter {
    /// Connects to Redis, if there is one. The [`Settler`] must be run on the same thread: it settles, and it
    /// notices that Redis is back.
    pub async fn open(shared: Arc<Shared>) -> Result<(Self, Settler), OpenError> {
        let redis = match &shared.options.redis_url {
            None => None,
            Some(url) => {
                let opened = RedisStore::open(url, &shared.options, Clock::Server).await;
                Some(opened.map_err(|error| OpenError(error.to_string()))?)
            }
        };
        let (queue, jobs) = mpsc::channel(shared.options.settle_queue.max(1));
        let core = Rc::new(Core {
            shared,
            redis,
            breaker: Breaker::default(),
            leases: Leases::default(),
            recall: Recall::default(),
        });
        let settler = Settler::new(Rc::clone(&core), jobs);
        Ok((Self { core, queue, full: Rc::default() }, settler))
    }

    /// Asks all counters at once and takes from all or none. Touches no store when there is nothing to ask.
    /// Cancelled, it may have taken: settle the request all the same.
    pub async fn reserve(&self, ask: &Ask<'_>) -> Admission {
        let core = &*self.core;
        if let Some(bound) = core.known(ask) {
            return Admission::Admitted { bound };
        }
        // Boxed, because the client's future is 10 KiB, which every request's would carry along.
        match Box::pin(core.ask(&Reserve::of(ask))).await {
            Answer::Taken { bound } => {
                core.learn(ask, bound);
                Admission::Admitted { bound }
            }
            Answer::Over(over) => Admission::Refused(refusal(&over, ask)),
            Answer::Unseeded(_) => Admission::Admitted { bound: None },
        }
    }

    /// Ends an admitted request, in the background. May be called from `Drop`. The first settlement of a request
    /// counts, later ones do nothing.
    pub fn settle(&self, mut settlement: Settlement) {
        self.core.leases.end(&mut settlement);
        let counted = settlement.counters.iter().any(|c| c.limit.measure != Measure::Requests);
        let bound = settlement.bind.is_some() && settlement.session.is_some();
        let charged = settlement.provider.as_ref().is_some_and(|(_, counters)| !counters.is_empty());
        if counted || charged || (bound && self.core.must_bind(&settlement)) {
            self.send(Job::Settle(Box::new(settlement)));
        }
    }

    /// Counts a request, and its session, at a provider that limits requests or sessions, as it is sent there.
    /// In the background; [`Limiter::settle`] ends it.
    pub fn provider_began(&self, ask: &Ask<'_>, provider: &Provider, zone: Tz) {
        let limited = |limit: &contract::table::Limit| limit.measure != Measure::Usd;
        if provider.limits.iter().any(limited) {
            let counters = limit::provider_counters(provider, zone, ask.now_ms);
            let counters = counters.only(|counter| limited(&counter.limit));
            self.send(Job::Began(Box::new(Began {
                provider: provider.id,
                counters,
                request: ask.request,
                session: ask.session.map(Arc::from),
                now_ms: ask.now_ms,
            })));
        }
    }

    /// Which of its limits a provider has reached; `None`: it may be used. A provider full of sessions may
    /// still serve the sessions that are bound to it. Answers from memory; what it says is at most about a
    /// second old, and is renewed in the background.
    pub fn provider_load(&self, provider: &Provider, zone: Tz, now_ms: i64) -> Option<Measure> {
        if provider.limits.is_empty() {
            return None;
        }
        let (over, stale) = self.core.shared.providers.look(provider.id, now_ms);
        if stale {
            let counters = limit::provider_counters(provider, zone, now_ms);
            self.send(Job::Look { provider: provider.id, counters, now_ms });
        }
        over
    }

    /// Whether a provider is at one of its limits, see [`Limiter::provider_load`].
    pub fn provider_over(&self, provider: &Provider, zone: Tz, now_ms: i64) -> bool {
        self.provider_load(provider, zone, now_ms).is_some()
    }

    fn send(&self, job: Job) {
        match self.queue.try_send(job) {
            Ok(()) => self.full.set(false),
            Err(error) => {
                if matches!(error.into_inner(), Job::Settle(_)) {
                    metrics::counter!(SETTLEMENTS_LOST).increment(1);
                }
                if !self.full.replace(true) {
                    tracing::error!("settlements are lost: their queue is full, or this proxy is stopping");
                }
            }
        }
    }
}

impl Core {
    /// Redis, while it answers.
    pub(super) fn usable(&self) -> Option<&RedisStore> {
        self.redis.as_ref().filter(|_| !self.breaker.is_open())
    }

    /// Slices, where they are wanted and Redis answers.
    fn lending(&self) -> Option<&Leases> {
        self.usable().filter(|_| self.shared.options.leases).map(|_| &self.leases)
    }

    /// The session's provider, where nothing has to be asked: there is nothing to count, or it was lent.
    fn known(&self, ask: &Ask<'_>) -> Option<Option<ProviderId>> {
        if !ask.counters.is_empty() {
            return self.lending()?.take(ask);
        }
        let Some(session) = ask.session else { return Some(None) };
        self.usable()?;
        self.recall.bound(ask.user, session, ask.now_ms).map(Some)
    }

    /// A store admitted the request.
    fn learn(&self, ask: &Ask<'_>, bound: Option<ProviderId>) {
        if !ask.counters.is_empty() {
            if let Some(leases) = self.lending() {
                leases.confirm(ask, bound);
            }
        } else if let (Some(session), Some(_)) = (ask.session, self.usable()) {
            self.recall.learn(ask.user, session, bound, ask.now_ms);
        }
    }

    /// Whether the binding was not written a moment ago.
    fn must_bind(&self, settlement: &Settlement) -> bool {
        match (&settlement.session, settlement.bind, self.usable()) {
            (Some(session), Some(provider), Some(_)) => {
                self.recall.rebind(settlement.user, session, provider, settlement.now_ms)
            }
            _ => true,
        }
    }

    /// Charges what a holder has spent, and renews its slice; only gives back if `last`.
    pub(super) async fn renew(&self, holder: &Holder, now_ms: i64, last: bool) {
        // What could not be sent before, then what was spent since.
        while let Some(unsent) = holder.unsent(now_ms) {
            let money = holder.money();
            let charge = holder.charge(&unsent, &money);
            let sent = match self.usable() {
                Some(redis) => redis.settle(&charge).await.inspect_err(|error| self.failed(error)).is_ok(),
                None => false,
            };
            if !sent {
                if holder.tell_memory() {
                    // Memory does not fail.
                    let _ = self.shared.memory.settle(&charge).await;
                }
                return holder.rest();
            }
            holder.sent();
        }
        let Some(redis) = self.usable() else { return holder.rest() };
        let plan = holder.plan(now_ms, last);
        let lent = redis.lend(&holder.wish(&plan)).await.inspect_err(|error| self.failed(error));
        holder.lent(&plan, lent.ok());
    }

    /// A command to Redis failed.
    pub(super) fn failed(&self, error: &StoreError) {
        if self.breaker.failed(error, &self.shared.degraded) {
            // What memory knew of money is older than what was spent through Redis since.
            self.shared.memory.forget_bases();
        }
    }

    /// The answer of Redis, or of memory.
    pub(super) async fn ask(&self, reserve: &Reserve<'_>) -> Answer {
        if let Some(redis) = self.usable() {
            match self.admit(redis, reserve).await {
                Ok(answer) => return answer,
                Err(error) => self.failed(&error),
            }
        }
        if self.redis.is_some() {
            metrics::counter!(LIMITER_FALLBACKS).increment(1);
            self.shared.degraded.touch(reserve.now_ms);
        }
        // Memory has no reason to fail but counters that are forgotten as fast as they are seeded.
        self.admit(&self.shared.memory, reserve).await.unwrap_or(Answer::Taken { bound: None })
    }

    /// Asks the store; seeds what it does not know and asks again.
    async fn admit<S: Store>(&self, store: &S, reserve: &Reserve<'_>) -> Result<Answer, StoreError> {
        let answer = store.reserve(reserve).await?;
        if !matches!(answer, Answer::Unseeded(_)) {
            return Ok(answer);
        }
        for _ in 0..SEED_ROUNDS {
            // One asks the ledger; those behind it find the counter seeded. No turn in time: go on without.
            let waited = tokio::time::timeout(
                self.shared.options.ledger_timeout,
                self.shared.turn(reserve.slot).lock(),
            );
            let turn = waited.await;
            let missing = match store.reserve(reserve).await? {
                Answer::Unseeded(missing) => missing,
                answer => return Ok(answer),
            };
            let seeds = match &turn {
                Ok(_) => self.seeds(reserve, &missing).await,
                Err(_) => missing.iter().map(|&index| Seed { index, known: None }).collect(),
            };
            store.seed(reserve, &seeds).await?;
            drop(turn);
            let answer = store.reserve(reserve).await?;
            if !matches!(answer, Answer::Unseeded(_)) {
                return Ok(answer);
            }
        }
        Err(StoreError::Unseeded)
    }

    /// What the ledger knows; where it does not answer in time, provisional seeds.
    async fn seeds(&self, reserve: &Reserve<'_>, missing: &[usize]) -> Vec<Seed> {
        let counter = |index: usize| &reserve.counters[index];
        let now = reserve.now_ms;
        let Some(ledger) = &self.shared.ledger else {
            return missing.iter().map(|&index| seeding::seed(index, counter(index), &[], now)).collect();
        };
        let queries: Vec<_> = missing.iter().map(|&index| seeding::query(counter(index), now)).collect();
        let asked = tokio::time::timeout(self.shared.options.ledger_timeout, ledger.spent(&queries)).await;
        let count = missing.len() as u64;
        match asked {
            Ok(Ok(sums)) if sums.len() == missing.len() => {
                metrics::counter!(COUNTERS_SEEDED, "source" => "ledger").increment(count);
                let seeds = missing.iter().zip(sums);
                seeds.map(|(&index, sums)| seeding::seed(index, counter(index), &sums, now)).collect()
            }
            other => {
                let reason = match other {
                    Ok(Err(error)) => error.to_string(),
                    Ok(Ok(_)) => "it answered another number of questions".to_owned(),
                    Err(_) => "no answer in time".to_owned(),
                };
                tracing::debug!(reason, "money counters begin without the ledger and ask it again soon");
                metrics::counter!(COUNTERS_SEEDED, "source" => "provisional").increment(count);
                missing.iter().map(|&index| Seed { index, known: None }).collect()
            }
        }
    }

    /// Asks how a provider stands and remembers it.
    pub(super) async fn look(&self, provider: ProviderId, counters: &Counters, now_ms: i64) {
        let reserve = Reserve {
            slot: Slot::Provider(provider),
            mode: Mode::Check,
            request: RequestId(Uuid::nil()),
            now_ms,
            counters,
            estimate: NanoUsd(0),
            session: None,
            session_ttl: Duration::ZERO,
        };
        let over = match self.ask(&reserve).await {
            Answer::Over(over) => counters.get(over.index).map(|counter| counter.limit.measure),
            Answer::Taken { .. } | Answer::Unseeded(_) => None,
        };
        self.shared.providers.learn(provider, now_ms, over);
    }
}

fn refusal(over: &Over, ask: &Ask<'_>) -> Refusal {
    let counter: &Counter = &ask.counters[over.index];
    let wait = over.wait_ms.map(|wait| Duration::from_millis(wait.max(1).unsigned_abs()));
    Refusal {
        limit_type: counter.limit.word(),
        scope: counter.scope,
        measure: counter.limit.measure,
        current: over.current,
        limit: counter.limit.amount,
        reset_ms: counter.end_ms().or(over.reset_ms),
        retry_after: counter.until_end(ask.now_ms).or(wait),
    }
}
