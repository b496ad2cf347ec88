//! The steps of one request, in order. See walk 1 in ARCHITECTURE.md.

use super::attempt::Exchange;
use super::budget::Share;
use super::caller::authenticate;
use super::head::{client_ip, header};
use super::meter::Meter;
use super::opening::{Seen, opening, spoken};
use super::read::{allowed, may_reach, may_store, read, wants_websocket};
use super::refuse::Refusal;
use super::screen::looked_into;
use super::silence::{Beat, Silence};
use super::{Body, Proxy, inbound, models, respond};
use crate::clock::{Instant, now_ms};
use crate::telemetry::trace;
use bytes::Bytes;
use contract::table::WordScope;
use contract::usage::Outcome;
use http::request::Parts;
use http::{Request, Response};
use llm::dialect::{EndpointKind, Route};
use std::fmt::Display;
use std::net::SocketAddr;

impl Proxy {
    /// THE WALK.
    pub(super) async fn serve<B>(
        &self,
        request: Request<B>,
        peer: SocketAddr,
        silence: &Silence,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
    {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        if let Some(answer) = respond::local(&head) {
            return respond::to_stranger(answer);
        }
        let path = head.uri.path();
        let route = llm::dialect::route(head.method.as_str(), path, &|name| header(&head.headers, name));
        let dialect = match &route {
            Some(route) => route.dialect,
            None => llm::dialect::unrecognised(path, &|name| header(&head.headers, name)),
        };
        let answer = match route {
            _ if wants_websocket(&head) => Err(Refusal::Upgrade),
            None => {
                let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
                Err(Refusal::NoRoute { method, path })
            }
            Some(route) => self.routed(&head, body, route, Arrival { peer, started, silence }).await,
        };
        answer.unwrap_or_else(|refusal| {
            refusal.count(&self.shared.metrics);
            if silence.is_broken() {
                return refusal.event(dialect);
            }
            let answer = refusal.response(dialect);
            if refusal.is_of_stranger() { respond::to_stranger(answer) } else { answer }
        })
    }

    async fn routed<B>(
        &self,
        head: &Parts,
        body: B,
        route: Route<'_>,
        arrival: Arrival<'_>,
    ) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
    {
        let Arrival { peer, started, silence } = arrival;
        let table = self.shared.table.load_full();
        if table.generation.0 == 0 {
            return Err(Refusal::NotReady);
        }
        let now_ms = now_ms();
        let address = client_ip(&self.shared.config, head, peer);
        let caller =
            authenticate(&table, head, now_ms).map_err(|refusal| self.suspect(refusal, address, now_ms))?;
        if route.kind.is_local() {
            return Ok(models::answer(&self.lists, &table, &caller, head, &route));
        }
        may_reach(&table, &caller, head, &route)?;
        self.can_record()?;
        let mut share = Share::new(&self.shared.budget);
        let body = inbound::collect(&self.shared.config, &head.headers, body, &mut share).await?;
        let ask = read(head, &route, &body)?;
        allowed(&caller, head, &body, ask.as_ref())?;
        may_store(&table, &caller, &route, ask.as_ref())?;
        let opening =
            opening(head, &body, ask.as_ref(), Seen { route, caller, table, address, started, now_ms });
        let span = trace::request_span(head, opening.dialect, &opening.model);
        let mut meter = Box::new(Meter::new(&self.shared, &self.limiter, opening, span));
        let owner = meter.opening().caller.user.owner_id;
        let vendors = meter.opening().table.owner(owner).word_scope == WordScope::All;
        if let Some(words) = meter.opening().table.words(owner)
            && let Err(refusal) = Box::pin(looked_into(words, vendors, &body, ask.as_ref())).await
        {
            meter.blocked("sensitive_word", refusal.to_string());
            meter.finish(Outcome::Blocked, refusal.status().as_u16(), Some(refusal.to_string()));
            return Err(refusal);
        }
        let admitted = match self.admit(&mut meter, ask.as_ref()).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                meter.disarm();
                return Err(refusal);
            }
        };
        if self.shared.config.store_session_messages
            && let Some(spoken) = spoken(meter.opening(), &body)
        {
            self.shared.live.keep(spoken);
        }
        let inject_usage =
            ask.as_ref().is_some_and(|ask| reports_on_demand(&route) && ask.stream && !ask.include_usage);
        let cache_ttl = meter.opening().caller.key.cache_ttl;
        if let Some(every) = meter.keep_alive().filter(|_| route.kind.is_metered()) {
            silence.limit(Beat { dialect: route.dialect, id: meter.opening().id, every });
        }
        let exchange = Exchange {
            head,
            route: &route,
            body: &body,
            ask: ask.as_ref(),
            inject_usage,
            cache_ttl,
            silence,
        };
        let answer = match self.first_answer(&exchange, &mut meter, admitted).await {
            Ok(answer) => answer,
            Err(refusal) => {
                meter.finish(Outcome::Exhausted, refusal.status().as_u16(), Some(refusal.to_string()));
                return Err(refusal);
            }
        };
        drop(share);
        if silence.is_broken() && !answer.events {
            return Ok(respond::document_late(answer, meter));
        }
        Ok(respond::relay(answer, meter, &self.readers))
    }
}

/// Whether a stream reports its usage only if it is asked to. Who refuses to be asked is asked again without.
fn reports_on_demand(route: &Route<'_>) -> bool {
    route.kind == EndpointKind::ChatCompletions || route.kind.is_metered() && route.tail == "/completions"
}

/// Where from and when.
struct Arrival<'a> {
    peer: SocketAddr,
    started: Instant,
    silence: &'a Silence,
}
