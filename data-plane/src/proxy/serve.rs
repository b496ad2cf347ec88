//! The steps of one request, in order. See walk 1 in ARCHITECTURE.md.

use super::attempt::{Answer, Exchange, Fault, Target, Then};
use super::budget::Share;
use super::caller::{Caller, authenticate, header};
use super::choose::{Choice, Ground, Nothing, Trail, Wish};
use super::inbound;
use super::meter::{Meter, Opening, Running};
use super::refuse::Refusal;
use super::screen::screen;
use super::{Body, Proxy, models, respond};
use crate::config::Config;
use crate::limit;
use crate::live::Spoken;
use crate::store::Admission;
use crate::table::{Snapshot, Upstream, client_allowed};
use crate::telemetry::trace;
use bytes::Bytes;
use chrono::Timelike;
use contract::ids::{ProviderId, RequestId};
use contract::money::NanoUsd;
use contract::table::Measure;
use contract::usage::{AttemptResult, Outcome, SelectedBy};
use contract::window::now_ms;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use llm::dialect::{EndpointKind, Route};
use llm::request::Ask;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest User-Agent that is kept.
const MAX_USER_AGENT: usize = 256;
/// Longest name of a model; a record holds it once per attempt.
const MAX_MODEL: usize = 256;

impl Proxy {
    /// THE WALK.
    pub(super) async fn serve(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        if let Some(answer) = respond::local(&head) {
            return answer;
        }
        let path = head.uri.path();
        let route = llm::dialect::route(head.method.as_str(), path, &|name| header(&head.headers, name));
        let dialect = match &route {
            Some(route) => route.dialect,
            None => llm::dialect::unrecognised(path, &|name| header(&head.headers, name)),
        };
        let answer = match route {
            None => {
                let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
                Err(Refusal::NoRoute { method, path })
            }
            Some(route) => self.routed(&head, body, route, Arrival { peer, started }).await,
        };
        answer.unwrap_or_else(|refusal| {
            refusal.count(&self.shared.metrics);
            refusal.response(dialect)
        })
    }

    async fn routed(
        &self,
        head: &Parts,
        body: Incoming,
        route: Route<'_>,
        arrival: Arrival,
    ) -> Result<Response<Body>, Refusal> {
        let Arrival { peer, started } = arrival;
        let table = self.shared.table.load_full();
        if table.generation.0 == 0 {
            return Err(Refusal::NotReady);
        }
        let now_ms = now_ms();
        let address = client_ip(&self.shared.config, head, peer);
        let caller =
            authenticate(&table, head, now_ms).map_err(|refusal| self.suspect(refusal, address, now_ms))?;
        if route.kind.is_local() {
            return Ok(models::answer(&table, &caller, head, &route));
        }
        let mut share = Share::new(&self.shared.budget);
        let body = inbound::collect(&self.shared.config, &head.headers, body, &mut share).await?;
        let ask = read(head, &route, &body)?;
        allowed(&caller, head, ask.as_ref())?;
        let opening =
            opening(head, &body, ask.as_ref(), Seen { route, caller, table, address, started, now_ms });
        let span = trace::request_span(head, opening.dialect, &opening.model);
        let mut meter = Box::new(Meter::new(&self.shared, &self.limiter, opening, span));
        if let Some(words) = meter.opening().table.words(meter.opening().caller.user.owner_id)
            && let Err(refusal) = screen(words, &body)
        {
            meter.blocked("sensitive_word", refusal.to_string());
            meter.finish(Outcome::Blocked, refusal.status().as_u16(), Some(refusal.to_string()));
            return Err(refusal);
        }
        let bound = match self.admit(&mut meter, ask.as_ref()).await {
            Ok(bound) => bound,
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
        let inject_usage = ask.as_ref().is_some_and(|ask| {
            route.kind == EndpointKind::ChatCompletions && ask.stream && !ask.include_usage
        });
        let cache_ttl = meter.opening().caller.key.cache_ttl;
        let exchange =
            Exchange { head, route: &route, body: &body, ask: ask.as_ref(), inject_usage, cache_ttl };
        let answer = match self.first_answer(&exchange, &mut meter, bound).await {
            Ok(answer) => answer,
            Err(refusal) => {
                meter.finish(Outcome::Exhausted, refusal.status().as_u16(), Some(refusal.to_string()));
                return Err(refusal);
            }
        };
        drop(share);
        Ok(respond::relay(answer, meter, inject_usage))
    }

    /// An unknown key counts against its address. Known keys are served whatever others behind the same address
    /// (a balancer's, an office's) try.
    fn suspect(&self, refusal: Refusal, address: IpAddr, now_ms: i64) -> Refusal {
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
    async fn admit(&self, meter: &mut Meter, ask: Option<&Ask<'_>>) -> Result<Option<ProviderId>, Refusal> {
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

    /// Provider after provider until one answers. Only before the first byte goes to the caller.
    async fn first_answer(
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

/// The members that a gateway must see. Bodies that are not JSON (uploads) pass unread.
fn read<'a>(head: &Parts, route: &Route<'_>, body: &'a Bytes) -> Result<Option<Ask<'a>>, Refusal> {
    let json = header(&head.headers, "content-type").is_none_or(|kind| kind.contains("json"));
    if body.is_empty() && !route.kind.needs_model() {
        return Ok(None);
    }
    // What is metered is read whatever it calls itself: an upstream may read it, too.
    let read = json || route.kind.is_metered() && body.trim_ascii_start().starts_with(b"{");
    if !read && !route.kind.needs_model() {
        return Ok(None);
    }
    let ask = llm::request::parse(body).map_err(|error| Refusal::BodyInvalid(error.to_string()))?;
    if route.kind.needs_model() && ask.model.as_deref().is_none_or(str::is_empty) {
        return Err(Refusal::BodyInvalid("`model` is missing in the request body".to_owned()));
    }
    if ask.model.as_deref().is_some_and(|model| model.len() > MAX_MODEL) {
        return Err(Refusal::BodyInvalid(format!("`model` is longer than {MAX_MODEL} bytes")));
    }
    Ok(Some(ask))
}

fn allowed(caller: &Caller, head: &Parts, ask: Option<&Ask<'_>>) -> Result<(), Refusal> {
    let user = &caller.user;
    if let Some(model) = ask.and_then(|ask| ask.model.as_deref()) {
        let models = &user.allowed_models;
        if !models.is_empty() && !models.iter().any(|allowed| allowed.eq_ignore_ascii_case(model)) {
            return Err(Refusal::ModelNotAllowed(model.to_owned()));
        }
    }
    let agent = header(&head.headers, "user-agent").unwrap_or_default();
    let fine = client_allowed(&user.allowed_clients, &user.blocked_clients, agent);
    if fine { Ok(()) } else { Err(Refusal::ClientNotAllowed) }
}

/// What is said in a conversation.
fn spoken(opening: &Opening, body: &Bytes) -> Option<Spoken> {
    let user = &opening.caller.user;
    let session = Arc::clone(opening.session.as_ref()?);
    Some(Spoken { owner: user.owner_id, user: user.id, session, body: body.clone() })
}

/// Where from and when.
struct Arrival {
    peer: SocketAddr,
    started: Instant,
}

struct Seen<'a> {
    route: Route<'a>,
    caller: Caller,
    table: Arc<Snapshot>,
    address: IpAddr,
    started: Instant,
    now_ms: i64,
}

fn opening(head: &Parts, body: &Bytes, ask: Option<&Ask<'_>>, seen: Seen<'_>) -> Opening {
    let Seen { route, caller, table, address, started, now_ms } = seen;
    let key = caller.key.id.0;
    let session = ask
        .filter(|_| route.kind.has_session())
        .and_then(|ask| llm::session::session_id(ask, &|name| header(&head.headers, name), body, key))
        .map(|id| Arc::from(id.as_str()));
    let user_agent = header(&head.headers, "user-agent").map(|agent| {
        let end = agent.floor_char_boundary(MAX_USER_AGENT.min(agent.len()));
        agent[..end].to_owned()
    });
    Opening {
        id: RequestId::new(now_ms, rand::random()),
        started_at_ms: now_ms,
        started,
        caller,
        table,
        dialect: route.dialect,
        kind: route.kind,
        endpoint: head.uri.path().to_owned(),
        model: ask.and_then(|ask| ask.model.as_deref()).unwrap_or_default().to_owned(),
        streamed: ask.is_some_and(|ask| ask.stream),
        session,
        user_agent,
        client_ip: ip_text(address),
        request_bytes: body.len() as u64,
        messages_count: ask.map_or(0, |ask| ask.messages_count),
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

/// The address in text. The common kind by hand: the library's formatter costs as much as a lookup in the table.
fn ip_text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity(15);
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

/// The caller's address: the connection's, or behind a load balancer that is trusted the one that it saw,
/// the last of `X-Forwarded-For` (the earlier ones are whatever the caller wrote).
fn client_ip(config: &Config, head: &Parts, peer: SocketAddr) -> IpAddr {
    let last = || head.headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok();
    let forwarded = || last()?.rsplit(',').next()?.trim().parse().ok();
    if config.trust_forwarded_for { forwarded().unwrap_or(peer.ip()) } else { peer.ip() }
}
