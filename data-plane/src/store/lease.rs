//! Slices of hot keys: requests admitted on this worker without a round trip, from what Redis lent it.
//!
//! A key that is asked often is lent a share of each of its counters every [`TICK`]: requests, nano-USD, and the
//! sessions that Redis has just counted. Near a limit the shares shrink to nothing and every request asks Redis
//! by itself. What is spent is charged with the next tick, once. In Redis each holder keeps one reservation, of
//! what its requests in flight may cost and what it was lent; it expires if this proxy dies.
//!
//! Invariant: `in_flight + spent + slice.nano` never exceeds what Redis holds reserved for the holder, but by
//! what requests cost beyond their estimate.

mod holder;

pub(super) use self::holder::{Holder, Lent, Wish};

use self::holder::{Ended, Next};
use super::{Ask, Settlement};
use crate::limit::Counters;
use crate::map::Map;
use contract::ids::{KeyId, ProviderId, RequestId, UserId};
use contract::table::Scope;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

/// How often slices are renewed and what was spent is charged.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// One key of one user; keys without limits of their own share the user's.
type Identity = (UserId, Option<KeyId>);

struct Taken {
    holder: Rc<Holder>,
    estimate: i64,
    /// Its session, as the holder knows it.
    session: Option<u64>,
    at_ms: i64,
}

/// A request that nobody ended in this time is forgotten; a bound against a fault, because every request is ended.
const FORGOTTEN_MS: i64 = 24 * 3_600_000;

impl Taken {
    fn ended(&self, actual: i64, at_ms: i64) -> Ended {
        Ended { estimate: self.estimate, actual, at_ms, session: self.session }
    }
}

/// The slices of one worker.
#[derive(Default)]
pub(super) struct Leases {
    hasher: RandomState,
    holders: RefCell<HashMap<Identity, Rc<Holder>>>,
    /// Holders whose counters have changed, until their last request has ended.
    retired: RefCell<Vec<Rc<Holder>>>,
    requests: RefCell<Map<RequestId, Taken>>,
}

fn identity(ask: &Ask<'_>) -> Identity {
    let key = ask.counters.iter().find_map(|counter| match counter.scope {
        Scope::Key(id) => Some(id),
        Scope::User(_) | Scope::Provider(_) => None,
    });
    (ask.user, key)
}

impl Leases {
    /// Admits from the slice; the session's provider. `None`: ask Redis.
    pub(super) fn take(&self, ask: &Ask<'_>) -> Option<Option<ProviderId>> {
        let holder = self.holder(ask);
        let estimate = if holder.counts_money() { ask.estimate.0.max(0) } else { 0 };
        let session = ask.session.map(|session| self.hasher.hash_one(&**session));
        let bound = holder.take(ask, estimate, session)?;
        let taken = Taken { holder, estimate, session, at_ms: ask.now_ms };
        self.requests.borrow_mut().insert(ask.request, taken);
        Some(bound)
    }

    fn holder(&self, ask: &Ask<'_>) -> Rc<Holder> {
        let mut holders = self.holders.borrow_mut();
        let at = identity(ask);
        if let Some(holder) = holders.get(&at) {
            if holder.counts(ask) {
                return Rc::clone(holder);
            }
            // A limit was changed, or a window has ended: what is open is charged where it was admitted.
            self.retired.borrow_mut().extend(holders.remove(&at));
        }
        let holder = Rc::new(Holder::new(ask));
        holders.insert(at, Rc::clone(&holder));
        holder
    }

    /// Redis admitted a request: its session is counted.
    pub(super) fn confirm(&self, ask: &Ask<'_>, bound: Option<ProviderId>) {
        if let (Some(session), Some(holder)) = (ask.session, self.holders.borrow().get(&identity(ask))) {
            holder.confirm(self.hasher.hash_one(&**session), session, bound, ask.now_ms);
        }
    }

    /// Ends a request, if it was admitted from a slice, and takes out of the settlement what the next tick does.
    pub(super) fn end(&self, settlement: &mut Settlement) {
        let Some(taken) = self.requests.borrow_mut().remove(&settlement.request) else { return };
        let actual = settlement.actual.unwrap_or_default().0.max(0);
        taken.holder.end(&taken.ended(actual, settlement.now_ms));
        settlement.counters = Counters::default();
        if let (Some(session), Some(provider)) = (&settlement.session, settlement.bind)
            && taken.holder.rebind(self.hasher.hash_one(&**session), provider)
        {
            settlement.bind = None;
        }
    }

    /// A request that was admitted from a slice is refused all the same; whether it was.
    pub(super) fn undo(&self, request: RequestId) -> bool {
        let taken = self.requests.borrow_mut().remove(&request);
        if let Some(taken) = &taken {
            taken.holder.undo(&taken.ended(0, taken.at_ms));
        }
        taken.is_some()
    }

    /// Holders that have something to do, each marked as being renewed. Cold ones are let go.
    /// What requests in flight hold is renewed every `hold_ms`.
    pub(super) fn due(&self, now_ms: i64, hold_ms: i64) -> Vec<Rc<Holder>> {
        self.forget(now_ms - FORGOTTEN_MS);
        let mut due = Vec::new();
        let mut look = |holder: &Rc<Holder>| {
            let next = holder.tick(now_ms, hold_ms);
            if next == Next::Renew {
                due.push(Rc::clone(holder));
            }
            next != Next::Drop
        };
        self.holders.borrow_mut().retain(|_, holder| look(holder));
        self.retired.borrow_mut().retain(look);
        due
    }

    /// Requests that nobody ended.
    fn forget(&self, before_ms: i64) {
        self.requests.borrow_mut().retain(|_, taken| {
            let lives = taken.at_ms > before_ms;
            if !lives {
                taken.holder.end(&taken.ended(0, taken.at_ms));
            }
            lives
        });
    }

    /// Whether anything is held.
    pub(super) fn is_empty(&self) -> bool {
        self.holders.borrow().is_empty() && self.retired.borrow().is_empty()
    }
}
