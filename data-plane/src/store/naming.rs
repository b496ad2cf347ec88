//! Names of Redis keys and the text form of counters, written into one buffer per command. Pure.
//!
//! All keys of an owner's users and providers share a hash tag, so that they lie in one slot of a cluster and one
//! script may touch them all. Under the first naming it was one tag per user and per provider.

use super::{Home, Reserve, Slot, ms};
use crate::limit::Counter;
use bytes::{Bytes, BytesMut};
use contract::ids::{RequestId, UserId};
use contract::table::{CounterNaming, Measure, Scope};
use contract::window::Span;
use smallvec::SmallVec;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// One part of a command.
enum Part {
    /// The next bytes of the buffer, up to here.
    Own(usize),
    /// Made before.
    Shared(Bytes),
}

/// Parts of one command: what is new lies in one allocation, what a counter knows of itself is shared.
pub(super) struct Pack {
    buffer: BytesMut,
    parts: Vec<Part>,
}

impl Pack {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::with_capacity(768), parts: Vec::with_capacity(32) }
    }

    /// Ends the part that was being written.
    fn end(&mut self) {
        self.parts.push(Part::Own(self.buffer.len()));
    }

    /// Writing to a growing buffer cannot fail.
    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.buffer.write_fmt(text);
    }

    fn word(&mut self, word: &str) {
        self.buffer.extend_from_slice(word.as_bytes());
    }

    fn digits(&mut self, number: i64) {
        self.buffer.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    pub(super) fn text(&mut self, text: std::fmt::Arguments<'_>) {
        self.write(text);
        self.end();
    }

    pub(super) fn number(&mut self, number: i64) {
        self.digits(number);
        self.end();
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.end();
    }

    fn shared(&mut self, bytes: &Bytes) {
        self.parts.push(Part::Shared(bytes.clone()));
    }

    /// No more parts.
    pub(super) fn seal(self) -> Parts {
        Parts { own: self.buffer.freeze(), parts: self.parts }
    }

    /// How many parts there are.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Where what is no counter lies: `sw:{o1}:u42:`, under the first naming `sw:{u42}:`.
    fn slot(&mut self, home: Home, slot: Slot) {
        let (word, id) = match slot {
            Slot::User(id) => ("u", id.0),
            Slot::Provider(id) => ("p", id.0),
        };
        self.word("sw:{");
        if home.naming == CounterNaming::ByOwner {
            self.word("o");
            self.digits(home.owner.0);
            self.word("}:");
            self.word(word);
            self.digits(id);
            self.word(":");
        } else {
            self.word(word);
            self.digits(id);
            self.word("}:");
        }
    }

    /// `sw:{o1}:u42:b:<session>`: which provider serves the session.
    pub(super) fn binding_key(&mut self, home: Home, slot: Slot, session: Option<&str>) {
        self.slot(home, slot);
        self.word("b:");
        self.session(session.unwrap_or_default());
        self.end();
    }

    /// `sw:{o1}:u42:done:<time>`: requests that have been settled.
    pub(super) fn settled_key(&mut self, home: Home, slot: Slot, request: RequestId) {
        self.slot(home, slot);
        self.word("done:");
        self.number(id_ms(request) / SETTLED_BUCKET_MS);
    }

    /// `sw:{o1}:compare`: counters that lack a settlement, and how much of the ledger is needed to see it.
    pub(super) fn notes_key(&mut self, owner: UserId) {
        self.text(format_args!("sw:{{o{owner}}}:compare"));
    }

    /// The keys of a group of counters, as the scripts take them: of each counter its own, of requests also that
    /// of what was lent of them; then of each money entity two.
    pub(super) fn group_keys(&mut self, counters: &[Counter], words: &[Said<'_>]) {
        for words in words {
            self.shared(&words.key);
            if !words.lent.is_empty() {
                self.shared(&words.lent);
            }
        }
        owners(counters, words).for_each(|words| self.entity_keys(words));
    }

    /// `sw:{o1}:k7:$d:<start>`; two counters that count differently never share a key.
    pub(super) fn counter_key(&mut self, words: &Words) {
        self.shared(&words.key);
    }

    /// The two keys of a money entity: `…:l` leases, `…:a` amounts.
    fn entity_keys(&mut self, words: &Words) {
        self.shared(&words.leases);
        self.shared(&words.amounts);
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
    pub(super) fn spec(&mut self, words: &Words) {
        self.shared(&words.spec);
    }

    /// The specs of all counters in one part.
    pub(super) fn specs(&mut self, list: &[Said<'_>]) {
        for words in list {
            self.buffer.extend_from_slice(&words.spec);
            self.word(";");
        }
        self.end();
    }

    /// The same, behind what the request is expected to cost and what else is to be said.
    pub(super) fn priced_specs(&mut self, estimate: i64, provider: Option<i64>, list: &[Said<'_>]) {
        self.digits(estimate.max(0));
        self.word(" ");
        if let Some(provider) = provider {
            self.digits(provider);
            self.word(" ");
        }
        self.specs(list);
    }
}

/// What the commands say of a counter. The same for as long as the counter is.
pub(super) struct Words {
    home: Home,
    slot: Slot,
    entity: usize,
    keep: Keep,
    pub(super) key: Bytes,
    /// Where what was lent of requests is counted; empty of other counters.
    lent: Bytes,
    spec: Bytes,
    leases: Bytes,
    amounts: Bytes,
    /// When it was last handed on to be compared with the ledger.
    compared_ms: AtomicI64,
}

impl Words {
    fn new(home: Home, slot: Slot, counter: &Counter, entity: usize, keep: Keep) -> Self {
        let prefix = match (home.naming, slot) {
            (CounterNaming::ByOwner, _) => format!("sw:{{o{}}}:", home.owner),
            (CounterNaming::ByUser, Slot::User(id)) => format!("sw:{{u{id}}}:"),
            (CounterNaming::ByUser, Slot::Provider(id)) => format!("sw:{{p{id}}}:"),
        };
        let owner = match counter.scope {
            Scope::Key(id) => format!("{prefix}k{id}:"),
            Scope::User(id) => format!("{prefix}u{id}:"),
            Scope::Provider(id) => format!("{prefix}p{id}:"),
        };
        let tag = counter.limit.window.tag();
        let mut key = match counter.limit.measure {
            Measure::Requests => format!("{owner}r{tag}"),
            Measure::Sessions => format!("{owner}s"),
            Measure::Usd => format!("{owner}${tag}"),
        };
        if counter.is_money() {
            match (counter.start_ms(), counter.limit.since_ms) {
                (Some(start), _) => key += &format!(":{start}"),
                (None, Some(since)) => key += &format!("@{since}"),
                (None, None) => {}
            }
        }
        let lent = match counter.limit.measure {
            Measure::Requests => format!("{key}:l"),
            Measure::Sessions | Measure::Usd => String::new(),
        };
        Self {
            home,
            slot,
            entity,
            keep,
            key: key.into(),
            lent: lent.into(),
            spec: spec(counter, entity, keep).into(),
            leases: format!("{owner}l").into(),
            amounts: format!("{owner}a").into(),
            compared_ms: AtomicI64::new(i64::MIN / 2),
        }
    }

    /// Whether it is time to compare it; once.
    pub(super) fn is_due(&self, now_ms: i64, every_ms: i64) -> bool {
        let is_due = now_ms - self.compared_ms.load(Ordering::Relaxed) >= every_ms;
        if is_due {
            self.compared_ms.store(now_ms, Ordering::Relaxed);
        }
        is_due
    }
}

/// What a counter is called.
pub(super) fn key(home: Home, slot: Slot, counter: &Counter) -> Bytes {
    let keep = Keep { session: Duration::ZERO, reservation: Duration::ZERO };
    Words::new(home, slot, counter, 0, keep).key
}

/// The words of every counter, in order.
pub(super) fn words<'a>(
    home: Home,
    slot: Slot,
    counters: &'a [Counter],
    keep: Keep,
) -> SmallVec<[Said<'a>; 16]> {
    let owners = entities(counters);
    let said = |counter: &'a Counter| {
        let entity = owners.iter().position(|scope| *scope == counter.scope).unwrap_or_default();
        let new = || Words::new(home, slot, counter, entity, keep);
        match counter.words.get_or_make(new) {
            Some(words)
                if words.slot == slot
                    && words.home == home
                    && words.entity == entity
                    && words.keep == keep =>
            {
                Said::Known(words)
            }
            // A counter that is asked for in another company.
            _ => Said::New(Box::new(new())),
        }
    };
    counters.iter().map(said).collect()
}

/// Words that a counter keeps, or that are new.
pub(super) enum Said<'a> {
    Known(&'a Words),
    New(Box<Words>),
}

impl std::ops::Deref for Said<'_> {
    type Target = Words;

    fn deref(&self) -> &Words {
        match self {
            Self::Known(words) => words,
            Self::New(words) => words,
        }
    }
}

fn spec(counter: &Counter, entity: usize, keep: Keep) -> String {
    let limit = counter.limit.amount;
    let (kind, a, b, ttl) = match (counter.limit.measure, counter.span) {
        (Measure::Sessions, _) => ('s', 0, 0, ms(keep.reservation.max(keep.session)) + GRACE_MS),
        (Measure::Requests, Span::Fixed { start_ms, end_ms }) => ('r', 0, start_ms, fixed_ttl(end_ms)),
        (Measure::Requests, Span::Rolling { length_ms, .. } | Span::FromFirst { length_ms }) => {
            ('r', length_ms, 0, length_ms + SLICE_GRACE_MS)
        }
        (Measure::Usd, Span::Fixed { end_ms, .. }) => ('f', 0, 0, fixed_ttl(end_ms)),
        (Measure::Usd, Span::Rolling { length_ms, bucket_ms }) => {
            ('o', length_ms, bucket_ms, length_ms + bucket_ms + GRACE_MS)
        }
        (Measure::Usd, Span::FromFirst { length_ms }) => ('g', length_ms, 0, length_ms + FROM_FIRST_TTL_MS),
    };
    format!("{kind} {limit} {a} {b} {entity} {ttl}")
}

/// The parts of one command.
pub(super) struct Parts {
    own: Bytes,
    parts: Vec<Part>,
}

impl Parts {
    /// All of it, where there is one part of its own.
    pub(super) fn whole(self) -> Bytes {
        self.own
    }

    /// In order; new parts share one allocation.
    pub(super) fn iter(&self) -> impl Iterator<Item = Bytes> {
        let mut from = 0;
        self.parts.iter().map(move |part| match part {
            Part::Own(to) => self.own.slice(std::mem::replace(&mut from, *to)..*to),
            Part::Shared(bytes) => bytes.clone(),
        })
    }
}

/// How long things are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Keep {
    pub(super) session: Duration,
    pub(super) reservation: Duration,
}

/// An instant, where the window has an end; the scripts tell it from a duration by its size.
fn fixed_ttl(end_ms: Option<i64>) -> i64 {
    end_ms.map_or(ENDLESS_TTL_MS, |end| end + GRACE_MS)
}

/// The time in a UUIDv7.
fn id_ms(request: RequestId) -> i64 {
    let high = u64::try_from(request.0.as_u128() >> 80).unwrap_or_default();
    i64::try_from(high).unwrap_or_default()
}

/// The distinct owners of money counters: the reservations of an owner hold in all of its windows.
fn entities(counters: &[Counter]) -> SmallVec<[Scope; 2]> {
    let mut found = SmallVec::new();
    for counter in counters.iter().filter(|counter| counter.is_money()) {
        if !found.contains(&counter.scope) {
            found.push(counter.scope);
        }
    }
    found
}

/// One counter of each of them, in their order.
fn owners<'a>(counters: &'a [Counter], words: &'a [Said<'a>]) -> impl Iterator<Item = &'a Words> {
    entities(counters).into_iter().filter_map(move |scope| {
        let at = counters.iter().position(|counter| counter.is_money() && counter.scope == scope)?;
        Some(&*words[at])
    })
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
            super::Mode::Back => "back",
        }
    }
}
