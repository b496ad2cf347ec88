//! One attempt at one provider: URL, credentials, model → upstream → an answer that is worth relaying, or a
//! fault that says what to do next. Nothing has gone to the caller yet.

mod exchange;
mod fault;
mod hold;
mod nature;
mod patience;
mod reluctant;

use super::budget::Share;
use super::meter::Meter;
use super::{Proxy, force};
use crate::clock::Instant;
use crate::table::Upstream;
use crate::telemetry::trace;
use crate::upstream::{self, Stage};
use bytes::Bytes;
use contract::usage::AttemptResult;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue};
use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep_until;

use exchange::outbound;
pub use exchange::{Answer, Exchange, Target};
pub use fault::Fault;
use fault::refused;
use hold::hold;
use patience::{Late, Limits, Patience};

impl Proxy {
    /// One attempt. Cancel-safe: dropping it closes the upstream connection.
    pub(super) async fn attempt(
        &self,
        exchange: &Exchange<'_>,
        meter: &mut Meter,
        target: Target<'_>,
    ) -> Result<Answer, Fault> {
        let (now, limits) = (Instant::now(), self.limits(exchange, target.up));
        let first = [limits.first(now), exchange.silence.ends()].into_iter().flatten().min();
        let alarm = pin!(sleep_until(first.unwrap_or(now)));
        let mut patience = Patience::new(alarm, limits, exchange.silence, now);
        let account = meter.opening().caller.user.id;
        let known = || target.up.refuses_usage.holds(account, || meter.opening().now_ms());
        let ask_usage = exchange.inject_usage && !known();
        let answer = self.ask(exchange, meter, &mut patience, (&target, ask_usage)).await;
        if !answer.as_ref().is_ok_and(|answer| answer.refuses_usage(exchange)) {
            return answer;
        }
        let answer = Box::pin(self.ask(exchange, meter, &mut patience, (&target, false))).await;
        // If it says so again, it means the caller's own members.
        if answer.as_ref().is_ok_and(|answer| answer.result == AttemptResult::Success) {
            target.up.refuses_usage.learn(account, meter.opening().now_ms());
        }
        answer
    }

    /// Sends the request and reads what comes until it is known what it is.
    async fn ask(
        &self,
        exchange: &Exchange<'_>,
        meter: &mut Meter,
        patience: &mut Patience<'_>,
        (target, ask_usage): (&Target<'_>, bool),
    ) -> Result<Answer, Fault> {
        let Target { up, model, span } = *target;
        let body = outbound(exchange, up, model, ask_usage);
        let _copy = self.room_for_copy(exchange, &body)?;
        let mut ours = HeaderMap::new();
        trace::inject(span, &mut ours);
        force::flags(up, exchange, model, &mut ours);
        if exchange.ask.is_some_and(|ask| ask.mislabelled) {
            // Under its own label the upstream might read another model, or another prompt, out of it.
            ours.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = upstream::request(up, exchange.route, exchange.head, body, &ours)
            .map_err(|failure| Fault::unreachable(exchange, &failure))?;
        let request = if exchange.is_repeatable() { request } else { request.once() };
        let sent = {
            let sending = pin!(self.client.send_marking(up, request, Duration::ZERO, &*meter));
            patience.wait(sending).await
        };
        let response = match sent {
            Ok(sent) => {
                if upstream::was_sent_again(&sent) {
                    meter.sent_again();
                }
                sent.map_err(|failure| Fault::unreachable(exchange, &failure))?
            }
            Err(Late) => return Err(Fault::unreachable(exchange, &self.client.late(Stage::Head))),
        };
        let (mut head, mut body) = response.into_parts();
        if !head.status.is_success() {
            meter.is_not_with_upstream();
        }
        let read = exchange.route.kind.is_metered() || !head.status.is_success();
        if read && head.headers.contains_key(CONTENT_ENCODING) {
            body = unpacked(exchange, &mut head, body)?;
        }
        let waits = exchange.is_streamed() && head.status.is_success();
        if !waits {
            body.set_idle_timeout(self.idle_timeout(up));
        }
        match head.status.as_u16() {
            200..=299 => {
                let held = hold(exchange, &self.shared, meter, patience, (head, body)).await;
                let mut answer = held.map_err(|fault| fault.without(up))?;
                if waits {
                    // Only now: until there is content the patience decides.
                    answer.body.set_idle_timeout(self.idle_timeout(up));
                }
                answer.usage_asked = ask_usage;
                Ok(answer)
            }
            _ => {
                let patience = self.shared.config.error_body_timeout;
                let answer = Box::pin(refused(exchange, up, (head, body), patience)).await?;
                Ok(Answer { usage_asked: ask_usage, ..answer })
            }
        }
    }

    /// The room of a body that is another one than the caller's.
    fn room_for_copy(&self, exchange: &Exchange<'_>, body: &Bytes) -> Result<Option<Share>, Fault> {
        if body.as_ptr() == exchange.body.as_ptr() {
            return Ok(None);
        }
        let limit = self.shared.config.body_budget_bytes;
        Share::of_copy(&self.shared.budget, body.len(), limit).map_err(|_| Fault::crowded(exchange))
    }

    fn limits(&self, exchange: &Exchange<'_>, up: &Upstream) -> Limits {
        if exchange.is_streamed() {
            Limits::of_stream(&self.shared.config, up, exchange.route.dialect)
        } else {
            Limits::of_document(&self.shared.config, up)
        }
    }

    fn idle_timeout(&self, up: &Upstream) -> Duration {
        if up.row.idle_timeout.is_zero() { self.shared.config.idle_timeout } else { up.row.idle_timeout }
    }
}

/// A compressed answer, read and passed on uncompressed.
#[cold]
fn unpacked(
    exchange: &Exchange<'_>,
    head: &mut Parts,
    body: upstream::Body,
) -> Result<upstream::Body, Fault> {
    let encoding = head.headers.remove(CONTENT_ENCODING);
    let encoding = encoding.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
        return Ok(body);
    }
    head.headers.remove(CONTENT_LENGTH);
    let status = Some(head.status.as_u16());
    let unknown = || Fault::broken(exchange, status, "the answer is compressed in an unknown way");
    body.unpack(encoding).ok_or_else(unknown)
}
