//! Providers that have limits of their own: who is asked for room, in which order, and what is held there. Where
//! none of a caller's providers has any, nothing of this runs.

use super::Proxy;
use super::choose::line::Line;
use super::choose::{Choice, Ground, Nothing, Trail, Wish};
use super::meter::Meter;
use super::opening::Opening;
use super::price;
use super::refuse::Refusal;
use super::respond;
use crate::limit::{self, Counter};
use crate::store::{self, Admission, Ask, Candidate};
use crate::table::Snapshot;
use chrono::Timelike;
use contract::ids::ProviderId;

/// A request that may be served.
pub(super) struct Admitted {
    /// The provider that served its session last.
    pub(super) bound: Option<ProviderId>,
    /// Whom it has tried.
    pub(super) trail: Trail,
    /// Whom it tries first.
    pub(super) first: First,
}

/// Who is tried first.
pub(super) enum First {
    /// Not known yet.
    Choose,
    /// It has room there.
    At(Choice),
    /// Nobody has room.
    Nobody,
}

impl Proxy {
    /// What a choice is made from.
    pub(super) fn ground<'a>(&'a self, table: &'a Snapshot, opening: &Opening) -> Ground<'a> {
        Ground {
            pool: table.upstreams(opening.caller.user.owner_id, opening.dialect),
            health: &self.shared.health,
            rotation: &self.shared.rotation,
        }
    }

    /// What the request wants.
    pub(super) fn wish<'a>(table: &Snapshot, opening: &'a Opening, bound: Option<ProviderId>) -> Wish<'a> {
        let now_ms = opening.now_ms();
        Wish {
            groups: opening.caller.groups(),
            kind: opening.kind,
            model: Some(opening.model.as_str()).filter(|model| !model.is_empty()),
            agent: opening.user_agent.as_deref().unwrap_or_default(),
            bound,
            minute: minute_of_day(now_ms, table.owner(opening.caller.user.owner_id).time_zone),
            now_ms,
        }
    }

    /// Whether room has to be asked for.
    pub(super) fn is_limited(ground: &Ground<'_>) -> bool {
        ground.pool.iter().any(|up| !up.row.limits.is_empty())
    }

    /// The caller's limits and the first provider's that has room, at once.
    #[cold]
    pub(super) async fn admit_in_line(&self, meter: &mut Meter) -> Result<Admitted, Refusal> {
        let table = std::sync::Arc::clone(&meter.opening().table);
        let mut trail = Trail::default();
        let opening = meter.opening();
        let ground = self.ground(&table, opening);
        let line = trail.line(&ground, &Self::wish(&table, opening, None)).ok();
        let candidates = line.as_ref().map(|line| self.candidates(&table, meter, line)).unwrap_or_default();
        let complete = line.as_ref().is_some_and(|line| line.complete);
        let asked = store::Line { candidates: &candidates, complete };
        let (bound, place) = match self.limiter.reserve(&self.claim(meter), asked).await {
            Admission::Admitted { bound, place, fresh } => {
                trail.brought_session = fresh;
                (bound, place)
            }
            Admission::Refused(refusal) => return Err(self.limited(refusal)),
            Admission::Full => {
                meter.took_nothing();
                return Ok(Admitted { bound: None, trail, first: First::Nobody });
            }
        };
        let mut first = First::Choose;
        if let (Some(line), Some(place)) = (line, place) {
            meter.holds(place.hold);
            // Beyond those that were asked may be the one to which the session is bound.
            let is_elsewhere = bound.is_some_and(|id| !line.has(id)) && !line.complete;
            let wish = Self::wish(&table, meter.opening(), bound);
            if !is_elsewhere && let Some(choice) = trail.taken(line, place.index, &ground, &wish) {
                first = First::At(choice);
            }
        }
        Ok(Admitted { bound, trail, first })
    }

    /// The next provider that has room. What the request holds at the one before is given back in the same step.
    #[cold]
    pub(super) async fn choose_in_line(
        &self,
        meter: &mut Meter,
        trail: &mut Trail,
        bound: Option<ProviderId>,
    ) -> Result<Choice, Nothing> {
        let table = std::sync::Arc::clone(&meter.opening().table);
        loop {
            let ground = self.ground(&table, meter.opening());
            let line = trail.line(&ground, &Self::wish(&table, meter.opening(), bound));
            if matches!(line, Err(Nothing::AtLimit)) {
                // Nothing was sent to anybody.
                self.limiter.withdraw(&self.claim(meter), trail.brought_session);
                meter.took_nothing();
            }
            let line = line?;
            let candidates = self.candidates(&table, meter, &line);
            let asked = store::Line { candidates: &candidates, complete: line.complete };
            let left = meter.leaves();
            match self.limiter.switch(&self.claim(meter), left, asked).await {
                Some(place) => {
                    meter.holds(place.hold);
                    let wish = Self::wish(&table, meter.opening(), bound);
                    if let Some(choice) = trail.taken(line, place.index, &ground, &wish) {
                        return Ok(choice);
                    }
                }
                None => trail.pass(&line),
            }
        }
    }

    fn candidates(&self, table: &Snapshot, meter: &Meter, line: &Line<'_>) -> Vec<Candidate> {
        let opening = meter.opening();
        let zone = table.owner(opening.caller.user.owner_id).time_zone;
        let candidate = |(up, reusable): (&std::sync::Arc<crate::table::Upstream>, bool)| {
            let counters = self.plans.provider(&up.row, zone, opening.started_at_ms);
            let is_money = counters.iter().any(Counter::is_money);
            let expected = || limit::scaled(meter.expected(), up.row.cost_multiplier);
            let estimate = if is_money { expected() } else { contract::money::NanoUsd(0) };
            Candidate { provider: up.row.id, counters, estimate, reusable }
        };
        line.spots().map(candidate).collect()
    }

    /// What the limiter is asked for this request.
    pub(super) fn claim<'a>(&self, meter: &'a Meter) -> Ask<'a> {
        let estimate = price::at_dearest(meter.opening(), meter.expected());
        meter.opening().claim(meter.counters(), estimate, self.shared.config.session_ttl)
    }

    pub(super) fn limited(&self, refusal: store::Refusal) -> Refusal {
        let status = respond::limit_status(&self.shared.config, refusal.measure);
        Refusal::Limited(Box::new(refusal), status)
    }
}

fn minute_of_day(now_ms: i64, zone: chrono_tz::Tz) -> u16 {
    let now = chrono::DateTime::from_timestamp_millis(now_ms).unwrap_or_default().with_timezone(&zone);
    u16::try_from(now.hour() * 60 + now.minute()).unwrap_or(0)
}
