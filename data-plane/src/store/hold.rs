//! What requests in flight hold — a place among the sessions, a reservation of money — is renewed for as long as
//! they last, so that a long stream counts to its end and a dead proxy's is free soon. What was admitted from a
//! slice is renewed with the slice, see `lease`.

use super::limiter::Core;
use super::{Ask, Bound, Hold, Home, Leaves, Line, Mode, Options, Reserve, Slot};
use crate::clock::now_ms;
use crate::limit::{Counter, Counters};
use crate::map::Map;
use contract::ids::{RequestId, UserId};
use contract::money::NanoUsd;
use contract::table::Measure;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// How often what is held is renewed: three times in the shorter of its lives.
pub(super) fn every(options: &Options) -> Duration {
    options.session_ttl.min(options.reservation_ttl) / 3
}

/// Whether the counter holds something for as long as a request lasts.
fn lasts(counter: &Counter) -> bool {
    counter.limit.measure != Measure::Requests
}

struct Held {
    home: Home,
    user: UserId,
    /// The caller's; empty if a slice has them.
    counters: Counters,
    estimate: NanoUsd,
    session: Option<Arc<str>>,
    session_ttl: Duration,
    hold: Option<Hold>,
    renewed_ms: i64,
}

/// The requests of one worker that hold something.
#[derive(Default)]
pub(super) struct Holding(RefCell<Map<RequestId, Held>>);

impl Holding {
    /// A request was admitted; `counted`: a store has its caller's counters.
    pub(super) fn begin(&self, ask: &Ask<'_>, counted: bool, hold: Option<&Hold>) {
        let counted = counted && ask.counters.iter().any(lasts);
        let there = hold.is_some_and(|hold| hold.counters.iter().any(lasts));
        if !counted && !there {
            return;
        }
        let held = Held {
            home: ask.home,
            user: ask.user,
            counters: if counted { ask.counters.clone() } else { Counters::default() },
            estimate: ask.estimate,
            session: ask.session.cloned(),
            session_ttl: ask.session_ttl,
            hold: hold.cloned(),
            renewed_ms: now_ms(),
        };
        self.0.borrow_mut().insert(ask.request, held);
    }

    /// A request moved on to another provider.
    pub(super) fn moved(&self, ask: &Ask<'_>, hold: Option<&Hold>) {
        if let Some(held) = self.0.borrow_mut().get_mut(&ask.request) {
            held.hold = hold.cloned();
            return;
        }
        self.begin(ask, false, hold);
    }

    /// It has ended; when a store was told last what it holds, if it held anything.
    pub(super) fn end(&self, request: RequestId) -> Option<i64> {
        self.0.borrow_mut().remove(&request).map(|held| held.renewed_ms)
    }

    /// Whose time it is.
    pub(super) fn due(&self, now_ms: i64, every_ms: i64) -> Vec<RequestId> {
        let mut due = Vec::new();
        for (request, held) in self.0.borrow_mut().iter_mut() {
            if now_ms - held.renewed_ms >= every_ms {
                held.renewed_ms = now_ms;
                due.push(*request);
            }
        }
        due
    }

    /// What a request holds now, by slot; nothing once it has ended.
    fn now(&self, request: RequestId) -> Option<(Group, Vec<Group>)> {
        let held = self.0.borrow();
        let held = held.get(&request)?;
        let group = |slot, counters: &Counters, estimate| Group {
            home: held.home,
            slot,
            counters: counters.only(lasts),
            estimate,
            session: held.session.clone(),
            session_ttl: held.session_ttl,
        };
        let own = group(Slot::User(held.user), &held.counters, held.estimate);
        let there = held
            .hold
            .iter()
            .map(|hold| group(Slot::Provider(hold.provider), &hold.counters, hold.estimate))
            .collect();
        Some((own, there))
    }
}

struct Group {
    home: Home,
    slot: Slot,
    counters: Counters,
    estimate: NanoUsd,
    session: Option<Arc<str>>,
    session_ttl: Duration,
}

impl Core {
    /// Renews what a request holds, unless it has ended. Commands of one worker reach Redis in the order in which
    /// they are sent, so a settlement that comes later has the last word.
    pub(super) async fn renew_held(&self, request: RequestId) {
        let Some((own, there)) = self.holding.now(request) else { return };
        for group in std::iter::once(own).chain(there) {
            if group.counters.is_empty() || self.holding.now(request).is_none() {
                continue;
            }
            let reserve = Reserve {
                home: group.home,
                slot: group.slot,
                mode: Mode::Force,
                request,
                now_ms: now_ms(),
                counters: &group.counters,
                estimate: group.estimate,
                session: group.session.as_deref(),
                session_ttl: group.session_ttl,
                bound: Bound::Known(None),
                line: Line::default(),
                leave: None,
                leaves: Leaves::Stays,
                unsent: false,
            };
            self.ask(&reserve).await;
        }
    }
}
