//! Plays a sequence on a proxy and on the reference at once, and says where they part.

use super::super::answers::{self, Used, request};
use super::super::call::{Answer, Call};
use super::super::host::Seen;
use super::super::reply::Reply;
use super::super::walk::{Walk, key, price};
use super::allowance::Allowance;
use super::steps::{Ask, Bound, Fault, House, KEYS, PROVIDERS, Step, Whose};
use super::wellbeing::{REST_MS, Wellbeing};
use crate::clock::now_ms;
use crate::clock::testing::{pass, skip, step as set_clock};
use crate::table::fixtures;
use crate::upstream::memory::Door;
use contract::money::NanoUsd;
use contract::table::{Breaker, CircuitState, Limit, Measure};
use contract::usage::{Dialect, Outcome, UsageRecord};
use contract::window::Window;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

const DIALECT: Dialect = Dialect::Anthropic;
/// How near to an edge nothing is asked: attempts take milliseconds, and which side they fall on is no matter.
const EDGE_MS: i64 = 2_000;
/// What requests ask for at most, and so reserve at two milli-USD each.
const MAX_OUTPUT: i64 = 64;
/// `ECONNREFUSED`.
const REFUSED: i32 = 111;

/// Who asked for nothing for so long is not there.
const ALONE_MS: i64 = 600_000;
/// Between two attempts at one provider.
const RETRY_PAUSE_MS: i64 = 100;

/// Where proxy and reference part, in words.
pub type Divergence = String;

/// A proxy and what it ought to be.
pub struct Play {
    walk: Walk,
    house: House,
    wellbeing: [Wellbeing; PROVIDERS],
    /// When each user last asked for something, Unix milliseconds.
    asked_ms: BTreeMap<i64, i64>,
    /// When limits changed last.
    marked_ms: i64,
    allowance: Allowance,
    records: BTreeSet<contract::ids::RequestId>,
}

macro_rules! agree {
    ($left:expr, $right:expr, $($what:tt)+) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err(format!("{}: proxy {left:?}, reference {right:?}", format!($($what)+)));
        }
    }};
}

impl Play {
    pub async fn new(house: House) -> Self {
        let ids = 1..=i64::try_from(PROVIDERS).unwrap();
        let walk = Walk::new().setting("AUTH_FAILURE_LIMIT", 0).providers(ids, |id, row| {
            row.priority = i32::try_from(id).unwrap();
            row.max_attempts = Some(house.attempts);
            row.disable_session_reuse = true;
            row.breaker = Breaker {
                failure_threshold: house.threshold,
                open: Duration::from_millis(REST_MS.unsigned_abs()),
                half_open_successes: house.trials,
            };
        });
        let walk = walk.rows(|rows| {
            rows.users = vec![fixtures::user(1, "ann"), fixtures::user(2, "bob")];
            rows.keys = KEYS.iter().map(|(id, user)| key(*id, *user)).collect();
            rows.prices = vec![price("m", 1, 2)];
        });
        let walk = walk.start().await;
        Self {
            walk,
            house,
            wellbeing: Default::default(),
            asked_ms: BTreeMap::new(),
            marked_ms: 0,
            allowance: Allowance::default(),
            records: BTreeSet::new(),
        }
    }

    /// One step, and whether both agree after it.
    pub async fn step(&mut self, step: &Step) -> Result<(), Divergence> {
        self.leave_edges().await;
        match step {
            Step::Ask(ask) => self.ask(ask).await?,
            Step::Crowd { key, size, used } => self.crowd(*key, *size, *used).await?,
            Step::Limits(whose, bounds) => {
                self.limit(*whose, bounds);
                self.walk.publish();
            }
            Step::Pass(seconds) => skip(Duration::from_secs(u64::from(*seconds))).await,
            Step::Clock(seconds) => self.clock(i64::from(*seconds) * 1000),
            Step::Restart => {
                self.walk.restart().await;
                self.forget();
            }
            Step::Kill(waiting) => self.kill(*waiting).await?,
        }
        let left = self.fresh().await?;
        agree!(left.len(), 0, "records that nobody made");
        self.compare()
    }

    /// Nothing is asked around the moments at which a limit or a provider changes by itself.
    async fn leave_edges(&self) {
        let near = || {
            let now = now_ms();
            let changes = self.wellbeing.iter().flat_map(Wellbeing::edges);
            let changes = changes.chain(self.asked_ms.values().map(|at_ms| at_ms + ALONE_MS));
            let ends_in_another = self.allowance.rolls() && now.rem_euclid(60_000) > 50_000;
            ends_in_another || changes.chain(self.allowance.edges()).any(|edge| (edge - now).abs() <= EDGE_MS)
        };
        while near() {
            pass(Duration::from_secs(1)).await;
        }
    }

    /// A clock that is set back over an edge would make what is past come again; which day it is stays the same.
    fn clock(&self, by_ms: i64) {
        let day = |at_ms: i64| at_ms.div_euclid(86_400_000);
        if day(now_ms()) == day(now_ms() + by_ms) && (by_ms > 0 || self.allowance.edges().next().is_none()) {
            set_clock(by_ms);
        }
    }

    /// Of each kind one limit.
    fn limit(&mut self, whose: Whose, bounds: &[Bound]) {
        // A limit that comes back is told from one that was there by the wall clock: set back in between, it goes on with
        // what it counted before.
        let behind_ms = 1 + self.marked_ms - now_ms();
        if behind_ms > 0 {
            set_clock(behind_ms);
        }
        self.marked_ms = now_ms();
        let mut kinds = BTreeSet::new();
        let bounds: Vec<Bound> = bounds.iter().copied().filter(|bound| kinds.insert(kind(*bound))).collect();
        let limits = bounds.iter().copied().map(limit).collect();
        let rows = &mut self.walk.rows;
        match whose {
            Whose::Key(id) => rows.keys.iter_mut().find(|row| row.id.0 == id).unwrap().limits = limits,
            Whose::User(id) => rows.users.iter_mut().find(|row| row.id.0 == id).unwrap().limits = limits,
        }
        self.allowance.bounds.insert(whose, bounds);
    }

    fn forget(&mut self) {
        self.allowance.forget();
        // What the control plane was told of health is not pushed back here.
        self.wellbeing = Default::default();
        self.asked_ms.clear();
    }

    /// Who asks, unless nobody else has asked for ten minutes.
    fn witness(&self, key: usize, now_ms: i64) -> Option<i64> {
        let user = KEYS[key].1;
        let is_there = |(other, at_ms): (&i64, &i64)| *other != user && now_ms - at_ms < ALONE_MS;
        self.asked_ms.iter().any(is_there).then_some(user)
    }

    /// Records that were not seen before, each once.
    async fn fresh(&mut self) -> Result<Vec<UsageRecord>, Divergence> {
        let mut fresh = Vec::new();
        for record in self.walk.records().await {
            if self.records.insert(record.id) {
                fresh.push(record);
            } else {
                return Err(format!("a record came twice: {record:?}"));
            }
        }
        Ok(fresh)
    }

    async fn ask(&mut self, ask: &Ask) -> Result<(), Divergence> {
        let conversation = format!("s{}", ask.session);
        let at_ms = now_ms();
        let room = self.allowance.room(ask.key, std::slice::from_ref(&conversation), 1, at_ms);
        for (index, fault) in ask.faults.into_iter().enumerate() {
            let used = Used { input: ask.used.0, output: ask.used.1 };
            let door = if fault == Fault::Closed { Door::Refuses(REFUSED) } else { Door::Open };
            self.walk.host(id(index)).door(door).by(move |seen| reply(fault, used, seen));
        }
        let call = call(ask.key, &conversation, ask.stream).patience(Duration::from_secs(5));
        let answer = self.walk.send(call).await;
        let asked: Vec<usize> = (0..PROVIDERS).map(|index| self.walk.host(id(index)).count()).collect();
        let mut records = self.fresh().await?;
        let refused = is_limited(&answer);
        agree!(i64::from(!refused), room.most, "admitted ({}, {})", answer.status, answer.text());
        agree!(records.len(), usize::from(!refused), "records of a request");
        let Some(record) = records.pop() else {
            agree!(asked, vec![0; PROVIDERS], "providers asked for a refused request");
            return Ok(());
        };
        self.asked_ms.insert(KEYS[ask.key].1, at_ms);
        let expected = self.expect(ask, at_ms);
        let asked: Vec<usize> = asked
            .into_iter()
            .zip(ask.faults)
            // Connections that rested may take requests when nobody listens any more.
            .map(|(asked, fault)| if fault == Fault::Closed { 0 } else { asked })
            .collect();
        agree!(asked, expected.asked, "requests at each provider");
        agree!(record.outcome, expected.outcome, "outcome");
        let statuses = (answer.status, record.status);
        agree!(statuses, expected.statuses, "status of answer and record");
        let cost = NanoUsd::from_usd(record.cost.ok_or("a record without a cost")?).0;
        if record.outcome == Outcome::Completed {
            let (input, output) = ask.used;
            agree!(cost, i64::try_from(input + 2 * output).unwrap() * 1_000_000, "cost");
        }
        self.allowance.admitted(ask.key, &conversation, at_ms..now_ms(), cost);
        Ok(())
    }

    /// What ought to come of a request, and what is learnt by it.
    fn expect(&mut self, ask: &Ask, mut now_ms: i64) -> Expected {
        let mut asked = vec![0; PROVIDERS];
        let house = self.house;
        // In order; where all rest, the one that wakes first, once.
        let mut order: Vec<(usize, bool)> = Vec::new();
        let mut awake: Vec<usize> =
            (0..PROVIDERS).filter(|at| self.wellbeing[*at].is_awake(now_ms)).collect();
        awake.sort_by_key(|at| self.wellbeing[*at].is_behind(now_ms));
        order.extend(awake.iter().map(|at| (*at, false)));
        let resting = (0..PROVIDERS).filter(|at| !awake.contains(at));
        order.extend(resting.min_by_key(|at| (self.wellbeing[*at].wakes_ms(), *at)).map(|at| (at, true)));
        // An account that may not use a model has none, as far as callers see.
        let lacks = |at: usize| matches!(ask.faults[at], Fault::Unknown | Fault::Forbidden);
        let only_unknown = order.iter().all(|(at, _)| lacks(*at));
        for (at, resting) in order {
            let fault = match ask.faults[at] {
                // A document that breaks off anywhere is seen to before anything of it is passed on.
                Fault::CutLate if !ask.stream => Fault::CutEarly,
                other => other,
            };
            let fails = matches!(fault, Fault::Broken | Fault::HangsUp | Fault::CutEarly | Fault::Closed);
            let tries = if fails && !resting { house.attempts } else { 1 };
            asked[at] = if fault == Fault::Closed { 0 } else { usize::try_from(tries).unwrap() };
            now_ms += i64::from(tries - 1) * RETRY_PAUSE_MS;
            let account = self.witness(ask.key, now_ms);
            self.wellbeing[at].learns(fault, resting, house, (account, now_ms));
            let (outcome, statuses) = match fault {
                Fault::None => (Outcome::Completed, (200, 200)),
                Fault::Refused => (Outcome::Rejected, (400, 400)),
                Fault::CutLate => (Outcome::Cut, (200, 502)),
                Fault::Silent => (Outcome::Aborted, (0, 499)),
                _ => continue,
            };
            return Expected { asked, outcome, statuses };
        }
        let statuses = if only_unknown { (404, 404) } else { (503, 503) };
        Expected { asked, outcome: Outcome::Exhausted, statuses }
    }

    async fn crowd(&mut self, key: usize, size: u8, used: (u64, u64)) -> Result<(), Divergence> {
        let now = now_ms();
        if !self.wellbeing[0].is_well() {
            return Ok(());
        }
        let used = Used { input: used.0, output: used.1 };
        let slow = move |seen: &Seen| reply(Fault::None, used, seen).after(Duration::from_secs(1));
        self.walk.host(1).door(Door::Open).by(slow);
        let conversations: Vec<String> = (0..size).map(|number| format!("c{number}")).collect();
        let room = self.allowance.room(key, &conversations, 2 * MAX_OUTPUT * 1_000_000, now);
        let calls: Vec<_> = conversations.iter().map(|name| self.walk.begin(call(key, name, true))).collect();
        let mut admitted = Vec::new();
        for (call, name) in calls.into_iter().zip(&conversations) {
            let answer = call.await.unwrap();
            match is_limited(&answer) {
                true => {}
                false if answer.status == 200 => admitted.push(name.clone()),
                false => return Err(format!("one of a crowd got {} {}", answer.status, answer.text())),
            }
        }
        let count = i64::try_from(admitted.len()).unwrap();
        if count > room.most || room.exact && count < room.most || room.most > 0 && count == 0 {
            return Err(format!("of a crowd of {size} were admitted {count}, the reference says {room:?}"));
        }
        self.walk.host(1).count();
        if !admitted.is_empty() {
            self.asked_ms.insert(KEYS[key].1, now);
        }
        let records = self.fresh().await?;
        agree!(records.len(), admitted.len(), "records of a crowd");
        for (record, name) in records.iter().zip(admitted) {
            let cost = NanoUsd::from_usd(record.cost.ok_or("a record without a cost")?).0;
            self.allowance.admitted(key, &name, now..now_ms(), cost);
        }
        Ok(())
    }

    async fn kill(&mut self, waiting: u8) -> Result<(), Divergence> {
        for index in 0..PROVIDERS {
            self.walk.host(id(index)).door(Door::Open).always(Reply::never());
        }
        for number in 0..waiting {
            drop(self.walk.begin(call(0, &format!("k{number}"), true)));
        }
        self.walk.quiet().await;
        self.walk.kill().await;
        let sent: usize = (0..PROVIDERS).map(|index| self.walk.host(id(index)).count()).sum();
        self.forget();
        let records = self.fresh().await?;
        agree!(records.len(), sent, "records of {waiting} requests that were killed");
        for record in records {
            let cost = record.cost.map_or(0, |cost| NanoUsd::from_usd(cost).0);
            self.allowance.admitted(0, "killed", record.started_at_ms..now_ms(), cost);
        }
        self.allowance.forget();
        Ok(())
    }

    /// What can be seen without a request.
    fn compare(&self) -> Result<(), Divergence> {
        let now = now_ms();
        for (index, expected) in self.wellbeing.iter().enumerate() {
            let health = self.walk.health(id(index));
            agree!(health.failures, expected.failures, "failures of provider {}", id(index));
            let rests =
                health.state == CircuitState::Open && health.until_ms.is_some_and(|until| until > now);
            agree!(rests, !expected.is_awake(now), "whether provider {} rests", id(index));
        }
        Ok(())
    }

    /// All money that the proxy counts is what the ledger holds, and nothing is reserved.
    pub async fn end(mut self) -> Result<(), Divergence> {
        let everybody = [Whose::Key(1), Whose::Key(2), Whose::Key(3), Whose::User(1), Whose::User(2)];
        everybody.into_iter().for_each(|whose| self.limit(whose, &[]));
        for whose in everybody {
            let spent = self.allowance.spent(whose, Bound::Total(0), now_ms());
            if spent == 0 {
                continue;
            }
            // So small a limit tells what is counted.
            self.limit(whose, &[Bound::Total(1)]);
            self.walk.publish();
            let own = |(key, user): &(i64, i64)| whose == Whose::Key(*key) || whose == Whose::User(*user);
            let index = KEYS.iter().position(own).unwrap();
            let answer = self.walk.send(call(index, "end", false).patience(Duration::from_secs(5))).await;
            self.limit(whose, &[]);
            // A number in JSON, a text where it would lose digits.
            let said = answer.json()["error"]["current"].to_string();
            let counted = said.trim_matches('"').parse().map_or(0, |usd| NanoUsd::from_usd(usd).0);
            agree!(counted, spent, "counted of {whose:?} ({})", answer.text());
        }
        Ok(())
    }
}

struct Expected {
    asked: Vec<usize>,
    outcome: Outcome,
    statuses: (u16, u16),
}

fn id(index: usize) -> i64 {
    i64::try_from(index).unwrap() + 1
}

fn kind(bound: Bound) -> u8 {
    match bound {
        Bound::Total(_) => 0,
        Bound::Day(_) => 1,
        Bound::Minute(_) => 2,
        Bound::Sessions(_) => 3,
        Bound::FiveHours(_) => 4,
    }
}

fn limit(bound: Bound) -> Limit {
    let (measure, window, amount) = match bound {
        Bound::Total(milli) => (Measure::Usd, Window::Total, milli * 1_000_000),
        Bound::Day(milli) => (Measure::Usd, Window::Day { reset_minute: 0 }, milli * 1_000_000),
        Bound::FiveHours(milli) => (Measure::Usd, Window::FiveHours, milli * 1_000_000),
        Bound::Minute(most) => (Measure::Requests, Window::Minute, most),
        Bound::Sessions(most) => (Measure::Sessions, Window::Concurrent, most),
    };
    Limit { measure, window, amount, since_ms: None, absent_until_ms: None }
}

fn call(key: usize, conversation: &str, stream: bool) -> Call {
    let body = request(DIALECT, "m", stream).to_string();
    Call::post(answers::path(DIALECT), body).key(KEYS[key].0).header("x-session-id", conversation)
}

/// Whether a limit refused it.
fn is_limited(answer: &Answer) -> bool {
    matches!(answer.status, 402 | 429) && answer.code() == "rate_limit_exceeded"
}

fn reply(fault: Fault, used: Used, seen: &Seen) -> Reply {
    let stream = seen.json()["stream"] == true;
    let opening = || Reply::events().all(answers::opening(DIALECT, used));
    match fault {
        Fault::None if stream => answers::stream(DIALECT, used),
        Fault::None => answers::document(DIALECT, used),
        Fault::Broken => Reply::error(500, "api_error", "down"),
        Fault::HangsUp | Fault::Closed => Reply::raw("HTTP/1.1 2").cut(),
        Fault::CutEarly | Fault::CutLate if !stream => {
            Reply::pieces(200, "application/json").piece("{\"id\":").cut()
        }
        Fault::CutEarly => opening().cut(),
        Fault::CutLate => opening().all(answers::content(DIALECT, "some")).cut(),
        Fault::Limited(seconds) => {
            Reply::error(429, "rate_limit_error", "slow").header("retry-after", &seconds.to_string())
        }
        Fault::Refused => Reply::error(400, "invalid_request_error", "no"),
        Fault::Silent => Reply::never(),
        Fault::Unknown => Reply::error(404, "not_found_error", "model: m"),
        Fault::Forbidden => Reply::error(403, "permission_error", "no access to model m"),
        Fault::Unauthorised => Reply::error(401, "authentication_error", "invalid x-api-key"),
        Fault::Empty => Reply::error(402, "billing_error", "Payment required"),
    }
}

/// Plays a whole sequence.
pub async fn play(house: House, steps: Rc<[Step]>) -> Result<(), Divergence> {
    let mut play = Play::new(house).await;
    for (number, step) in steps.iter().enumerate() {
        play.step(step).await.map_err(|what| format!("at step {number}, {step:?}: {what}"))?;
    }
    play.end().await.map_err(|what| format!("at the end: {what}"))
}
