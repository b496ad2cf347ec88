//! What is sent, to whom, and what comes back when it is worth relaying.

use super::super::budget::Share;
use super::super::force;
use super::super::silence::Silence;
use super::reluctant::is_refused;
use crate::table::Upstream;
use crate::upstream;
use bytes::Bytes;
use contract::table::CacheTtl;
use contract::usage::AttemptResult;
use http::response::Parts;
use llm::request::{Ask, Edits};
use std::collections::VecDeque;

/// What is sent, whoever gets it.
pub struct Exchange<'a> {
    /// The caller's head.
    pub head: &'a http::request::Parts,
    /// How the path is treated.
    pub route: &'a llm::dialect::Route<'a>,
    /// The caller's body, decompressed.
    pub body: &'a Bytes,
    /// Its members, if it is JSON.
    pub ask: Option<&'a Ask<'a>>,
    /// Whether usage must be asked for, because the caller did not.
    pub inject_usage: bool,
    /// How long the caller's key wants to be kept what is cached.
    pub cache_ttl: Option<CacheTtl>,
    /// Whether, and until when, the caller waits for the head of the answer.
    pub silence: &'a Silence,
}

impl Exchange<'_> {
    /// Whether the caller asked for a stream.
    pub fn is_streamed(&self) -> bool {
        self.ask.is_some_and(|ask| ask.stream)
    }
}

/// Who gets it.
pub struct Target<'a> {
    /// The provider.
    pub up: &'a Upstream,
    /// The model that it is asked for.
    pub model: &'a str,
    /// The attempt's span.
    pub span: &'a tracing::Span,
}

/// An answer that may go to the caller; the meter's scanner has seen what is held of it.
pub struct Answer {
    /// Status and headers.
    pub head: Parts,
    /// Frames read so far, already scanned.
    pub held: VecDeque<Bytes>,
    /// The room that they take, if it is much.
    pub share: Option<Share>,
    /// The rest.
    pub body: upstream::Body,
    /// Whether it is an event stream.
    pub events: bool,
    /// Whether its usage was asked for by us.
    pub usage_asked: bool,
    /// `Success` for a 2xx, `ClientError` for the caller's own fault.
    pub result: AttemptResult,
}

impl Answer {
    /// Whether it refuses what we put into the caller's request: strict upstreams take no member that they do not know.
    pub fn refuses_usage(&self, exchange: &Exchange<'_>) -> bool {
        self.usage_asked
            && matches!(self.head.status.as_u16(), 400 | 422)
            // The caller's own member may be what is refused.
            && exchange.ask.is_some_and(|ask| ask.stream_options().is_none())
            && is_refused(&self.held.iter().flatten().copied().collect::<Vec<u8>>())
    }
}

/// The body as this provider gets it.
pub fn outbound(exchange: &Exchange<'_>, up: &Upstream, model: &str, ask_usage: bool) -> Bytes {
    let Some(ask) = exchange.ask else { return exchange.body.clone() };
    let forced = force::members(up, exchange.route.kind, exchange.cache_ttl, ask, model);
    let edits = Edits { model: Some(model), include_usage: ask_usage, forced: &forced };
    llm::request::edit(exchange.body, ask, edits)
}
