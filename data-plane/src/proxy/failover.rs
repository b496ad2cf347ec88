//! Provider after provider until one answers. Only before the first byte goes to the caller.

use super::Proxy;
use super::attempt::{Answer, Exchange, Fault, Target, Then};
use super::choose::{Choice, Ground, Nothing, Trail, Wish};
use super::meter::{Meter, Running};
use super::opening::Opening;
use super::refuse::Refusal;
use crate::clock::{Instant, now_ms};
use crate::table::{Snapshot, Upstream};
use crate::telemetry::trace;
use chrono::Timelike;
use contract::ids::ProviderId;
use contract::money::NanoUsd;
use contract::table::Measure;
use contract::usage::{AttemptResult, SelectedBy};
use std::sync::Arc;
use std::time::Duration;

impl Proxy {
    /// Provider after provider until one answers. Only before the first byte goes to the caller.
    pub(super) async fn first_answer(
        &self,
        exchange: &Exchange<'_>,
        meter: &mut Meter,
        bound: Option<ProviderId>,
    ) -> Result<Answer, Refusal> {
        let table = Arc::clone(&meter.opening().table);
        let mut trail = Trail::default();
        let mut last: Option<Fault> = None;
        let mut only_unknown = true;
        loop {
            if trail.len() >= self.shared.config.max_providers_per_request as usize
                || meter.opening().started.elapsed() >= self.shared.config.failover_timeout
            {
                return Err(unavailable(Nothing::Tried, last, only_unknown));
            }
            let choice = match self.choose(&table, meter.opening(), &mut trail, bound) {
                Ok(choice) => choice,
                Err(nothing) => return Err(unavailable(nothing, last, only_unknown)),
            };
            match self.try_provider(exchange, meter, &choice).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => {
                    only_unknown &= fault.result == AttemptResult::NotFound;
                    last = Some(fault);
                }
            }
        }
    }

    fn choose(
        &self,
        table: &Snapshot,
        opening: &Opening,
        trail: &mut Trail,
        bound: Option<ProviderId>,
    ) -> Result<Choice, Nothing> {
        let owner = opening.caller.user.owner_id;
        let now_ms = opening.now_ms();
        let wish = Wish {
            groups: opening.caller.groups(),
            model: Some(opening.model.as_str()).filter(|model| !model.is_empty()),
            agent: opening.user_agent.as_deref().unwrap_or_default(),
            bound,
            minute: minute_of_day(now_ms, table.owner(owner).time_zone),
            now_ms,
        };
        let zone = table.owner(owner).time_zone;
        let ground = Ground {
            pool: table.upstreams(owner, opening.dialect),
            health: &self.shared.health,
            rotation: &self.shared.rotation,
        };
        let over = |up: &Upstream| match self.limiter.provider_load(&up.row, zone, now_ms) {
            None => false,
            // Full of sessions, it still serves those that it has.
            Some(Measure::Sessions) => bound != Some(up.row.id),
            Some(Measure::Requests | Measure::Usd) => true,
        };
        trail.next(&ground, &wish, over)
    }

    /// Counts the request at a provider that limits its own requests or sessions.
    fn began(&self, opening: &Opening, up: &Upstream) {
        let claim = opening.claim(&[], NanoUsd(0), self.shared.config.session_ttl);
        self.limiter.provider_began(&claim, &up.row, opening.table.owner(up.row.owner_id).time_zone);
    }

    /// All attempts at one provider.
    async fn try_provider(
        &self,
        exchange: &Exchange<'_>,
        meter: &mut Meter,
        choice: &Choice,
    ) -> Result<Answer, Fault> {
        let config = &self.shared.config;
        let up = &choice.upstream;
        let asked = meter.opening().model.clone();
        let model = up.redirect(&asked).to_owned();
        let tries = up.row.max_attempts.unwrap_or(config.max_attempts_per_provider).max(1);
        meter.trying(up, &model);
        self.began(meter.opening(), up);
        for left in (0..tries).rev() {
            let running = Running {
                selected_by: choice.by,
                started_at_ms: meter.opening().now_ms(),
                began: Instant::now(),
            };
            meter.running(running);
            let span = trace::attempt_span(meter.span(), up, &model);
            let outcome = self.attempt(exchange, meter, Target { up, model: &model, span: &span }).await;
            let (mut result, status, detail) = match &outcome {
                Ok(answer) => (answer.result, Some(answer.head.status.as_u16()), String::new()),
                Err(fault) => (fault.result, fault.status, fault.detail.clone()),
            };
            if result == AttemptResult::Success && meter.attempts() > 0 {
                result = AttemptResult::RetrySuccess;
            }
            trace::finish_attempt(&span, status, &detail);
            self.shared.metrics.attempted(up.row.kind, result);
            meter.tried(result, status, detail);
            let fault = match outcome {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            meter.failed();
            let again = fault.then == Then::Again
                && left > 0
                && choice.by != SelectedBy::LastResort
                && meter.opening().started.elapsed() + config.retry_pause < config.failover_timeout;
            if !again {
                self.shared.health.record(up, &fault.verdict, now_ms());
                return Err(fault);
            }
            tokio::time::sleep(config.retry_pause).await;
        }
        unreachable!("the last turn of the loop returns")
    }
}

fn unavailable(nothing: Nothing, last: Option<Fault>, only_unknown: bool) -> Refusal {
    if let Some(fault) = last {
        if only_unknown {
            return Refusal::UnknownUpstream(fault.detail);
        }
        let text = format!("no provider could serve the request; the last one said: {}", fault.detail);
        return Refusal::Unavailable {
            class: "all_providers_failed",
            text,
            retry_after: Some(Duration::from_secs(1)),
        };
    }
    let (class, text) = match nothing {
        Nothing::NoProvider | Nothing::Tried => {
            ("no_available_providers", "no provider of your groups serves this model")
        }
        Nothing::Asleep { .. } => {
            ("circuit_breaker_open", "all providers for this model are resting after failures")
        }
        Nothing::AtLimit => ("rate_limit_exceeded", "all providers for this model are at their limits"),
    };
    let retry_after = match nothing {
        Nothing::Asleep { until_ms: Some(until) } => {
            Some(Duration::from_millis(u64::try_from(until - now_ms()).unwrap_or(0)))
        }
        _ => None,
    };
    Refusal::Unavailable { class, text: text.to_owned(), retry_after }
}

fn minute_of_day(now_ms: i64, zone: chrono_tz::Tz) -> u16 {
    let now = chrono::DateTime::from_timestamp_millis(now_ms).unwrap_or_default().with_timezone(&zone);
    u16::try_from(now.hour() * 60 + now.minute()).unwrap_or(0)
}
