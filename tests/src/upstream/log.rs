//! What the upstream saw and counted. Bounded; credentials appear by their last four characters only in [`Stats`].

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// Credentials counted one by one; further ones share the entry `other`.
const MOST_CREDENTIALS: usize = 10_000;
/// Headers whose values are shown by their last four characters.
const SECRET_HEADERS: [&str; 6] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization", "cookie"];

/// How much of what was asked is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Requests at most.
    pub requests: usize,
    /// Bytes of bodies at most.
    pub bytes: usize,
}

impl Keep {
    /// Enough for any test.
    pub const TEST: Self = Self { requests: 50_000, bytes: 512 << 20 };
    /// For a process that runs for days.
    pub const DEMO: Self = Self { requests: 16, bytes: 1 << 20 };
}

/// One model request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its query, without the question mark.
    pub query: Option<String>,
    /// Its headers, credentials included.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
    /// The credential in it, or an empty text.
    pub credential: String,
    /// The model in it, or an empty text.
    pub model: String,
    /// The connection it came on, counted from 1: equal numbers mean that the connection was used again.
    pub connection: u64,
}

impl Seen {
    /// A header as text, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON, or null.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Counters of one credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests received.
    pub requests: u64,
    /// Answered properly to the end.
    pub ok: u64,
    /// Answered with an error, refused, cut or otherwise misbehaved.
    pub errors: u64,
    /// Given up by the caller before the end.
    pub aborted: u64,
    /// Being answered now.
    pub in_flight: u64,
}

/// All counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests received.
    pub total: u64,
    /// By the last four characters of the credential; `none` for requests without one.
    pub by_credential: BTreeMap<String, Tally>,
}

impl Stats {
    /// Counters of one credential, given whole or by its last four characters.
    #[must_use]
    pub fn of(&self, credential: &str) -> Tally {
        self.by_credential.get(&tail(credential)).copied().unwrap_or_default()
    }

    /// Counters over all credentials.
    #[must_use]
    pub fn all(&self) -> Tally {
        self.by_credential.values().fold(Tally::default(), |sum, one| Tally {
            requests: sum.requests + one.requests,
            ok: sum.ok + one.ok,
            errors: sum.errors + one.errors,
            aborted: sum.aborted + one.aborted,
            in_flight: sum.in_flight + one.in_flight,
        })
    }
}

/// The last four characters, or `none`.
pub(super) fn tail(credential: &str) -> String {
    let skipped = credential.chars().count().saturating_sub(4);
    if credential.is_empty() { "none".to_owned() } else { credential.chars().skip(skipped).collect() }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Ok,
    Error,
    Aborted,
}

/// Counters and remembered requests.
#[derive(Debug)]
pub(super) struct Log {
    keep: Keep,
    stats: Stats,
    seen: VecDeque<Seen>,
    bytes: usize,
    /// Raised by a reset, so that requests begun before it are not counted after it.
    epoch: u64,
}

/// Where a request is counted.
#[derive(Debug, Clone)]
pub(super) struct Place {
    credential: String,
    epoch: u64,
}

impl Log {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, stats: Stats::default(), seen: VecDeque::new(), bytes: 0, epoch: 0 }
    }

    pub(super) fn begin(&mut self, seen: Seen) -> Place {
        let mut credential = tail(&seen.credential);
        let is_new = !self.stats.by_credential.contains_key(&credential);
        if is_new && self.stats.by_credential.len() >= MOST_CREDENTIALS {
            credential = "other".to_owned();
        }
        self.stats.total += 1;
        let tally = self.stats.by_credential.entry(credential.clone()).or_default();
        tally.requests += 1;
        tally.in_flight += 1;
        self.bytes += seen.body.len();
        self.seen.push_back(seen);
        while self.seen.len() > self.keep.requests || (self.bytes > self.keep.bytes && self.seen.len() > 1) {
            self.bytes -= self.seen.pop_front().map_or(0, |oldest| oldest.body.len());
        }
        Place { credential, epoch: self.epoch }
    }

    pub(super) fn end(&mut self, place: &Place, ending: Ending) {
        let Some(tally) = self.stats.by_credential.get_mut(&place.credential) else { return };
        if place.epoch != self.epoch {
            return;
        }
        tally.in_flight -= 1;
        match ending {
            Ending::Ok => tally.ok += 1,
            Ending::Error => tally.errors += 1,
            Ending::Aborted => tally.aborted += 1,
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self { epoch: self.epoch + 1, ..Self::new(self.keep) };
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats.clone()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.iter().cloned().collect()
    }

    /// What `GET /_stats` answers.
    pub(super) fn to_json(&self) -> Value {
        let tallies = self.stats.by_credential.iter().map(|(tail, t)| {
            let counts = json!({"requests": t.requests, "ok": t.ok, "errors": t.errors, "aborted": t.aborted,
                "in_flight": t.in_flight});
            (tail.clone(), counts)
        });
        let by_credential = Value::Object(tallies.collect());
        let last = self.seen.back().map(shown);
        json!({"total": self.stats.total, "by_credential": by_credential, "last_request": last})
    }
}

/// A request without its secrets.
fn shown(seen: &Seen) -> Value {
    let headers = seen.headers.iter().map(|(name, value)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let is_secret = SECRET_HEADERS.contains(&name.as_str());
        let text = if is_secret { format!("***{}", tail(&text)) } else { text.into_owned() };
        (name.to_string(), Value::from(text))
    });
    json!({"method": seen.method.as_str(), "path": seen.path, "model": seen.model,
        "headers": Value::Object(headers.collect()), "body_bytes": seen.body.len()})
}
