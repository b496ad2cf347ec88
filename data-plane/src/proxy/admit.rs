//! Admission: all limits at once, and addresses that guess keys.

use super::Proxy;
use super::choose::Trail;
use super::meter::Meter;
use super::price;
use super::refuse::Refusal;
use super::seats::{Admitted, First};
use crate::limit;
use crate::spool::Standing;
use crate::store::{Admission, Line};
use contract::money::NanoUsd;
use llm::request::Ask;
use std::net::IpAddr;
use std::time::Duration;

impl Proxy {
    /// An unknown key counts against its address. Known keys are served whatever others behind the same address
    /// (a balancer's, an office's) try.
    pub(super) fn suspect(&self, refusal: Refusal, address: IpAddr, now_ms: i64) -> Refusal {
        if !matches!(refusal, Refusal::UnknownKey) {
            return refusal;
        }
        if let Some(left) = self.shared.guard.blocked(address, now_ms) {
            return Refusal::Guessing(Duration::from_millis(left));
        }
        self.shared.guard.failed(&self.shared.config, address, now_ms);
        refusal
    }

    /// Nothing is served whose record would be lost.
    pub(super) fn can_record(&self) -> Result<(), Refusal> {
        match self.shared.spool.refuses() {
            None => Ok(()),
            Some(Standing::Full) => Err(Refusal::SpoolFull),
            Some(_) => Err(Refusal::SpoolFailed),
        }
    }

    /// All limits at once: the caller's, and those of the first provider that has room where one has limits.
    pub(super) async fn admit(&self, meter: &mut Meter, ask: Option<&Ask<'_>>) -> Result<Admitted, Refusal> {
        let opening = meter.opening();
        let caller = &opening.caller;
        let zone = opening.table.owner(caller.user.owner_id).time_zone;
        let counters = self.plans.counters(&caller.key, &caller.user, zone, opening.started_at_ms);
        // Again: its body may have taken a while.
        self.can_record()?;
        let is_money = counters.iter().any(limit::Counter::is_money);
        if is_money {
            price::check(&self.shared, opening)?;
        }
        let is_limited = Self::is_limited(&self.ground(&opening.table, opening));
        let max_output = ask.and_then(|ask| ask.max_output);
        let expected = if is_money || is_limited { price::expected(opening, max_output) } else { NanoUsd(0) };
        // Before the store is asked: a caller who hangs up meanwhile may have taken all the same.
        meter.admitting(counters, expected);
        if is_limited {
            return Box::pin(self.admit_in_line(meter)).await;
        }
        match self.limiter.reserve(&self.claim(meter), Line::default()).await {
            Admission::Admitted { bound, .. } => {
                Ok(Admitted { bound, trail: Trail::default(), first: First::Choose })
            }
            Admission::Full => Ok(Admitted { bound: None, trail: Trail::default(), first: First::Choose }),
            Admission::Refused(refusal) => Err(self.limited(refusal)),
        }
    }
}
