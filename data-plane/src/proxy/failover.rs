//! Provider after provider until one answers. Only before the first byte goes to the caller.

use super::Proxy;
use super::attempt::{Answer, Exchange, Fault, Target, Then};
use super::choose::{Choice, Nothing, Trail};
use super::meter::{Meter, Running};
use super::refuse::Refusal;
use super::seats::{Admitted, First};
use crate::clock::{Instant, now_ms};
use crate::telemetry::trace;
use contract::ids::ProviderId;
use contract::usage::{AttemptResult, SelectedBy};
use std::time::Duration;

impl Proxy {
    /// Provider after provider until one answers. Only before the first byte goes to the caller.
    pub(super) async fn first_answer(
        &self,
        exchange: &Exchange<'_>,
        meter: &mut Meter,
        admitted: Admitted,
    ) -> Result<Answer, Refusal> {
        let Admitted { bound, mut trail, mut first } = admitted;
        let mut last: Option<Fault> = None;
        let mut only_unknown = true;
        loop {
            if trail.len() >= self.shared.config.max_providers_per_request as usize
                || meter.opening().started.elapsed() >= self.shared.config.failover_timeout
            {
                return Err(unavailable(Nothing::Tried, last, only_unknown));
            }
            let choice = match std::mem::replace(&mut first, First::Choose) {
                First::At(choice) => Ok(choice),
                First::Choose => self.choose(meter, &mut trail, bound).await,
                First::Nobody => Err(Nothing::AtLimit),
            };
            let choice = match choice {
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

    async fn choose(
        &self,
        meter: &mut Meter,
        trail: &mut Trail,
        bound: Option<ProviderId>,
    ) -> Result<Choice, Nothing> {
        let opening = meter.opening();
        let table = &*opening.table;
        let ground = self.ground(table, opening);
        if Self::is_limited(&ground) {
            return Box::pin(self.choose_in_line(meter, trail, bound)).await;
        }
        trail.next(&ground, &Self::wish(table, opening, bound))
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
