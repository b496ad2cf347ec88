//! Names of Redis keys and the text form of counters, written into one buffer per command. Pure.
//!
//! All keys of a user or provider share a hash tag, so that they lie in one slot of a cluster.

use super::{Reserve, Slot, ms};
use crate::limit::Counter;
use bytes::{Bytes, BytesMut};
use contract::ids::RequestId;
use contract::table::{Measure, Scope};
use contract::window::Span;
use smallvec::SmallVec;
use std::fmt::Write;
use std::time::Duration;

/// Kept beyond the end of a window, for settlements that come late.
const GRACE_MS: i64 = 3_600_000;
/// A slice's requests are counted from its end on, see `lease.lua`.
const SLICE_GRACE_MS: i64 = 10_000;
/// How long a counter without an end is kept after its last use; then it is seeded again.
const ENDLESS_TTL_MS: i64 = 35 * 86_400_000;
/// A from-first counter outlives its window, so that the next window need not ask the ledger.
const FROM_FIRST_TTL_MS: i64 = 86_400_000;
/// Settled requests are remembered in sets by the time in their id.
const SETTLED_BUCKET_MS: i64 = 300_000;
/// Longest session id that is used as it is; longer ones are hashed.
const MAX_SESSION_BYTES: usize = 128;

/// Parts of one command in one allocation.
pub(super) struct Pack {
    buffer: BytesMut,
    ends: SmallVec<[usize; 64]>,
}

impl Pack {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::with_capacity(1024), ends: SmallVec::new() }
    }

    /// Ends the part that was being written.
    fn end(&mut self) {
        self.ends.push(self.buffer.len());
    }

    /// Writing to a growing buffer cannot fail.
    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.buffer.write_fmt(text);
    }

    pub(super) fn text(&mut self, text: std::fmt::Arguments<'_>) {
        self.write(text);
        self.end();
    }

    pub(super) fn number(&mut self, number: i64) {
        self.text(format_args!("{number}"));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.end();
    }

    /// No more parts.
    pub(super) fn seal(self) -> Parts {
        Parts { all: self.buffer.freeze(), ends: self.ends }
    }

    /// How many parts there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn slot(&mut self, slot: Slot) {
        match slot {
            Slot::User(id) => self.write(format_args!("sw:{{u{id}}}:")),
            Slot::Provider(id) => self.write(format_args!("sw:{{p{id}}}:")),
        }
    }

    fn scope(&mut self, scope: Scope) {
        match scope {
            Scope::Key(id) => self.write(format_args!("k{id}:")),
            Scope::User(id) => self.write(format_args!("u{id}:")),
            Scope::Provider(id) => self.write(format_args!("p{id}:")),
        }
    }

    /// `sw:{u42}:b:<session>`: which provider serves the session.
    pub(super) fn binding_key(&mut self, slot: Slot, session: Option<&str>) {
        self.slot(slot);
        self.write(format_args!("b:"));
        self.session(session.unwrap_or_default());
        self.end();
    }

    /// `sw:{u42}:done:<time>`: requests that have been settled.
    pub(super) fn settled_key(&mut self, slot: Slot, request: RequestId) {
        self.slot(slot);
        self.text(format_args!("done:{}", id_ms(request) / SETTLED_BUCKET_MS));
    }

    /// `sw:{u42}:k7:$d:<start>`; two counters that count differently never share a key.
    pub(super) fn counter_key(&mut self, slot: Slot, counter: &Counter) {
        self.slot(slot);
        self.scope(counter.scope);
        let tag = counter.limit.window.tag();
        match counter.limit.measure {
            Measure::Requests => self.write(format_args!("r{tag}")),
            Measure::Sessions => self.write(format_args!("s")),
            Measure::Usd => self.write(format_args!("${tag}")),
        }
        if counter.is_money() {
            match (counter.start_ms(), counter.limit.since_ms) {
                (Some(start), _) => self.write(format_args!(":{start}")),
                (None, Some(since)) => self.write(format_args!("@{since}")),
                (None, None) => {}
            }
        }
        self.end();
    }

    /// The two keys of a money entity: `…:l` leases, `…:a` amounts.
    pub(super) fn entity_keys(&mut self, slot: Slot, scope: Scope) {
        for word in ["l", "a"] {
            self.slot(slot);
            self.scope(scope);
            self.text(format_args!("{word}"));
        }
    }

    /// A session's member: `s<id>`; without one the request is its own session: `r<request>`.
    pub(super) fn member(&mut self, request: RequestId, session: Option<&str>) {
        match session {
            Some(session) => {
                self.buffer.extend_from_slice(b"s");
                self.session(session);
            }
            None => {
                self.buffer.extend_from_slice(b"r");
                self.buffer.extend_from_slice(request.0.as_bytes());
            }
        }
        self.end();
    }

    fn session(&mut self, session: &str) {
        if session.len() <= MAX_SESSION_BYTES {
            self.buffer.extend_from_slice(session.as_bytes());
        } else {
            let digest = <sha2::Sha256 as sha2::Digest>::digest(session.as_bytes());
            self.write(format_args!("h:{digest:x}"));
        }
    }

    /// `kind limit a b entity ttl`, as the head of `reserve.lua` says.
    pub(super) fn spec(&mut self, counter: &Counter, entity: usize, keep: Keep) {
        let limit = counter.limit.amount;
        let (kind, a, b, ttl) = match (counter.limit.measure, counter.span) {
            (Measure::Sessions, _) => ('s', 0, 0, ms(keep.reservation.max(keep.session)) + GRACE_MS),
            (Measure::Requests, Span::Fixed { start_ms, end_ms }) => {
                ('r', 0, start_ms, fixed_ttl(end_ms, keep.now_ms))
            }
            (Measure::Requests, Span::Rolling { length_ms, .. } | Span::FromFirst { length_ms }) => {
                ('r', length_ms, 0, length_ms + SLICE_GRACE_MS)
            }
            (Measure::Usd, Span::Fixed { end_ms, .. }) => ('f', 0, 0, fixed_ttl(end_ms, keep.now_ms)),
            (Measure::Usd, Span::Rolling { length_ms, bucket_ms }) => {
                ('o', length_ms, bucket_ms, length_ms + bucket_ms + GRACE_MS)
            }
            (Measure::Usd, Span::FromFirst { length_ms }) => {
                ('g', length_ms, 0, length_ms + FROM_FIRST_TTL_MS)
            }
        };
        self.text(format_args!("{kind} {limit} {a} {b} {entity} {ttl}"));
    }
}

/// The parts of one command.
pub(super) struct Parts {
    all: Bytes,
    ends: SmallVec<[usize; 64]>,
}

impl Parts {
    /// All of it, where there is one part.
    pub(super) fn whole(self) -> Bytes {
        self.all
    }

    /// In order; they share one allocation.
    pub(super) fn iter(&self) -> impl Iterator<Item = Bytes> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).map(|(from, to)| self.all.slice(from..to))
    }
}

/// How long things are kept.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    pub(super) now_ms: i64,
    pub(super) session: Duration,
    pub(super) reservation: Duration,
}

fn fixed_ttl(end_ms: Option<i64>, now_ms: i64) -> i64 {
    end_ms.map_or(ENDLESS_TTL_MS, |end| (end - now_ms).max(0) + GRACE_MS)
}

/// The time in a UUIDv7.
fn id_ms(request: RequestId) -> i64 {
    let high = u64::try_from(request.0.as_u128() >> 80).unwrap_or_default();
    i64::try_from(high).unwrap_or_default()
}

/// The distinct owners of money counters: the reservations of an owner hold in all of its windows.
pub(super) fn entities(counters: &[Counter]) -> SmallVec<[Scope; 2]> {
    let mut found = SmallVec::new();
    for counter in counters.iter().filter(|counter| counter.is_money()) {
        if !found.contains(&counter.scope) {
            found.push(counter.scope);
        }
    }
    found
}

/// The place of a counter's owner in `entities`.
pub(super) fn entity_of(entities: &[Scope], counter: &Counter) -> usize {
    entities.iter().position(|scope| *scope == counter.scope).unwrap_or_default()
}

/// Until when a request's own slot or its session's holds.
pub(super) fn member_ttl(session: Option<&str>, keep: Keep) -> i64 {
    if session.is_some() { ms(keep.session) } else { ms(keep.reservation) }
}

impl Reserve<'_> {
    pub(super) fn mode_word(&self) -> &'static str {
        match self.mode {
            super::Mode::Take => "take",
            super::Mode::Check => "check",
            super::Mode::Force => "force",
        }
    }
}
