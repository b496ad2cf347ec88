//! What is known of a request before any provider is asked.

use super::caller::Caller;
use super::head::{headers, ip_text};
use crate::bill::Classes;
use crate::clock::Instant;
use crate::limit::Counters;
use crate::live::{Open, Spoken};
use crate::spool::Entry;
use crate::store::{Ask as Claim, Home};
use crate::table::Snapshot;
use bytes::Bytes;
use contract::ids::{ProviderId, RequestId};
use contract::money::NanoUsd;
use contract::usage::Dialect;
use http::request::Parts;
use llm::EndpointKind;
use llm::dialect::Route;
use llm::request::Ask;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longest User-Agent that is kept.
const MAX_USER_AGENT: usize = 256;

/// The caller's program, and what may name the conversation.
const NAMES: [&str; 5] = {
    let [first, second, third, fourth] = llm::session::HEADERS;
    ["user-agent", first, second, third, fourth]
};

/// What is known of a request before any provider is asked.
pub struct Opening {
    /// Identity of the record.
    pub id: RequestId,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    /// The same instant, for durations.
    pub started: Instant,
    /// Who calls.
    pub caller: Caller,
    /// The table that the request is pinned to.
    pub table: Arc<Snapshot>,
    /// Caller's protocol.
    pub dialect: Dialect,
    /// How the path is treated.
    pub kind: EndpointKind,
    /// Path without query.
    pub endpoint: String,
    /// Asked for; empty where the path names none.
    pub model: String,
    /// Whether the body names models to fall back to.
    pub falls_back: bool,
    /// Whether the caller wants a stream.
    pub streamed: bool,
    /// Whether the caller wants fast mode.
    pub fast: bool,
    /// Conversation.
    pub session: Option<Arc<str>>,
    /// Caller's program.
    pub user_agent: Option<String>,
    /// Caller's address.
    pub client_ip: String,
    /// Body bytes read.
    pub request_bytes: u64,
    /// The same, files of a form counted for as much text as they are input.
    pub input_bytes: u64,
    /// Items of the conversation.
    pub messages_count: u32,
}

impl Opening {
    /// Unix milliseconds, by the monotonic clock since the request's start.
    pub fn now_ms(&self) -> i64 {
        self.started_at_ms + i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// What people see of it while it is open.
    pub fn open(&self) -> Option<Open> {
        Some(Open {
            owner: self.caller.user.owner_id,
            user: self.caller.user.id,
            key: self.caller.key.id,
            provider: None,
            session: Arc::clone(self.session.as_ref()?),
            model: self.model.clone(),
            dialect: self.dialect.as_str(),
            started_at_ms: self.started_at_ms,
        })
    }

    /// Where the counters lie.
    pub fn home(&self) -> Home {
        let owner = self.caller.user.owner_id;
        Home { owner, naming: self.table.owner(owner).counter_naming }
    }

    /// What is kept of it in case that this process is killed.
    pub fn entry<'a>(&'a self, provider: ProviderId, model: &'a str, state: State) -> Entry<'a> {
        Entry {
            id: self.id,
            started_at_ms: self.started_at_ms,
            owner: self.caller.user.owner_id,
            user: self.caller.user.id,
            key: self.caller.key.id,
            provider,
            generation: self.table.generation,
            request_bytes: self.request_bytes,
            input_bytes: self.input_bytes,
            classes: state.classes.to_bits(),
            messages: self.messages_count,
            dialect: self.dialect,
            streamed: self.streamed,
            metered: self.kind.is_metered(),
            sent: state.sent,
            fast: self.fast,
            model: Cow::Borrowed(&self.model),
            session: Cow::Borrowed(self.session.as_deref().unwrap_or_default()),
            endpoint: Cow::Borrowed(&self.endpoint),
            upstream_model: Cow::Borrowed(if model == self.model { "" } else { model }),
            client_ip: Cow::Borrowed(&self.client_ip),
            user_agent: Cow::Borrowed(self.user_agent.as_deref().unwrap_or_default()),
        }
    }

    /// What the limiter is asked for this request.
    pub fn claim<'a>(
        &'a self,
        counters: &'a Counters,
        estimate: NanoUsd,
        session_ttl: Duration,
    ) -> Claim<'a> {
        Claim {
            request: self.id,
            home: self.home(),
            user: self.caller.user.id,
            // Not when it began: its body may have taken a while, and slices of limits end meanwhile.
            now_ms: self.now_ms(),
            counters,
            estimate,
            session: self.session.as_ref(),
            session_ttl,
        }
    }
}

/// What of a request that is under way decides what it costs if this process is killed.
#[derive(Clone, Copy)]
pub struct State {
    /// Whether the upstream has it.
    pub sent: bool,
    /// In which price classes the input of its conversation's last answer lay.
    pub classes: Classes,
}

/// What the walk has found out when a request is opened.
pub struct Seen<'a> {
    /// How the path is treated.
    pub route: Route<'a>,
    /// Who calls.
    pub caller: Caller,
    /// The table that the request is pinned to.
    pub table: Arc<Snapshot>,
    /// The caller's address.
    pub address: IpAddr,
    /// When the request began.
    pub started: Instant,
    /// The same instant, Unix milliseconds.
    pub now_ms: i64,
}

/// Opens a request: everything that its record and its claims need.
pub fn opening(head: &Parts, body: &Bytes, ask: Option<&Ask<'_>>, seen: Seen<'_>) -> Opening {
    let Seen { route, caller, table, address, started, now_ms } = seen;
    let key = caller.key.id.0;
    let [agent, ids @ ..] = headers(&head.headers, NAMES);
    let session = ask
        .filter(|_| route.kind.has_session())
        .and_then(|ask| llm::session::session_id(ask, ids, body, key))
        .map(|id| Arc::from(id.as_str()));
    let user_agent = agent.map(|agent| {
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
        falls_back: ask.is_some_and(Ask::has_other_models),
        streamed: ask.is_some_and(|ask| ask.stream),
        fast: route.dialect == Dialect::Anthropic && ask.is_some_and(|ask| ask.fast),
        session,
        user_agent,
        client_ip: ip_text(address),
        request_bytes: body.len() as u64,
        input_bytes: ask.map_or(body.len() as u64, Ask::input_bytes),
        messages_count: ask.map_or(0, |ask| ask.messages_count),
    }
}

/// What is said in a conversation.
pub fn spoken(opening: &Opening, body: &Bytes) -> Option<Spoken> {
    let user = &opening.caller.user;
    let session = Arc::clone(opening.session.as_ref()?);
    Some(Spoken { owner: user.owner_id, user: user.id, session, body: body.clone() })
}
