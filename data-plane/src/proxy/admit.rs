//! Admission: all limits at once, and addresses that guess keys.

use super::Proxy;
use super::meter::Meter;
use super::refuse::Refusal;
use super::respond;
use crate::limit;
use crate::store::Admission;
use contract::ids::ProviderId;
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

    /// All limits at once, and the session's bound provider.
    pub(super) async fn admit(
        &self,
        meter: &mut Meter,
        ask: Option<&Ask<'_>>,
    ) -> Result<Option<ProviderId>, Refusal> {
        let opening = meter.opening();
        let caller = &opening.caller;
        let zone = opening.table.owner(caller.user.owner_id).time_zone;
        let counters = self.plans.counters(&caller.key, &caller.user, zone, opening.started_at_ms);
        if self.shared.spool.is_full() && counters.iter().any(limit::Counter::is_money) {
            return Err(Refusal::SpoolFull);
        }
        // Before the store is asked: a caller who hangs up meanwhile may have taken all the same.
        meter.admitted(counters);
        let meter = &*meter;
        let opening = meter.opening();
        // What is not billed is not free of the limits: it reserves no money, but is refused where money is out.
        let estimate = limit::estimate(
            opening.table.price(&opening.model).filter(|_| opening.kind.is_metered()),
            llm::estimate::tokens(opening.request_bytes),
            ask.and_then(|ask| ask.max_output),
            rust_decimal::Decimal::ONE,
        );
        let claim = opening.claim(meter.counters(), estimate, self.shared.config.session_ttl);
        match self.limiter.reserve(&claim).await {
            Admission::Admitted { bound } => Ok(bound),
            Admission::Refused(refusal) => {
                let status = respond::limit_status(&self.shared.config, refusal.measure);
                Err(Refusal::Limited(Box::new(refusal), status))
            }
        }
    }
}
