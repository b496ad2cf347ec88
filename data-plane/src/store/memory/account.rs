//! All counters of one user or provider; the Rust twin of `reserve.lua`, `settle.lua` and `seed.lua`.

use super::Terms;
use super::money::Money;
use crate::limit::Counter;
use crate::store::{Answer, Charge, Leaves, Over, Reserve, Seed};
use contract::ids::{ProviderId, RequestId};
use contract::money::NanoUsd;
use contract::table::{Measure, Scope};
use contract::window::{Span, Window};
use smallvec::SmallVec;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, VecDeque};

/// A counter that is not used is kept this long beyond its window, in ms.
const GRACE_MS: i64 = 3_600_000;
/// A counter without an end is kept this long after its last use.
const ENDLESS_MS: i64 = 35 * 24 * GRACE_MS;

/// Two counters that count differently never share an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    scope: Scope,
    measure: Measure,
    window: Window,
    start_ms: Option<i64>,
    since_ms: Option<i64>,
}

impl Id {
    fn of(counter: &Counter) -> Self {
        let money = counter.is_money();
        let start_ms = counter.start_ms().filter(|_| money);
        let since_ms = counter.limit.since_ms.filter(|_| money && start_ms.is_none());
        // The start tells fixed days apart; their reset minute would only split a day that a reset moved.
        let window = match counter.limit.window {
            Window::Day { .. } => Window::Day { reset_minute: 0 },
            other => other,
        };
        Self { scope: counter.scope, measure: counter.limit.measure, window, start_ms, since_ms }
    }
}

/// Whose lease it is: a session, or a request that is its own session.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Member {
    Session(Box<str>),
    Request(RequestId),
}

impl Member {
    fn of(request: RequestId, session: Option<&str>) -> Self {
        session.map_or(Self::Request(request), |session| Self::Session(session.into()))
    }
}

enum State {
    Requests(VecDeque<(i64, RequestId)>),
    Sessions(HashMap<Member, i64>),
    Money(Money),
}

struct Entry {
    state: State,
    expires_ms: i64,
}

/// Reservations of one owner: amount and expiry by request.
#[derive(Default)]
struct Leases {
    by_request: HashMap<RequestId, (i64, i64)>,
    sum: i64,
    /// No lease expires before this.
    next_ms: i64,
}

impl Leases {
    fn live(&mut self, now_ms: i64) -> i64 {
        if now_ms >= self.next_ms {
            self.by_request.retain(|_, (_, expires)| *expires > now_ms);
            self.sum = self.by_request.values().map(|(amount, _)| amount).sum();
            self.next_ms = self.by_request.values().map(|(_, expires)| *expires).min().unwrap_or(i64::MAX);
        }
        self.sum
    }

    /// What is there already only lives on.
    fn add(&mut self, request: RequestId, amount: i64, expires_ms: i64) {
        if amount <= 0 {
            return;
        }
        match self.by_request.entry(request) {
            MapEntry::Occupied(mut held) => held.get_mut().1 = expires_ms,
            MapEntry::Vacant(room) => {
                room.insert((amount, expires_ms));
                self.sum = self.sum.saturating_add(amount);
                self.next_ms = self.next_ms.min(expires_ms);
            }
        }
    }

    fn remove(&mut self, request: RequestId) {
        if let Some((amount, _)) = self.by_request.remove(&request) {
            self.sum -= amount;
        }
    }
}

#[derive(Default)]
pub(super) struct Account {
    pub(super) used_ms: i64,
    counters: HashMap<Id, Entry>,
    leases: HashMap<Scope, Leases>,
    bindings: HashMap<Box<str>, (ProviderId, i64)>,
    settled: HashMap<RequestId, i64>,
    settled_order: VecDeque<(i64, RequestId)>,
}

impl Account {
    /// What keeps the counters, whose numbers begin with `from`, from taking; `None`: there is room.
    pub(super) fn obstacle(
        &mut self,
        counters: &[Counter],
        from: usize,
        reserve: &Reserve<'_>,
        terms: Terms,
    ) -> Option<Answer> {
        let mut missing = SmallVec::new();
        for (index, counter) in counters.iter().enumerate() {
            match self.read(counter, reserve, terms) {
                None => missing.push(from + index),
                Some(over) if over.current >= counter.limit.amount => {
                    return Some(Answer::Over(Over { index: from + index, ..over }));
                }
                Some(_) => {}
            }
        }
        (!missing.is_empty()).then_some(Answer::Unseeded(missing))
    }

    /// Takes; whether the session is new here.
    pub(super) fn take(
        &mut self,
        counters: &[Counter],
        reserve: &Reserve<'_>,
        estimate: NanoUsd,
        terms: Terms,
    ) -> bool {
        // Every counter of sessions knows it, or none does.
        counters.iter().fold(false, |fresh, counter| self.take_one(counter, reserve, estimate, terms) | fresh)
    }

    /// The provider that the session is bound to.
    pub(super) fn bound(&self, session: Option<&str>, now_ms: i64) -> Option<ProviderId> {
        let (provider, expires) = self.bindings.get(session?)?;
        (*expires > now_ms).then_some(*provider)
    }

    /// Gives back what the request holds; of the requests counted only if it was `unsent`.
    pub(super) fn give_back(
        &mut self,
        counters: &[Counter],
        reserve: &Reserve<'_>,
        (session, unsent): (Leaves, bool),
        terms: Terms,
    ) {
        let now = reserve.now_ms;
        let counted_ms = |expires: i64| expires - member_ms(reserve, terms);
        for counter in counters {
            if counter.is_money() {
                self.leases.entry(counter.scope).or_default().remove(reserve.request);
            }
            match self.counters.get_mut(&Id::of(counter)).map(|entry| &mut entry.state) {
                Some(State::Requests(times)) if unsent => times.retain(|(_, id)| *id != reserve.request),
                Some(State::Sessions(members)) => {
                    let member = Member::of(reserve.request, reserve.session);
                    let goes = match (session, members.get(&member)) {
                        (Leaves::Stays, _) | (_, None) => false,
                        (Leaves::Goes, Some(_)) => true,
                        (Leaves::Since(age_ms), Some(expires)) => counted_ms(*expires) >= now - age_ms,
                        (Leaves::Unshared(age_ms), Some(expires)) => counted_ms(*expires) <= now - age_ms,
                    };
                    if goes {
                        members.remove(&member);
                    }
                }
                _ => {}
            }
        }
    }

    /// What is counted now, sessions and requests pruned; `None`: a money counter that is not seeded.
    fn read(&mut self, counter: &Counter, reserve: &Reserve<'_>, terms: Terms) -> Option<Over> {
        let now = reserve.now_ms;
        let over = |current, reset_ms, wait_ms| Over { index: 0, current, reset_ms, wait_ms };
        let entry = self.counters.get_mut(&Id::of(counter));
        match (counter.limit.measure, entry.map(|entry| &mut entry.state)) {
            (Measure::Requests, Some(State::Requests(times))) => {
                let (current, reset) = requests(times, counter, now);
                Some(over(current, reset, reset.map(|reset| reset - now)))
            }
            (Measure::Sessions, Some(State::Sessions(members))) => {
                members.retain(|_, expires| *expires > now);
                let member = Member::of(reserve.request, reserve.session);
                if members.contains_key(&member) {
                    return Some(over(-1, None, None));
                }
                let wait = members.values().min().map(|expires| expires - now);
                Some(over(count(members.len()), None, wait))
            }
            (Measure::Usd, Some(State::Money(money)))
                if money.seeded(now, terms) && !money.lacks(counter.limit.absent_until_ms) =>
            {
                let (spent, reset, wait) = money.spent(counter.span, now);
                let reserved = self.leases.entry(counter.scope).or_default().live(now);
                Some(over(spent.saturating_add(reserved), reset, wait))
            }
            (Measure::Usd, _) => None,
            (Measure::Requests | Measure::Sessions, _) => Some(over(0, None, None)),
        }
    }

    fn take_one(
        &mut self,
        counter: &Counter,
        reserve: &Reserve<'_>,
        estimate: NanoUsd,
        terms: Terms,
    ) -> bool {
        let now = reserve.now_ms;
        match counter.limit.measure {
            Measure::Requests => {
                let entry = self.entry(counter, now, State::Requests(VecDeque::new()));
                if let State::Requests(times) = &mut entry.state {
                    times.push_back((now, reserve.request));
                }
            }
            Measure::Sessions => {
                let ttl = member_ms(reserve, terms);
                let entry = self.entry(counter, now + ttl, State::Sessions(HashMap::new()));
                if let State::Sessions(members) = &mut entry.state {
                    let member = Member::of(reserve.request, reserve.session);
                    return members.insert(member, now + ttl).is_none_or(|expires| expires <= now);
                }
            }
            Measure::Usd => {
                let leases = self.leases.entry(counter.scope).or_default();
                leases.add(reserve.request, estimate.0, now + terms.reservation_ms);
            }
        }
        false
    }

    /// The counter's entry, made if needed, kept at least until its window after `now_ms` is over.
    fn entry(&mut self, counter: &Counter, now_ms: i64, empty: State) -> &mut Entry {
        let expires_ms = GRACE_MS
            + match counter.span {
                Span::Fixed { end_ms: None, .. } => now_ms + ENDLESS_MS,
                Span::Fixed { end_ms: Some(end), .. } => end.max(now_ms),
                Span::Rolling { length_ms, bucket_ms } => now_ms + length_ms + bucket_ms,
                Span::FromFirst { length_ms } => now_ms + length_ms + 24 * GRACE_MS,
            };
        let entry = self.counters.entry(Id::of(counter)).or_insert(Entry { state: empty, expires_ms });
        entry.expires_ms = entry.expires_ms.max(expires_ms);
        entry
    }

    fn money(&mut self, counter: &Counter, now_ms: i64) -> Option<&mut Money> {
        match &mut self.entry(counter, now_ms, State::Money(Money::default())).state {
            State::Money(money) => Some(money),
            State::Requests(_) | State::Sessions(_) => None,
        }
    }

    pub(super) fn seed(&mut self, counter: &Counter, seed: &Seed, now: i64, terms: Terms) {
        let lacks = |money: &Money| money.lacks(counter.limit.absent_until_ms);
        let money = self.money(counter, now).filter(|money| !money.seeded(now, terms) || lacks(money));
        let Some(money) = money else { return };
        let stale = money.lacks(counter.limit.absent_until_ms);
        money.base = Some((now, terms.epoch));
        money.caught_up_ms = counter.limit.absent_until_ms.max(money.caught_up_ms);
        match &seed.known {
            None => money.until_ms = Some(now + terms.provisional_ms),
            Some(known) => {
                money.until_ms = None;
                money.known_ms = now - seed.behind_ms;
                money.fill(known, counter.span, now, stale);
            }
        }
    }

    /// Ends a request; its session goes on counting here if it `stays`.
    pub(super) fn settle(&mut self, charge: &Charge<'_>, stays: bool, terms: Terms) -> bool {
        let now = charge.now_ms;
        if charge.counters.iter().any(Counter::is_money) {
            if self.settled.insert(charge.request, now).is_some() {
                return false;
            }
            self.settled_order.push_back((now + terms.reservation_ms, charge.request));
        }
        for counter in charge.counters {
            match counter.limit.measure {
                Measure::Requests => {}
                Measure::Sessions => self.settle_session(counter, charge, stays, terms),
                Measure::Usd => {
                    self.leases.entry(counter.scope).or_default().remove(charge.request);
                    if let Some(money) = self.money(counter, now).filter(|_| charge.actual.0 > 0) {
                        money.charge(counter.span, (now, charge.age_ms), charge.actual.0);
                    }
                }
            }
        }
        if let (Some(session), Some(provider)) = (charge.session, charge.bind) {
            self.bindings.insert(session.into(), (provider, now + terms.session_ms));
        }
        true
    }

    fn settle_session(&mut self, counter: &Counter, charge: &Charge<'_>, stays: bool, terms: Terms) {
        let expires = charge.now_ms + terms.session_ms;
        let entry = self.entry(counter, expires, State::Sessions(HashMap::new()));
        let State::Sessions(members) = &mut entry.state else { return };
        let member = Member::of(charge.request, charge.session);
        if charge.session.is_some() && stays {
            let known = members.entry(member).or_insert(expires);
            *known = expires.max(*known);
        } else {
            members.remove(&member);
        }
    }

    /// Drops what has expired; whether anything is left.
    pub(super) fn sweep(&mut self, now_ms: i64) -> bool {
        self.counters.retain(|_, entry| entry.expires_ms > now_ms);
        self.bindings.retain(|_, (_, expires)| *expires > now_ms);
        self.leases.retain(|_, leases| {
            leases.next_ms = now_ms;
            leases.live(now_ms);
            !leases.by_request.is_empty()
        });
        while let Some((_, request)) = self.settled_order.pop_front_if(|(expires, _)| *expires <= now_ms) {
            self.settled.remove(&request);
        }
        let empty = self.counters.is_empty() && self.bindings.is_empty();
        !(empty && self.leases.is_empty() && self.settled.is_empty())
    }
}

/// How long what a reservation counts as its session counts.
fn member_ms(reserve: &Reserve<'_>, terms: Terms) -> i64 {
    match reserve.session {
        Some(_) => i64::try_from(reserve.session_ttl.as_millis()).unwrap_or(i64::MAX / 4),
        None => terms.reservation_ms,
    }
}

/// How many requests the window holds, and when the one leaves that makes room for another.
fn requests(times: &mut VecDeque<(i64, RequestId)>, counter: &Counter, now_ms: i64) -> (i64, Option<i64>) {
    let (from, length) = match counter.span {
        Span::Fixed { start_ms, .. } => (start_ms - 1, None),
        Span::Rolling { length_ms, .. } | Span::FromFirst { length_ms } => {
            (now_ms - length_ms, Some(length_ms))
        }
    };
    while times.pop_front_if(|(at, _)| *at <= from).is_some() {}
    let current = count(times.len());
    let leaves = usize::try_from(current - counter.limit.amount).ok().and_then(|index| times.get(index));
    (current, leaves.zip(length).map(|((at, _), length)| at + length))
}

fn count(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
