//! The same question under the first naming, where a caller's counters and each provider's lie in slots of their
//! own that no script of a cluster may touch together: one after the other, and back again where none has room.
//! Goes once no proxy of an older version is left.

use super::limiter::Core;
use super::{Answer, Bound, Leave, Leaves, Line, Mode, Reserve, Slot, Store, StoreError, Taken};
use contract::table::CounterNaming;

impl Reserve<'_> {
    /// Whether its counters lie in several slots.
    pub(super) fn is_apart(&self) -> bool {
        self.home.naming == CounterNaming::ByUser
            && (self.leave.is_some() || !self.line.candidates.is_empty())
    }
}

impl Core {
    pub(super) async fn one_by_one<S: Store>(
        &self,
        store: &S,
        reserve: &Reserve<'_>,
    ) -> Result<Answer, StoreError> {
        let alone = Reserve { line: Line::default(), leave: None, ..*reserve };
        if let Some(Leave { provider, counters, session, unsent }) = reserve.leave {
            let slot = Slot::Provider(provider);
            let left = Reserve { mode: Mode::Back, slot, counters, leaves: session, unsent, ..alone };
            store.reserve(&left).await?;
        }
        let answer = self.together(store, &alone).await?;
        let Answer::Taken(own) = answer else { return Ok(answer) };
        let theirs = Reserve { bound: Bound::Known(None), ..alone };
        for (index, one) in reserve.order(own.bound) {
            let slot = Slot::Provider(one.provider);
            let there = Reserve { slot, counters: &one.counters, estimate: one.estimate, ..theirs };
            if let Answer::Taken(Taken { fresh, .. }) = self.together(store, &there).await?
                && reserve.mode != Mode::Back
            {
                return Ok(Answer::Taken(Taken { at: Some(index), fresh, ..own }));
            }
        }
        if reserve.mode == Mode::Take && reserve.line.complete {
            let leaves = if own.fresh { Leaves::Goes } else { Leaves::Stays };
            store.reserve(&Reserve { mode: Mode::Back, leaves, ..alone }).await?;
            return Ok(Answer::Full);
        }
        Ok(Answer::Taken(own))
    }
}
