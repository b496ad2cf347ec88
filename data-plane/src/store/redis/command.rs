//! The commands of the two scripts that every limited request runs: their parts, keys first. Written apart from the
//! futures that send them, which would carry all of it along.

use super::super::naming::{Pack, Parts, member_ttl, words};
use super::super::{Bound, Charge, Leaves, Reserve, Slot, ms};
use super::RedisStore;
use crate::limit::Counter;
use contract::ids::ProviderId;
use smallvec::SmallVec;

/// Both clocks count whole milliseconds.
const ROUNDING_MS: i64 = 2;

impl RedisStore {
    /// The command for `settle.lua`, and how many of its parts are keys. `provider`: as far as it has something to settle.
    pub(super) fn statement(
        &self,
        charge: &Charge<'_>,
        provider: Option<(ProviderId, &[Counter], bool)>,
    ) -> (Parts, usize) {
        let bind = charge.bind.filter(|_| charge.session.is_some());
        let keep = self.keep(self.session_ttl);
        let caller = words(charge.home, charge.slot, charge.counters, keep);
        let theirs = match provider {
            Some((id, counters, _)) => words(charge.home, Slot::Provider(id), counters, keep),
            None => SmallVec::new(),
        };
        let mut pack = Pack::new();
        pack.settled_key(charge.home, charge.slot, charge.request);
        pack.binding_key(charge.home, charge.slot, charge.session);
        pack.group_keys(charge.counters, &caller);
        if let Some((_, counters, _)) = provider {
            pack.group_keys(counters, &theirs);
        }
        let keys = pack.len();
        pack.number(charge.age_ms);
        pack.number(self.now(charge.now_ms.saturating_add(charge.age_ms)));
        pack.bytes(charge.request.0.as_bytes());
        pack.number(charge.actual.0.max(0));
        pack.member(charge.request, charge.session);
        pack.number(member_ttl(charge.session, keep));
        match bind {
            Some(provider) => pack.number(provider.0),
            None => pack.bytes(b""),
        }
        pack.number(ms(self.session_ttl));
        pack.number(ms(self.reservation_ttl));
        pack.number(i64::from(provider.is_some_and(|(_, _, stays)| stays)));
        pack.specs(&caller);
        pack.specs(&theirs);
        (pack.seal(), keys)
    }

    /// The command for `reserve.lua`, and how many of its parts are keys.
    pub(super) fn question(&self, reserve: &Reserve<'_>) -> (Parts, usize) {
        let keep = self.keep(reserve.session_ttl);
        let said = |slot, counters| words(reserve.home, slot, counters, keep);
        let own = said(reserve.slot, reserve.counters);
        let left = reserve.leave.map(|leave| (leave, said(Slot::Provider(leave.provider), leave.counters)));
        let line: SmallVec<[_; 8]> = reserve
            .line
            .candidates
            .iter()
            .map(|one| (one, said(Slot::Provider(one.provider), &one.counters)))
            .collect();
        self.touch((reserve.home, reserve.slot), reserve.counters, &own, reserve.now_ms);
        for (one, words) in &line {
            self.touch((reserve.home, Slot::Provider(one.provider)), &one.counters, words, reserve.now_ms);
        }
        let mut pack = Pack::new();
        pack.binding_key(reserve.home, reserve.slot, reserve.session);
        pack.group_keys(reserve.counters, &own);
        if let Some((leave, words)) = &left {
            pack.group_keys(leave.counters, words);
        }
        line.iter().for_each(|(one, words)| pack.group_keys(&one.counters, words));
        let keys = pack.len();
        pack.bytes(reserve.mode_word().as_bytes());
        pack.number(self.now(reserve.now_ms));
        pack.bytes(reserve.request.0.as_bytes());
        pack.number(ms(self.reservation_ttl));
        pack.member(reserve.request, reserve.session);
        pack.number(member_ttl(reserve.session, keep));
        match reserve.bound {
            Bound::Ask => pack.bytes(b"?"),
            Bound::Known(Some(provider)) => pack.number(provider.0),
            Bound::Known(None) => pack.bytes(b""),
        }
        pack.number(i64::from(reserve.line.complete));
        match reserve.leave.map_or(reserve.leaves, |leave| leave.session) {
            Leaves::Stays => pack.bytes(b"k"),
            Leaves::Goes => pack.bytes(b"a"),
            Leaves::Since(age_ms) => pack.number(age_ms),
            Leaves::Unshared(age_ms) => pack.bytes(format!("u{}", age_ms - ROUNDING_MS).as_bytes()),
        }
        let unsent = reserve.leave.map_or(reserve.unsent, |leave| leave.unsent);
        pack.number(i64::from(unsent));
        pack.priced_specs(reserve.estimate.0, None, &own);
        match &left {
            Some((_, words)) => pack.priced_specs(0, None, words),
            None => pack.bytes(b""),
        }
        for (one, words) in &line {
            let provider = if one.reusable { one.provider.0 } else { 0 };
            pack.priced_specs(one.estimate.0, Some(provider), words);
        }
        (pack.seal(), keys)
    }
}
