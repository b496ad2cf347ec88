//! One key's slice and what was done with it. Pure but for the random ids; time is an argument.

use crate::clock::now_ms;
use crate::limit::{Counter, Counters};
use crate::store::{Ask, Charge, Home, Slot};
use contract::ids::{ProviderId, RequestId, UserId};
use contract::money::NanoUsd;
use contract::table::Measure;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How long a slice holds: some ticks, so that a late one does not matter.
const SLICE_MS: i64 = 400;
/// Requests within a tick that make a key hot.
const HOT: i64 = 4;
/// A slice is sized for so many ticks. What is left of it is given back, so more costs room near a limit, and less
/// sends requests to Redis whose number grows.
const TICKS: i64 = 3;
/// A slice is at most this part of what is left of a limit.
const SHARE: i64 = 16;
/// A share of fewer requests, or of money for fewer, is not lent: of a small limit, and near any limit, not one
/// request may be refused because another worker holds it unused.
const LEAST: i64 = 32;
/// Requests of one slice; what a key does more asks Redis.
const MAX_REQUESTS: i64 = 100_000;
/// How long a session that Redis has counted, and its binding, are taken as known.
const FRESH_MS: i64 = 2_000;
/// Sessions of one holder; requests of others ask Redis.
const MAX_SESSIONS: usize = 512;

/// Requests that end within this are charged together, at the time of the first.
const CHARGE_MS: i64 = 10_000;
/// Charges that wait for Redis; beyond, all that ends is charged together.
const MAX_UNSENT: usize = 64;

/// What Redis holds reserved, after an answer was lost.
const UNKNOWN: i64 = -1;

fn fresh_id(now_ms: i64) -> RequestId {
    RequestId::new(now_ms, rand::random())
}

fn counts(counters: &[Counter], measure: Measure) -> bool {
    counters.iter().any(|counter| counter.limit.measure == measure)
}

/// What Redis is asked for.
pub(in crate::store) struct Wish<'a> {
    pub(in crate::store) home: Home,
    pub(in crate::store) user: UserId,
    pub(in crate::store) now_ms: i64,
    pub(in crate::store) counters: &'a [Counter],
    pub(in crate::store) holder: RequestId,
    pub(in crate::store) keep: i64,
    pub(in crate::store) requests: i64,
    pub(in crate::store) nano: i64,
    pub(in crate::store) length_ms: i64,
    pub(in crate::store) share: i64,
    /// Requests and nano-USD that such a share has to be at least.
    pub(in crate::store) least: (i64, i64),
    pub(in crate::store) last: Slice,
    pub(in crate::store) sessions: &'a [(Arc<str>, Option<ProviderId>)],
}

/// What Redis lent.
#[derive(Clone, Copy)]
pub(in crate::store) struct Lent {
    pub(in crate::store) requests: i64,
    pub(in crate::store) nano: i64,
    /// Where Redis counts the requests; they are given back there.
    pub(in crate::store) bucket: i64,
}

/// `used` of `requests` that were lent, and `nano` that is left.
#[derive(Clone, Copy)]
pub(in crate::store) struct Slice {
    pub(in crate::store) bucket: i64,
    requests: i64,
    used: i64,
    nano: i64,
    until_ms: i64,
}

impl Slice {
    const NONE: Self = Self { bucket: 0, requests: 0, used: 0, nano: 0, until_ms: 0 };

    pub(in crate::store) fn unused(&self) -> i64 {
        (self.requests - self.used).max(0)
    }
}

struct Session {
    id: Arc<str>,
    bound: Option<ProviderId>,
    confirmed_ms: i64,
    /// Served since the last tick.
    touched: bool,
    /// Requests in flight, for which it is renewed.
    open: u32,
    /// When Redis last heard of it.
    written_ms: i64,
}

/// A charge that Redis has not confirmed; sent again under the same id.
#[derive(Clone, Copy)]
pub(in crate::store) struct Unsent {
    id: RequestId,
    nano: i64,
    /// When the first of its requests ended, and the last.
    ended_ms: i64,
    last_ms: i64,
    told_memory: bool,
}

struct State {
    slice: Slice,
    /// Requests, and the sum of their estimates, since the last tick.
    asked: i64,
    estimates: i64,
    /// Requests that were admitted from slices and have not ended.
    open: u32,
    /// Their estimates.
    in_flight: i64,
    /// Cost of those that have ended since the last charge, and when the first of them did, and the last.
    spent: i64,
    spent_ms: i64,
    spent_last_ms: i64,
    /// The oldest first; more than one only while Redis is away.
    unsent: VecDeque<Unsent>,
    sessions: HashMap<u64, Session>,
    /// A session is, or a binding has to be written.
    touched: bool,
    renewing: bool,
    /// What Redis holds reserved.
    reserved: i64,
    /// When Redis was asked last.
    renewed_ms: i64,
    /// How often what requests in flight hold is renewed.
    hold_ms: i64,
}

/// A request that was admitted from a slice, at its end.
pub(super) struct Ended {
    pub(super) estimate: i64,
    pub(super) actual: i64,
    /// Unix milliseconds.
    pub(super) at_ms: i64,
    pub(super) session: Option<u64>,
}

/// What a tick has to do with a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Renew,
    Keep,
    Drop,
}

/// What one worker holds of one key, for one set of counters.
pub(in crate::store) struct Holder {
    home: Home,
    user: UserId,
    id: RequestId,
    counters: Counters,
    /// Those of them that count money.
    money: Counters,
    state: RefCell<State>,
}

/// What [`Holder::plan`] decided.
pub(in crate::store) struct Plan {
    requests: i64,
    /// What one of them may cost.
    estimate: i64,
    nano: i64,
    keep: i64,
    closed: Slice,
    sessions: Vec<(Arc<str>, Option<ProviderId>)>,
    now_ms: i64,
}

impl State {
    fn has_work(&self) -> bool {
        self.asked >= HOT
            || self.spent > 0
            || !self.unsent.is_empty()
            || self.touched
            || self.reserved != self.in_flight
            || self.slice.unused() > 0
    }

    /// A request ended and cost something. Charged later, it is charged at its time, or a few seconds before.
    fn spend(&mut self, nano: i64, at_ms: i64) {
        if self.spent > 0 && at_ms - self.spent_ms >= CHARGE_MS && self.unsent.len() < MAX_UNSENT {
            self.close();
        }
        if self.spent == 0 {
            (self.spent_ms, self.spent_last_ms) = (at_ms, at_ms);
        }
        self.spent_last_ms = self.spent_last_ms.max(at_ms);
        self.spent = self.spent.saturating_add(nano);
    }

    /// What was spent so far becomes a charge of its own.
    fn close(&mut self) {
        let (nano, ended_ms) = (std::mem::take(&mut self.spent), self.spent_ms);
        let (id, last_ms) = (fresh_id(ended_ms), self.spent_last_ms);
        self.unsent.push_back(Unsent { id, nano, ended_ms, last_ms, told_memory: false });
    }
}

impl Holder {
    pub(super) fn new(ask: &Ask<'_>) -> Self {
        Self {
            home: ask.home,
            user: ask.user,
            id: fresh_id(ask.now_ms),
            money: ask.counters.iter().filter(|counter| counter.is_money()).cloned().collect(),
            counters: ask.counters.clone(),
            state: RefCell::new(State {
                slice: Slice::NONE,
                asked: 0,
                estimates: 0,
                open: 0,
                in_flight: 0,
                spent: 0,
                spent_ms: 0,
                spent_last_ms: 0,
                unsent: VecDeque::new(),
                sessions: HashMap::new(),
                touched: false,
                renewing: false,
                reserved: 0,
                renewed_ms: ask.now_ms,
                hold_ms: i64::MAX,
            }),
        }
    }

    pub(super) fn take(
        &self,
        ask: &Ask<'_>,
        estimate: i64,
        session: Option<u64>,
    ) -> Option<Option<ProviderId>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.asked += 1;
        state.estimates = state.estimates.saturating_add(estimate);
        let slice = &mut state.slice;
        if ask.now_ms >= slice.until_ms || slice.used >= slice.requests {
            return None;
        }
        if self.counts_money() && slice.nano < estimate.max(1) {
            return None;
        }
        let bound = match session {
            // Without a session a request is one of its own, and Redis has to count it.
            None if counts(&self.counters, Measure::Sessions) => return None,
            None => None,
            Some(session) => {
                let known = state.sessions.get_mut(&session)?;
                if ask.now_ms - known.confirmed_ms >= FRESH_MS {
                    return None;
                }
                known.touched = true;
                known.open += 1;
                state.touched = true;
                known.bound
            }
        };
        slice.used += 1;
        slice.nano -= estimate;
        state.open += 1;
        state.in_flight += estimate;
        Some(bound)
    }

    pub(super) fn confirm(&self, at: u64, session: &str, bound: Option<ProviderId>, now_ms: i64) {
        let sessions = &mut self.state.borrow_mut().sessions;
        if let Some(known) = sessions.get_mut(&at) {
            (known.bound, known.confirmed_ms, known.written_ms) = (bound, now_ms, now_ms);
            return;
        }
        if sessions.len() >= MAX_SESSIONS {
            sessions
                .retain(|_, known| known.touched || known.open > 0 || now_ms - known.confirmed_ms < FRESH_MS);
        }
        if sessions.len() < MAX_SESSIONS {
            let id = Arc::from(session);
            let (confirmed_ms, written_ms) = (now_ms, now_ms);
            let new = Session { id, bound, confirmed_ms, touched: false, open: 0, written_ms };
            sessions.insert(at, new);
        }
    }

    /// A request is refused for another reason: what it took of the slice is there again.
    pub(super) fn undo(&self, ended: &Ended) {
        self.end(ended);
        let mut state = self.state.borrow_mut();
        state.slice.used = (state.slice.used - 1).max(0);
    }

    pub(super) fn end(&self, ended: &Ended) {
        let estimate = ended.estimate;
        let actual = if self.counts_money() { ended.actual } else { 0 };
        let mut state = self.state.borrow_mut();
        state.open = state.open.saturating_sub(1);
        if let Some(known) = ended.session.and_then(|session| state.sessions.get_mut(&session)) {
            known.open = known.open.saturating_sub(1);
        }
        state.in_flight -= estimate;
        if actual > 0 {
            state.spend(actual, ended.at_ms);
        }
        state.slice.nano = state.slice.nano.saturating_add(estimate - actual);
    }

    /// Whether the session is known here, so that the next tick writes its binding.
    pub(super) fn rebind(&self, at: u64, provider: ProviderId) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(known) = state.sessions.get_mut(&at) else { return false };
        (known.bound, known.touched) = (Some(provider), true);
        state.touched = true;
        true
    }

    /// What has to be charged: what could not be sent before, or what was spent since.
    pub(in crate::store) fn unsent(&self) -> Option<Unsent> {
        let mut state = self.state.borrow_mut();
        if state.unsent.is_empty() && state.spent > 0 {
            state.close();
        }
        state.unsent.front().copied()
    }

    /// The charge for either store.
    pub(in crate::store) fn charge<'a>(&self, unsent: &Unsent, money: &'a Counters) -> Charge<'a> {
        Charge {
            home: self.home,
            slot: Slot::User(self.user),
            request: unsent.id,
            now_ms: unsent.ended_ms,
            last_ms: unsent.last_ms,
            age_ms: (now_ms() - unsent.ended_ms).max(0),
            counters: money,
            actual: NanoUsd(unsent.nano),
            session: None,
            bind: None,
            provider: None,
        }
    }

    /// The counters that are charged.
    pub(in crate::store) fn money(&self) -> Counters {
        self.money.clone()
    }

    /// Redis has it.
    pub(in crate::store) fn sent(&self) {
        self.state.borrow_mut().unsent.pop_front();
    }

    /// Memory has to have it too while it stands in for Redis; whether it has not.
    pub(in crate::store) fn tell_memory(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.unsent.front_mut().is_some_and(|unsent| !std::mem::replace(&mut unsent.told_memory, true))
    }

    /// Closes the slice and says what to ask for next; nothing if `last`.
    pub(in crate::store) fn plan(&self, now_ms: i64, last: bool) -> Plan {
        let mut state = self.state.borrow_mut();
        let asked = std::mem::take(&mut state.asked);
        let estimates = std::mem::take(&mut state.estimates);
        let hot = asked >= HOT && !last;
        let requests = if hot { asked.saturating_mul(TICKS).min(MAX_REQUESTS) } else { 0 };
        let estimate = if hot { (estimates / asked).max(1) } else { 1 };
        let nano = estimate.saturating_mul(requests);
        let closed = std::mem::replace(&mut state.slice, Slice::NONE);
        let mut sessions = Vec::new();
        let hold_ms = state.hold_ms;
        let due = |known: &Session| known.open > 0 && now_ms - known.written_ms >= hold_ms;
        for known in state.sessions.values_mut().filter(|known| known.touched || due(known)) {
            (known.touched, known.written_ms) = (false, now_ms);
            sessions.push((Arc::clone(&known.id), known.bound));
        }
        state.sessions.retain(|_, known| known.open > 0 || now_ms - known.confirmed_ms < FRESH_MS);
        state.touched = false;
        Plan { requests, estimate, nano, keep: state.in_flight.max(0), closed, sessions, now_ms }
    }

    /// The wish of a plan.
    pub(in crate::store) fn wish<'a>(&'a self, plan: &'a Plan) -> Wish<'a> {
        Wish {
            home: self.home,
            user: self.user,
            now_ms: plan.now_ms,
            counters: &self.counters,
            holder: self.id,
            keep: plan.keep,
            requests: plan.requests,
            nano: plan.nano,
            length_ms: SLICE_MS,
            share: SHARE,
            least: (LEAST, plan.estimate.saturating_mul(LEAST)),
            last: plan.closed,
            sessions: &plan.sessions,
        }
    }

    /// Redis lent so much. `None`: it did not answer; what it may have lent stays counted until it leaves the
    /// window, because giving back what was not lent would let others have more than the limit.
    pub(in crate::store) fn lent(&self, plan: &Plan, lent: Option<Lent>) {
        let mut state = self.state.borrow_mut();
        state.renewing = false;
        let Some(lent) = lent else {
            // It may hold a reservation all the same: renewed until it is known again.
            state.reserved = UNKNOWN;
            for (id, _) in &plan.sessions {
                if let Some(known) = state.sessions.values_mut().find(|known| known.id == *id) {
                    known.touched = true;
                }
            }
            state.touched |= !plan.sessions.is_empty();
            return;
        };
        state.renewed_ms = plan.now_ms;
        state.reserved = if self.counts_money() { plan.keep + lent.nano } else { 0 };
        // Requests may have ended meanwhile; together with what they left, no more than Redis reserved.
        let nano = lent.nano + plan.keep - state.in_flight - state.spent;
        let until_ms = plan.now_ms + SLICE_MS;
        state.slice = Slice { bucket: lent.bucket, requests: lent.requests, used: 0, nano, until_ms };
    }

    /// Nothing was asked.
    pub(in crate::store) fn rest(&self) {
        self.state.borrow_mut().renewing = false;
    }

    /// What the tick has to do with it; it is marked as being renewed.
    pub(super) fn tick(&self, now_ms: i64, hold_ms: i64) -> Next {
        let mut state = self.state.borrow_mut();
        if state.renewing {
            return Next::Keep;
        }
        state.hold_ms = hold_ms;
        let is_held = state.open > 0 && now_ms - state.renewed_ms >= hold_ms;
        state.renewing = is_held || state.has_work();
        if state.renewing {
            return Next::Renew;
        }
        state.estimates = 0;
        let idle = std::mem::take(&mut state.asked) == 0 && state.open == 0;
        if idle { Next::Drop } else { Next::Keep }
    }

    /// Whether these are its counters.
    pub(super) fn counts(&self, ask: &Ask<'_>) -> bool {
        let counters = ask.counters;
        let is_same = std::ptr::eq(self.counters.as_ptr(), counters.as_ptr())
            && self.counters.len() == counters.len()
            || *self.counters == **counters;
        is_same && self.home == ask.home
    }

    pub(super) fn counts_money(&self) -> bool {
        !self.money.is_empty()
    }
}

#[cfg(test)]
mod tests;
