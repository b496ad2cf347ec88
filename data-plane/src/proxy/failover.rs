//! Provider after provider until one answers. Only before the first byte goes to the caller.

use super::Proxy;
use super::attempt::{Answer, Exchange, Fault, Target};
use super::choose::{Choice, Nothing, Trail, eligible};
use super::meter::{Meter, Running};
use super::opening::Opening;
use super::refuse::Refusal;
use super::scrub::{self, Known};
use super::seats::{Admitted, First};
use crate::clock::{Instant, now_ms};
use crate::health::Gate;
use crate::health::fault::{Then, Whose};
use crate::table::{Snapshot, Upstream};
use crate::telemetry::trace;
use contract::ids::ProviderId;
use contract::usage::{AttemptResult, SelectedBy, Skipped};
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;

/// When it makes sense to ask again where no provider serves the model at all: a person, or the time of day, must
/// change that.
const NO_PROVIDER_RETRY: Duration = Duration::from_secs(60);
/// The shortest pause that a caller is told.
const LEAST_RETRY: Duration = Duration::from_secs(1);

impl Proxy {
    /// Provider after provider until one answers. Only before the first byte goes to the caller.
    pub(super) async fn first_answer(
        &self,
        exchange: &Exchange<'_>,
        meter: &mut Meter,
        admitted: Admitted,
    ) -> Result<Answer, Refusal> {
        let Admitted { bound, mut trail, mut first } = admitted;
        let opening = meter.opening();
        self.shared.health.sends(opening.caller.user.id, opening.started_at_ms);
        let mut last: Option<(Fault, Arc<Upstream>)> = None;
        let mut only_unknown = true;
        let nothing = loop {
            if trail.len() >= self.shared.config.max_providers_per_request as usize
                || meter.attempts() >= self.shared.config.max_attempts_per_request
                // The first attempt is made however long the body took.
                || meter.attempts() > 0
                    && meter.opening().started.elapsed() >= self.shared.config.failover_timeout
            {
                break Nothing::Tried;
            }
            let choice = match std::mem::replace(&mut first, First::Choose) {
                First::At(choice) => Ok(choice),
                First::Choose => self.choose(meter, &mut trail, bound).await,
                First::Nobody => Err(Nothing::AtLimit),
            };
            if trail.is_telling() || choice.is_err() {
                let nothing = choice.as_ref().err().copied();
                meter.skips(|opening| self.skipped(&trail, opening, bound, nothing));
            }
            let choice = match choice {
                Ok(choice) => choice,
                Err(nothing) => break nothing,
            };
            match self.try_provider(exchange, meter, &choice).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => {
                    only_unknown &= fault.result == AttemptResult::NotFound;
                    let ends = fault.judged.then == Then::Return;
                    last = Some((fault, choice.upstream));
                    if ends {
                        break Nothing::Tried;
                    }
                }
            }
        };
        let wakes_in = self.wakes_in(&meter.opening().table, meter.opening(), bound);
        Err(unavailable(nothing, last, only_unknown, wakes_in))
    }

    /// When the first of all candidates may be asked again; a moment, if one is awake.
    #[cold]
    fn wakes_in(&self, table: &Snapshot, opening: &Opening, bound: Option<ProviderId>) -> Duration {
        let wish = Self::wish(table, opening, bound);
        let ground = self.ground(table, opening);
        let able = ground.pool.iter().filter(|up| eligible(up, &wish));
        let wakes = able.filter_map(|up| match ground.health.peek(up.row.id, wish.now_ms) {
            Gate::Asleep { until_ms } => until_ms,
            Gate::Open | Gate::Trial => Some(wish.now_ms),
        });
        let left = wakes.min().map_or(NO_PROVIDER_RETRY, |until| {
            Duration::from_millis(u64::try_from(until - wish.now_ms).unwrap_or(0))
        });
        left.max(LEAST_RETRY)
    }

    /// Who was not asked, and why.
    #[cold]
    fn skipped(
        &self,
        trail: &Trail,
        opening: &Opening,
        bound: Option<ProviderId>,
        nothing: Option<Nothing>,
    ) -> Vec<Skipped> {
        let table = &*opening.table;
        trail.skipped(&self.ground(table, opening), &Self::wish(table, opening, bound), nothing)
    }

    /// What the provider's health hears of a fault, and how long it is left out of the choice for such calls.
    #[cold]
    fn tell(&self, choice: &Choice, fault: &Fault, opening: &Opening) {
        let (health, up, now_ms) = (&self.shared.health, &choice.upstream, now_ms());
        health.record(up, choice.pass, (&fault.judged.verdict, opening.caller.user.id), now_ms);
        if let Some(rest) = fault.judged.rest {
            let until_ms = now_ms + i64::try_from(rest.as_millis()).unwrap_or_default();
            health.rest(up.row.id, (opening.kind, &opening.model), now_ms, until_ms);
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
        meter.trying(up, &model, choice.pass);
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
            let again = fault.judged.then == Then::Again
                && left > 0
                && meter.attempts() < config.max_attempts_per_request
                && choice.by != SelectedBy::LastResort
                && meter.opening().started.elapsed() + config.retry_pause < config.failover_timeout;
            if !again {
                self.tell(choice, &fault, meter.opening());
                return Err(fault);
            }
            tokio::time::sleep(config.retry_pause).await;
        }
        unreachable!("the last turn of the loop returns")
    }
}

fn unavailable(
    nothing: Nothing,
    last: Option<(Fault, Arc<Upstream>)>,
    only_unknown: bool,
    wakes_in: Duration,
) -> Refusal {
    if let Some((mut fault, up)) = last {
        // The trail has all of it.
        fault.detail = scrub::for_callers(&fault.detail, &Known::of(&up)).into_owned();
        let ends = fault.judged.then == Then::Return;
        if only_unknown && !ends {
            return Refusal::UnknownUpstream(fault.detail);
        }
        if fault.judged.whose == Whose::Caller || ends {
            return told(fault);
        }
        let text = format!("no provider could serve the request; the last one said: {}", fault.detail);
        return Refusal::Unavailable { class: "all_providers_failed", text, retry_after: Some(wakes_in) };
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
    Refusal::Unavailable { class, text: text.to_owned(), retry_after: Some(wakes_in) }
}

/// A fault that ends the request: the caller's own in the guise of another, or one of a call that is not sent twice.
fn told(fault: Fault) -> Refusal {
    let status = match (fault.judged.whose, fault.judged.meant) {
        (Whose::Caller, 500..) => 400,
        // Not the caller's credential is refused here.
        (Whose::Credential, _) | (Whose::Model, 401..=403) => 502,
        (_, status) => status,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    Refusal::Upstream { status, code: fault.code, text: fault.detail }
}
