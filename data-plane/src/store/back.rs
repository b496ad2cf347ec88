//! What Redis may have taken although nobody heard its answer — it came too late, or the caller hung up meanwhile —
//! is given back in the background, so that no reservation is left to run out.

use super::limiter::{Core, Limiter};
use super::settler::Job;
use super::{
    Answer, Ask, Bound, Candidate, Hold, Home, Leaves, Line, Mode, Reserve, Slot, Store, StoreError,
};
use crate::clock::now_ms;
use crate::limit::Counters;
use contract::ids::{ProviderId, RequestId, UserId};
use contract::money::NanoUsd;
use std::sync::Arc;
use std::time::Duration;

/// Something to give back.
pub(super) struct Back {
    home: Home,
    slot: Slot,
    request: RequestId,
    session: Option<Arc<str>>,
    session_ttl: Duration,
    counters: Counters,
    line: Vec<Candidate>,
    /// Whether the request brought its session.
    brought: Session,
    /// Whether the request does not count there.
    unsent: bool,
    /// When the store was asked, Unix milliseconds.
    asked_ms: i64,
}

/// What is known of the session of what is given back.
#[derive(Clone, Copy)]
enum Session {
    Unknown,
    WasThere,
    Brought,
    /// The store was told last then, Unix milliseconds, by this request.
    BroughtAt(i64),
}

impl Back {
    /// Of a question whose answer is not known: what the line may have given, but at `kept`; and the caller's own
    /// counters, where nothing will settle them.
    pub(super) fn of(ask: &Ask<'_>, line: Line<'_>, kept: Option<ProviderId>, caller: bool) -> Option<Self> {
        let wanted = |one: &&Candidate| Some(one.provider) != kept && !one.counters.is_empty();
        let line: Vec<Candidate> = line.candidates.iter().filter(wanted).cloned().collect();
        let counters = if caller { ask.counters.clone() } else { Counters::default() };
        (!line.is_empty() || !counters.is_empty()).then(|| Self {
            home: ask.home,
            slot: Slot::User(ask.user),
            request: ask.request,
            session: ask.session.cloned(),
            session_ttl: ask.session_ttl,
            counters,
            line,
            brought: Session::Unknown,
            unsent: true,
            asked_ms: ask.now_ms,
        })
    }

    /// What an admitted request took of its caller's counters. `brought_ms`: it brought its session, and told the store
    /// then.
    pub(super) fn own(ask: &Ask<'_>, brought_ms: Option<i64>) -> Option<Self> {
        let brought = brought_ms.map_or(Session::WasThere, Session::BroughtAt);
        Some(Self { brought, ..Self::of(ask, Line::default(), None, true)? })
    }

    /// What a request held at a provider that it left.
    pub(super) fn left(ask: &Ask<'_>, hold: Hold, unsent: bool) -> Self {
        Self {
            home: ask.home,
            slot: Slot::Provider(hold.provider),
            request: ask.request,
            session: ask.session.cloned(),
            session_ttl: ask.session_ttl,
            counters: hold.counters,
            line: Vec::new(),
            brought: if hold.fresh { Session::Brought } else { Session::WasThere },
            unsent,
            asked_ms: ask.now_ms,
        }
    }

    pub(super) fn reserve(&self) -> Reserve<'_> {
        let now_ms = now_ms();
        Reserve {
            home: self.home,
            slot: self.slot,
            mode: Mode::Back,
            request: self.request,
            now_ms,
            counters: &self.counters,
            estimate: NanoUsd(0),
            session: self.session.as_deref(),
            session_ttl: self.session_ttl,
            bound: Bound::Known(None),
            line: Line { candidates: &self.line, complete: false },
            leave: None,
            leaves: match self.brought {
                Session::Brought => Leaves::Goes,
                Session::WasThere => Leaves::Stays,
                Session::Unknown => Leaves::Since((now_ms - self.asked_ms).max(0)),
                Session::BroughtAt(told_ms) => Leaves::Unshared((now_ms - told_ms).max(0)),
            },
            unsent: self.unsent,
        }
    }

    /// Gives it back; done twice, it changes nothing.
    pub(super) async fn give<S: Store>(&self, core: &Core, store: &S) -> Result<(), StoreError> {
        let reserve = self.reserve();
        if reserve.is_apart() {
            core.one_by_one(store, &reserve).await.map(drop)
        } else {
            store.reserve(&reserve).await.map(drop)
        }
    }
}

/// A question on its way. Dropped before its answer is there, it has what may be taken at providers given back; the
/// caller's own counters are settled by whoever asked.
pub(super) struct Pending<'a> {
    pub(super) limiter: &'a Limiter,
    pub(super) ask: &'a Ask<'a>,
    pub(super) line: Line<'a>,
    pub(super) left: Option<(Hold, bool)>,
    pub(super) answered: bool,
}

impl Pending<'_> {
    /// The answer is there, perhaps from memory because Redis did not answer: `user` is the user whose counters
    /// were asked with it.
    pub(super) fn answered(mut self, answer: &Answer, is_certain: bool, user: Option<UserId>) {
        self.answered = true;
        if is_certain {
            return;
        }
        let (kept, caller) = match answer {
            Answer::Taken(taken) => (taken.at.map(|at| self.line.candidates[at].provider), false),
            Answer::Over(_) | Answer::Full | Answer::Unseeded(_) => (None, user.is_some()),
        };
        self.give_back(kept, caller);
    }

    fn give_back(&mut self, kept: Option<ProviderId>, caller: bool) {
        let left = self.left.take().map(|(hold, unsent)| Back::left(self.ask, hold, unsent));
        for back in Back::of(self.ask, self.line, kept, caller).into_iter().chain(left) {
            self.limiter.send(Job::Back(Box::new(back)));
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.give_back(None, false);
        }
    }
}
