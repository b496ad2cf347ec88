//! A request that is under way: how far it has come, and what the spool knows of it in case that this process is killed.
//! Written once where all goes well, at the moment when it is sent over a connection that stands; what is rarer is
//! written over it.

use super::Meter;
use crate::bill::{Classes, Place};
use crate::proxy::opening::State;
use crate::upstream::Progress;

impl Progress for Meter {
    fn connects(&self) {
        self.is_with_upstream.set(false);
        self.note(false);
    }

    fn sends(&self) {
        self.note(true);
    }

    fn went_out(&self, whole: bool) {
        if whole {
            self.is_with_upstream.set(true);
        }
        // A large body takes a while; nobody works on a part of it.
        self.note(whole);
    }
}

impl Meter {
    /// The upstream refused the running attempt's request, or gave no answer to it: it is not paid for.
    #[cold]
    pub fn is_not_with_upstream(&self) {
        self.is_with_upstream.set(false);
        if self.noted.get() == Some(true) {
            self.note(false);
        }
    }

    /// Tells the spool whether the provider that is tried has the request.
    fn note(&self, sent: bool) {
        let noted = self.noted.replace(Some(sent));
        if noted == Some(sent) {
            return;
        }
        let (Some(up), Some(model)) = (&self.upstream, &self.upstream_model) else { return };
        let classes = self.last_classes().unwrap_or_default();
        let entry = self.opening.entry(up.row.id, model, State { sent, classes });
        let slot = match self.slot.take() {
            Some(slot) => {
                self.shared.spool.change(&slot, &entry);
                Some(slot)
            }
            None if noted.is_none() => self.shared.spool.begin(&entry),
            None => None,
        };
        self.slot.set(slot);
    }

    /// Where the price classes of its conversation are remembered, if it belongs to one.
    pub(super) fn conversation(&self) -> Option<Place> {
        let session = self.opening.session.as_deref()?;
        let known = self.place.get();
        let place =
            known.unwrap_or_else(|| self.shared.last_classes.place(self.opening.caller.user.id, session));
        self.place.set(Some(place));
        Some(place)
    }

    /// In which of them the input of its last answer lay.
    pub(super) fn last_classes(&self) -> Option<Classes> {
        self.shared.last_classes.of(self.conversation()?)
    }
}
