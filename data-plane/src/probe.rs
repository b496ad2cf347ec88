//! Asks providers by the gateway's own requests whether their credential is accepted: before refusals of callers count,
//! and while one is refused, until it is accepted again; and whether they are broken, before the failures of one account
//! keep others away. No caller's header, path or body is part of it.
//!
//! One per process, on a traffic thread. Above `health`, `store` and `upstream`; knows nothing of the walk. What it
//! asks costs a few tokens at the provider; no user or key caused it, so its record is the owner's alone.

mod cost;
mod request;
#[cfg(test)]
mod tests;

use crate::clock::{Instant, now_ms};
use crate::config::Config;
use crate::health::fault::{Case, Place, Whose, judge};
use crate::health::{Book, Finding, Probe};
use crate::spool::Spool;
use crate::store::Limiter;
use crate::table::{Snapshot, Table, Upstream};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Client, FailureClass};
use contract::ids::ProviderId;
use contract::table::DEFAULT_GROUP;
use contract::usage::Dialect;
use cost::Answered;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use llm::usage::{FakeSuccess, fake_success};
use request::Question;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Of an answer, what is read.
const MAX_ANSWER: usize = 64 * 1024;
/// So many are asked at once.
const AT_ONCE: usize = 8;
/// How often it is looked who is due, at most.
const TICK: Duration = Duration::from_secs(1);

/// See the module.
pub struct Prober {
    config: Arc<Config>,
    table: Table,
    health: Book,
    spool: Spool,
    metrics: Arc<Metrics>,
    limiter: Limiter,
    client: Client,
}

/// When each provider may be asked next.
type Plans = HashMap<ProviderId, Plan>;

struct Plan {
    next: Instant,
    pause: Duration,
}

/// What the prober shares with others.
#[derive(Clone)]
pub struct Parts {
    /// Settings.
    pub config: Arc<Config>,
    /// The routing table.
    pub table: Table,
    /// Who is suspected, and who hears of it.
    pub health: Book,
    /// Where records go.
    pub spool: Spool,
    /// Numbers.
    pub metrics: Arc<Metrics>,
}

impl Prober {
    /// For the thread that `limiter` and `client` belong to.
    pub fn new(parts: Parts, limiter: Limiter, client: Client) -> Self {
        let Parts { config, table, health, spool, metrics } = parts;
        Self { config, table, health, spool, metrics, limiter, client }
    }

    /// Goes on for ever.
    pub async fn run(self) {
        let tick = TICK.min(self.config.health_probe_first);
        let mut plans = Plans::new();
        // Who waits for a question or for its answer; at most all providers, and none of them twice.
        let mut busy = BTreeSet::new();
        let mut waiting = VecDeque::new();
        // One that says nothing must not hold up the others, those of later turns neither.
        let mut asked = FuturesUnordered::new();
        loop {
            let mut suspects = BTreeSet::new();
            tokio::select! {
                taken = self.health.suspected() => suspects = taken,
                Some(id) = asked.next() => { busy.remove(&id); }
                () = sleep(tick) => {}
            }
            // What comes of the question under way holds for the suspicions that were raised meanwhile.
            suspects.retain(|id| !busy.contains(id) && self.may_confirm(&mut plans, *id));
            waiting.extend(suspects.iter().map(|id| (*id, None)));
            busy.append(&mut suspects);
            for (id, pause) in self.may_ask_again(&mut plans, &busy) {
                waiting.push_back((id, Some(pause)));
                busy.insert(id);
            }
            let free = AT_ONCE.saturating_sub(asked.len()).min(waiting.len());
            asked.extend(waiting.drain(..free).map(|(id, pause)| self.take_turn(id, pause)));
        }
    }

    /// Callers were refused. However often they are, the provider is asked once in a while only.
    fn may_confirm(&self, plans: &mut Plans, id: ProviderId) -> bool {
        let now = Instant::now();
        let first = self.config.health_probe_first;
        plans.retain(|_, plan| now < plan.next + self.config.health_probe_max);
        if plans.get(&id).is_none_or(|plan| plan.next <= now) {
            plans.insert(id, Plan { next: now + first, pause: first });
            return true;
        }
        if let Some(up) = self.table.load().upstream(id) {
            // Not now: the next refusal or failure raises the question again.
            let pass = self.health.pass(id);
            self.health.probed(up, Finding { probe: Probe::Unclear, pass, is_last: false }, now_ms());
        }
        false
    }

    /// Those that are refused are asked at growing pauses.
    fn may_ask_again(&self, plans: &mut Plans, busy: &BTreeSet<ProviderId>) -> Vec<(ProviderId, Duration)> {
        let mut due = Vec::new();
        for id in self.health.refused().difference(busy).copied() {
            let (first, most) = (self.config.health_probe_first, self.config.health_probe_max);
            let now = Instant::now();
            let plan = plans.entry(id).or_insert_with(|| Plan { next: now + first, pause: first });
            if now < plan.next {
                continue;
            }
            let pause = plan.pause;
            plan.pause = pause.saturating_mul(2).min(most);
            plan.next = now + plan.pause;
            due.push((id, pause));
        }
        due
    }

    /// Looks at one provider. One that is asked again is asked by one proxy of the fleet in each `pause`.
    async fn take_turn(&self, id: ProviderId, pause: Option<Duration>) -> ProviderId {
        let is_mine = match pause {
            Some(pause) => self.limiter.elected(&format!("probe:{id}"), pause).await,
            None => true,
        };
        if is_mine {
            self.look(id).await;
        }
        id
    }

    async fn look(&self, id: ProviderId) {
        let table = self.table.load_full();
        let Some(up) = table.upstream(id).filter(|up| up.row.enabled) else { return };
        let pass = self.health.pass(id);
        let asked = timeout(self.config.health_probe_timeout, self.ask(&table, up));
        let probe = asked.await.unwrap_or(Probe::Failed);
        let is_last = is_last(&table, up, &self.health.refused());
        self.metrics.probed(probe as usize);
        match probe {
            Probe::Refused => tracing::warn!(provider_id = %id, is_last, "a provider refuses its credential"),
            Probe::Accepted | Probe::Unclear | Probe::Failed => {
                tracing::info!(provider_id = %id, ?probe, "a provider was probed")
            }
        }
        self.health.probed(up, Finding { probe, pass, is_last }, now_ms());
    }

    /// The cheapest question first; what it cannot answer, the next one does.
    async fn ask(&self, table: &Snapshot, up: &Upstream) -> Probe {
        for question in request::questions(up) {
            match self.put(table, up, &question).await {
                // The next model may be there.
                None => {}
                // Where tokens are not counted, the model may be asked all the same.
                Some(Probe::Accepted | Probe::Failed) if !question.is_metered() => {}
                Some(probe) => return probe,
            }
        }
        Probe::Unclear
    }

    /// `None`: the model is missing, which says nothing.
    async fn put(&self, table: &Snapshot, up: &Upstream, question: &Question) -> Option<Probe> {
        let (began, started_at_ms) = (Instant::now(), now_ms());
        let Ok(request) = question.for_provider(up) else { return Some(Probe::Unclear) };
        let patience = self.config.health_probe_timeout;
        let response = match self.client.send(up, request, patience).await {
            Ok(response) => response,
            Err(failure) if matches!(failure.class, FailureClass::Local(_)) => return Some(Probe::Unclear),
            Err(_) => return Some(Probe::Failed),
        };
        let (head, body) = response.into_parts();
        let text = match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => bytes::Bytes::new(),
        };
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let answered = Answered {
            question,
            up,
            status: head.status.as_u16(),
            streamed: content_type.is_some_and(|kind| kind.starts_with("text/event-stream")),
            text: &text,
            time_ms: (started_at_ms, u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX)),
        };
        self.pay(table, &answered);
        judged(question, answered.status, &text)
    }

    /// The record of what it cost, if it cost anything.
    fn pay(&self, table: &Snapshot, answered: &Answered<'_>) {
        let Some(record) = cost::record(table, &self.config.proxy_id, answered) else { return };
        if let Err(error) = self.spool.append(&record, None) {
            self.metrics.record_lost();
            tracing::error!(request_id = %record.id, %error, "a probe's record could not be written to the spool");
        }
    }
}

/// What an answer says of the credential; `None`: it says only that there is no such model.
fn judged(question: &Question, status: u16, text: &[u8]) -> Option<Probe> {
    let fake = fake_success(None, text);
    let error = match &fake {
        Some(FakeSuccess::Error(error)) => Some(error),
        _ => None,
    };
    let is_good = (200..300).contains(&status);
    if is_good && error.is_none() {
        return Some(if text.is_empty() { Probe::Failed } else { Probe::Accepted });
    }
    let place = if is_good { Place::Document } else { Place::Status };
    let text = String::from_utf8_lossy(text);
    // As metered, whatever was asked: the question is the gateway's, so a refusal is not the caller's doing.
    let kind = llm::EndpointKind::Messages;
    let case =
        Case { kind, repeatable: false, place, status, error, text: &text, retry_after: None, request: &[] };
    let judgement = judge(&case);
    Some(match judgement.whose {
        Whose::Credential => Probe::Refused,
        // It was read, so whoever sent it was let in. A path that is not there may stand before the door, and so may a
        // model that is not: only one that everybody knows is missing behind it.
        Whose::Caller => Probe::Accepted,
        Whose::Model if judgement.meant == 404 && question.is_common() => Probe::Accepted,
        Whose::Model if !question.is_common() => return None,
        Whose::Provider => Probe::Failed,
        Whose::Model | Whose::RateLimit | Whose::Ours => Probe::Unclear,
    })
}

/// Whether in some pool of its own (an owner's providers of one protocol and one group) no other can be used.
fn is_last(table: &Snapshot, up: &Upstream, refused: &BTreeSet<ProviderId>) -> bool {
    let default = [Arc::from(DEFAULT_GROUP)];
    let groups = if up.row.groups.is_empty() { &default[..] } else { &up.row.groups };
    let alone = |pool: &[Arc<Upstream>], group: &Arc<str>| {
        let others = pool.iter().filter(|other| other.row.id != up.row.id && other.row.enabled);
        let mut usable = others.filter(|other| !refused.contains(&other.row.id));
        !usable.any(|other| other.serves_group(std::slice::from_ref(group)))
    };
    Dialect::ALL.iter().any(|dialect| {
        let pool = table.upstreams(up.row.owner_id, *dialect);
        pool.iter().any(|one| one.row.id == up.row.id) && groups.iter().any(|group| alone(pool, group))
    })
}
