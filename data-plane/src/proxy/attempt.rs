//! One attempt at one provider: URL, credentials, model → upstream → an answer that is worth relaying, or a
//! fault that says what to do next. Nothing has gone to the caller yet.

mod exchange;
mod fault;
mod hold;

use super::meter::Meter;
use super::{Proxy, force};
use crate::table::Upstream;
use crate::telemetry::trace;
use crate::upstream;
use http::HeaderMap;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

use exchange::outbound;
pub use exchange::{Answer, Exchange, Target};
pub use fault::{Fault, Then};
use fault::{fault, refusal};
use hold::hold;

impl Proxy {
    /// One attempt. Cancel-safe: dropping it closes the upstream connection.
    pub(super) async fn attempt(
        &self,
        exchange: &Exchange<'_>,
        meter: &mut Meter,
        target: Target<'_>,
    ) -> Result<Answer, Fault> {
        let Target { up, model, span } = target;
        let body = outbound(exchange, up, model);
        let mut ours = HeaderMap::new();
        trace::inject(span, &mut ours);
        force::flags(up, exchange, model, &mut ours);
        let request = upstream::request(up, exchange.route, exchange.head, body, &ours)
            .map_err(|failure| Fault::unreachable(&failure))?;
        let streamed = exchange.ask.is_some_and(|ask| ask.stream);
        let limit = self.head_timeout(up, streamed);
        // Zero: no limit.
        let deadline = Instant::now().checked_add(limit).filter(|_| !limit.is_zero());
        let sent = self.client.send_marking(up, request, limit, meter.is_with_upstream()).await;
        let (head, mut body) = sent.map_err(|failure| Fault::unreachable(&failure))?.into_parts();
        if !head.status.is_success() {
            meter.is_with_upstream().set(false);
        }
        body.set_idle_timeout(self.idle_timeout(up));
        match head.status.as_u16() {
            200..=299 => {
                let held = hold(exchange, &self.shared, meter, (head, body));
                let answer = match deadline {
                    Some(deadline) => timeout_at(deadline, held)
                        .await
                        .unwrap_or_else(|_| Err(Fault::broken(Some(200), "no content before the timeout"))),
                    None => held.await,
                };
                answer.map_err(|fault| fault.without(up))
            }
            // The caller's fault: the answer is the caller's, whoever would be asked.
            400 | 405..=407 | 409..=428 | 430..=499 => Ok(Box::pin(refusal(up, head, body)).await),
            status => Err(Box::pin(fault(up, status, &head, body)).await),
        }
    }

    fn head_timeout(&self, up: &Upstream, streamed: bool) -> Duration {
        let config = &self.shared.config;
        let (own, default) = if streamed {
            (up.row.first_byte_timeout, config.first_byte_timeout)
        } else {
            (up.row.total_timeout, config.total_timeout)
        };
        if own.is_zero() { default } else { own }
    }

    fn idle_timeout(&self, up: &Upstream) -> Duration {
        if up.row.idle_timeout.is_zero() { self.shared.config.idle_timeout } else { up.row.idle_timeout }
    }
}
