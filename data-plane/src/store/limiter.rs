//! What the walk uses: Redis while it answers, memory otherwise; counters that the store does not know are
//! seeded from the ledger. Never fails: every question has an answer within `redis_timeout`, or `ledger_timeout`
//! where a counter is seen for the first time.

use super::back::{Back, Pending};
use super::breaker::{Breaker, Degraded};
use super::compare::{Compare, Touched};
use super::hold::Holding;
use super::lease::{Holder, Leases};
use super::memory::MemoryStore;
use super::recall::Recall;
use super::redis::{Clock, RedisStore};
use super::settler::{Job, Settler};
use super::{
    Admission, Answer, Ask, Bound, COUNTERS_SEEDED, Hold, LEDGER_LATE_MS, LEDGER_SLACK_MS, LIMITER_FALLBACKS,
    Leave, Leaves, Ledger, Line, Options, Over, Place, Refusal, Reserve, SETTLEMENTS_LOST, Seed, Settlement,
    Slot, Store, StoreError, Taken, seeding,
};
use crate::limit::Counter;
use contract::ids::ProviderId;
use contract::table::Measure;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Callers that wait for the same ledger answer stand in one of so many lines.
const TURNS: usize = 64;
/// A counter that is unknown again right after it was seeded (Redis emptied meanwhile) is seeded so often.
const SEED_ROUNDS: usize = 3;

/// What the workers of a process share.
pub struct Shared {
    pub(super) options: Options,
    pub(super) memory: MemoryStore,
    pub(super) degraded: Degraded,
    pub(super) compare: Compare,
    pub(super) ledger: Option<Arc<dyn Ledger>>,
    turns: Box<[tokio::sync::Mutex<()>]>,
}

impl Shared {
    /// Without a ledger, counters begin at zero.
    pub fn new(options: Options, ledger: Option<Arc<dyn Ledger>>) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(&options),
            compare: Compare::new(&options),
            options,
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
    pub(super) holding: Holding,
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
            holding: Holding::default(),
            recall: Recall::default(),
        });
        let settler = Settler::new(Rc::clone(&core), jobs);
        Ok((Self { core, queue, full: Rc::default() }, settler))
    }

    /// Asks all counters at once and takes from all or none: the caller's, and those of the first provider in `line`
    /// that has room. Touches no store when there is nothing to ask. Cancelled, it may have taken from the caller:
    /// settle the request all the same.
    pub async fn reserve(&self, ask: &Ask<'_>, line: Line<'_>) -> Admission {
        let known = self.core.known(ask);
        if let Some(bound) = known
            && line.candidates.is_empty()
        {
            return Admission::Admitted { bound, place: None, fresh: false };
        }
        // Boxed, because the client's future is 10 KiB, which every request's would carry along.
        Box::pin(self.ask(ask, line, known)).await
    }

    async fn ask(&self, ask: &Ask<'_>, line: Line<'_>, known: Option<Option<ProviderId>>) -> Admission {
        let core = &*self.core;
        let reserve = match known {
            Some(bound) => Reserve { counters: &[], bound: Bound::Known(bound), line, ..Reserve::of(ask) },
            None => Reserve { line, ..Reserve::of(ask) },
        };
        let pending = Pending { limiter: self, ask, line, left: None, answered: false };
        let (answer, is_certain) = core.ask(&reserve).await;
        pending.answered(&answer, is_certain, known.is_none().then_some(ask.user));
        let counted = known.is_none();
        match answer {
            Answer::Taken(taken) => {
                if counted {
                    core.learn(ask, taken.bound);
                }
                let place = place(line, &taken);
                core.holding.begin(ask, counted, place.as_ref().and_then(|place| place.hold.as_ref()));
                Admission::Admitted { bound: taken.bound, place, fresh: taken.fresh }
            }
            Answer::Over(over) => Admission::Refused(refusal(&over, ask)),
            Answer::Full => {
                core.leases.undo(ask.request);
                Admission::Full
            }
            Answer::Unseeded(_) => Admission::Admitted { bound: None, place: None, fresh: false },
        }
    }

    /// Moves an admitted request on: gives back what it held at the provider that it leaves, and takes from the
    /// first of `line` that has room; all in one step. `None`: none has. A request that was never sent to the one
    /// it leaves does not count there.
    pub async fn switch(&self, ask: &Ask<'_>, left: Option<(Hold, bool)>, line: Line<'_>) -> Option<Place> {
        if left.is_none() && line.candidates.iter().all(|one| one.counters.is_empty()) {
            return (!line.candidates.is_empty()).then_some(Place { index: 0, hold: None });
        }
        Box::pin(self.ask_on(ask, left, line)).await
    }

    async fn ask_on(&self, ask: &Ask<'_>, left: Option<(Hold, bool)>, line: Line<'_>) -> Option<Place> {
        let pending = Pending { limiter: self, ask, line, left: left.clone(), answered: false };
        let leave = left.as_ref().map(|(hold, unsent)| Leave {
            provider: hold.provider,
            counters: &hold.counters,
            session: if hold.fresh { Leaves::Goes } else { Leaves::Stays },
            unsent: *unsent,
        });
        let bound = Bound::Known(None);
        let reserve = Reserve { counters: &[], bound, line, leave, ..Reserve::of(ask) };
        let (answer, is_certain) = self.core.ask(&reserve).await;
        pending.answered(&answer, is_certain, None);
        let place = match &answer {
            Answer::Taken(taken) => place(line, taken),
            Answer::Over(_) | Answer::Full | Answer::Unseeded(_) => None,
        };
        self.core.holding.moved(ask, place.as_ref().and_then(|place| place.hold.as_ref()));
        place
    }

    /// An admitted request is refused before anything was sent: it counts nowhere. `fresh` as it was admitted. It is not
    /// to be settled.
    #[cold]
    pub fn withdraw(&self, ask: &Ask<'_>, fresh: bool) {
        let told_ms = self.core.holding.end(ask.request);
        if !self.core.leases.undo(ask.request) {
            // Others of the same new conversation may be served meanwhile.
            Back::own(ask, told_ms.filter(|_| fresh))
                .into_iter()
                .for_each(|back| self.send(Job::Back(Box::new(back))));
        }
    }

    /// Ends an admitted request, in the background. May be called from `Drop`. The first settlement of a request
    /// counts, later ones do nothing.
    pub fn settle(&self, mut settlement: Settlement) {
        self.core.holding.end(settlement.request);
        self.core.leases.end(&mut settlement);
        let lasts = |counter: &Counter| counter.limit.measure != Measure::Requests;
        let counted = settlement.counters.iter().any(lasts);
        let bound = settlement.bind.is_some() && settlement.session.is_some();
        let held = settlement.hold.as_ref().is_some_and(|hold| hold.counters.iter().any(lasts));
        if counted || held || (bound && self.core.must_bind(&settlement)) {
            self.send(Job::Settle(Box::new(settlement)));
        }
    }

    /// For tests that look behind it.
    #[cfg(test)]
    pub(super) fn core_for_tests(&self) -> &Core {
        &self.core
    }

    /// Whether this proxy does, for so long, what only one of the fleet should do. Without Redis each one does.
    pub async fn elected(&self, name: &str, hold: Duration) -> bool {
        match self.core.usable() {
            Some(redis) => Box::pin(redis.elected(name, hold)).await.unwrap_or(true),
            None => true,
        }
    }

    pub(super) fn send(&self, job: Job) {
        match self.queue.try_send(job) {
            Ok(()) => self.full.set(false),
            Err(error) => {
                if let Job::Settle(settlement) = error.into_inner() {
                    self.core.lost(&settlement);
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
        while let Some(unsent) = holder.unsent() {
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

    /// Redis never learns of it: its counters are compared with the ledger.
    pub(super) fn lost(&self, settlement: &Settlement) {
        metrics::counter!(SETTLEMENTS_LOST).increment(1);
        if settlement.actual.is_none() {
            return;
        }
        let lost = |slot, counter: &Counter| {
            let what = Touched::new(settlement.home, slot, counter);
            self.shared.compare.lost(what, settlement.now_ms);
        };
        let money = |counter: &&Counter| counter.is_money();
        let own = Slot::User(settlement.user);
        settlement.counters.iter().filter(money).for_each(|counter| lost(own, counter));
        if let Some(hold) = &settlement.hold {
            let slot = Slot::Provider(hold.provider);
            hold.counters.iter().filter(money).for_each(|counter| lost(slot, counter));
        }
    }

    /// A command to Redis failed. What is wrong with one owner's counters keeps nobody else from asking.
    pub(super) fn failed(&self, error: &StoreError) {
        if !error.is_everybodys() {
            self.shared.degraded.odd(error);
        } else if self.breaker.failed(error, &self.shared.degraded) {
            // What memory knew of money is older than what was spent through Redis since.
            self.shared.memory.forget_bases();
        }
    }

    /// The answer of Redis, or of memory; and whether Redis has certainly not taken anything beside it.
    pub(super) async fn ask(&self, reserve: &Reserve<'_>) -> (Answer, bool) {
        let mut is_certain = true;
        if let Some(redis) = self.usable() {
            match self.admit(redis, reserve).await {
                Ok(answer) => return (answer, true),
                Err(error) => {
                    is_certain = !error.may_have_happened();
                    self.failed(&error);
                }
            }
        }
        if self.redis.is_some() {
            metrics::counter!(LIMITER_FALLBACKS).increment(1);
            self.shared.degraded.touch(reserve.now_ms);
        }
        // Memory has no reason to fail but counters that are forgotten as fast as they are seeded.
        let answer = self.admit(&self.shared.memory, reserve).await;
        (answer.unwrap_or(Answer::Taken(Taken::default())), is_certain)
    }

    async fn admit<S: Store>(&self, store: &S, reserve: &Reserve<'_>) -> Result<Answer, StoreError> {
        if reserve.is_apart() {
            return Box::pin(self.one_by_one(store, reserve)).await;
        }
        self.together(store, reserve).await
    }

    /// Asks the store; seeds what it does not know and asks again.
    pub(super) async fn together<S: Store>(
        &self,
        store: &S,
        reserve: &Reserve<'_>,
    ) -> Result<Answer, StoreError> {
        let answer = store.reserve(reserve).await?;
        if !matches!(answer, Answer::Unseeded(_)) {
            return Ok(answer);
        }
        Box::pin(self.seeded(store, reserve)).await
    }

    /// The second question, boxed: what is boxed with the first one is copied for every request.
    async fn seeded<S: Store>(&self, store: &S, reserve: &Reserve<'_>) -> Result<Answer, StoreError> {
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
                Err(_) => missing.iter().map(|&index| Seed::provisional(index)).collect(),
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
        let now = reserve.now_ms;
        let missing: Vec<(usize, &Counter)> =
            missing.iter().filter_map(|&index| Some((index, reserve.counter(index)?.0))).collect();
        let Some(ledger) = &self.shared.ledger else {
            return missing.iter().map(|(index, counter)| seeding::seed(*index, counter, &[], now)).collect();
        };
        let queries: Vec<_> = missing.iter().map(|(_, counter)| seeding::query(counter, now)).collect();
        let asked = tokio::time::timeout(self.shared.options.ledger_timeout, ledger.spent(&queries)).await;
        let count = missing.len() as u64;
        match asked {
            Ok(Ok(spent)) if spent.sums.len() == missing.len() => {
                metrics::counter!(COUNTERS_SEEDED, "source" => "ledger").increment(count);
                let behind_ms = spent.complete.connected_ms.map(|at| (now - at).max(0));
                if behind_ms.is_some_and(|behind| behind > LEDGER_LATE_MS) {
                    self.seeded_early(reserve, &missing);
                }
                let seed = |((index, counter), sums): (&(usize, &Counter), &Vec<(i64, i64)>)| Seed {
                    behind_ms: behind_ms.map_or(LEDGER_SLACK_MS, |behind| behind.min(LEDGER_SLACK_MS)),
                    ..seeding::seed(*index, counter, sums, now)
                };
                self.came_back(reserve, &missing);
                missing.iter().zip(&spent.sums).map(seed).collect()
            }
            other => {
                let reason = match other {
                    Ok(Err(error)) => error.to_string(),
                    Ok(Ok(_)) => "it answered another number of questions".to_owned(),
                    Err(_) => "no answer in time".to_owned(),
                };
                tracing::debug!(reason, "money counters begin without the ledger and ask it again soon");
                metrics::counter!(COUNTERS_SEEDED, "source" => "provisional").increment(count);
                missing.iter().map(|(index, _)| Seed::provisional(*index)).collect()
            }
        }
    }
}

impl Core {
    /// The ledger did not have everything when these were seeded: they are compared with it once it has.
    fn seeded_early(&self, reserve: &Reserve<'_>, missing: &[(usize, &Counter)]) {
        for (index, counter) in missing {
            if let Some((_, slot)) = reserve.counter(*index) {
                let what = Touched::new(reserve.home, slot, counter);
                self.shared.compare.seeded_early(what, reserve.now_ms);
            }
        }
    }
}

impl Core {
    /// Of those whose limit was absent, requests that began without it are not in the sums yet, and charge nothing here.
    fn came_back(&self, reserve: &Reserve<'_>, missing: &[(usize, &Counter)]) {
        for (index, _) in missing.iter().filter(|(_, counter)| counter.limit.absent_until_ms.is_some()) {
            if let Some((counter, slot)) = reserve.counter(*index) {
                self.shared.compare.came_back(Touched::new(reserve.home, slot, counter));
            }
        }
    }
}

impl Seed {
    fn provisional(index: usize) -> Self {
        Self { index, known: None, behind_ms: LEDGER_SLACK_MS }
    }
}

/// Who of the line has taken it.
fn place(line: Line<'_>, taken: &Taken) -> Option<Place> {
    let index = taken.at?;
    let one = line.candidates.get(index)?;
    let hold = (!one.counters.is_empty()).then(|| Hold {
        provider: one.provider,
        counters: one.counters.clone(),
        estimate: one.estimate,
        fresh: taken.fresh,
    });
    Some(Place { index, hold })
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
