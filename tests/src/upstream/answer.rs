//! One step of a script: how to answer one request, as a builder for tests and as JSON or a directive for people.
//! Never touches a socket.

mod parse;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

pub use parse::BadStep;

/// Token usage to report instead of the plausible default. Absent fields keep the default.
///
/// `input` is the input that no cache took part in; dialects whose input includes cached tokens add them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input tokens outside the cache.
    pub input: Option<u64>,
    /// Output tokens, reasoning included.
    pub output: Option<u64>,
    /// Input tokens read from the cache.
    pub cache_read: Option<u64>,
    /// Input tokens written to the five-minute cache.
    pub cache_write: Option<u64>,
    /// Input tokens written to the one-hour cache.
    pub cache_write_1h: Option<u64>,
    /// The part of the output spent on reasoning.
    pub reasoning: Option<u64>,
}

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// The proper answer of the dialect, or an error when the status says so.
    #[default]
    Proper,
    /// The request is read and never answered.
    Silence,
    /// The connection is closed without an answer.
    Refuse,
    /// An HTML page with status 200.
    Html,
    /// An error object with status 200.
    ErrorObject,
    /// No body at all.
    Empty,
}

/// How an answer ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// The connection is cut.
    Cut,
    /// Nothing more comes, the connection stays open.
    Hang,
    /// The body ends cleanly, without the dialect's closing events.
    Stop,
    /// An error event, then a clean end.
    Error,
}

/// How to answer one request. [`Answer::ok`] is the plausible answer; each method changes one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub(super) kind: Kind,
    pub(super) status: Option<u16>,
    pub(super) body: Option<Bytes>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) delay: Duration,
    pub(super) delay_body: Duration,
    pub(super) gap: Duration,
    pub(super) break_at: Option<(usize, Break)>,
    pub(super) events: Option<usize>,
    pub(super) text: Option<String>,
    pub(super) tokens: Tokens,
    pub(super) no_usage: bool,
}

impl Answer {
    /// The plausible answer.
    #[must_use]
    pub fn ok() -> Self {
        Self::default()
    }

    /// An error answer (or any other status) in the caller's dialect.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// Reads the request and never answers.
    #[must_use]
    pub fn silence() -> Self {
        Self { kind: Kind::Silence, ..Self::default() }
    }

    /// Closes the connection without an answer, before the body is read. (For an address where nothing listens, stop
    /// the upstream.)
    #[must_use]
    pub fn refuse() -> Self {
        Self { kind: Kind::Refuse, ..Self::default() }
    }

    /// An HTML page with status 200.
    #[must_use]
    pub fn fake200() -> Self {
        Self { kind: Kind::Html, ..Self::default() }
    }

    /// An error object with status 200.
    #[must_use]
    pub fn fake200_json() -> Self {
        Self { kind: Kind::ErrorObject, ..Self::default() }
    }

    /// Status 200 and an empty body.
    #[must_use]
    pub fn empty200() -> Self {
        Self { kind: Kind::Empty, ..Self::default() }
    }

    /// A stream whose first event is an error; a plain answer becomes [`fake200_json`](Self::fake200_json).
    #[must_use]
    pub fn error_event() -> Self {
        Self::ok().error_after(0)
    }

    /// Replaces the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(http::header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Waits before the head.
    #[must_use]
    pub fn delay(mut self, wait: Duration) -> Self {
        self.delay = wait;
        self
    }

    /// Waits between the head and the body.
    #[must_use]
    pub fn delay_body(mut self, wait: Duration) -> Self {
        self.delay_body = wait;
        self
    }

    /// Waits between two events.
    #[must_use]
    pub fn gap(mut self, wait: Duration) -> Self {
        self.gap = wait;
        self
    }

    /// Cuts the connection after that many events; a plain answer in the middle of its body.
    #[must_use]
    pub fn cut(mut self, after: usize) -> Self {
        self.break_at = Some((after, Break::Cut));
        self
    }

    /// Falls silent after that many events, with the connection open.
    #[must_use]
    pub fn hang(mut self, after: usize) -> Self {
        self.break_at = Some((after, Break::Hang));
        self
    }

    /// Ends the body cleanly after that many events, without the closing ones.
    #[must_use]
    pub fn end_early(mut self, after: usize) -> Self {
        self.break_at = Some((after, Break::Stop));
        self
    }

    /// Sends an error event after that many events, and ends.
    #[must_use]
    pub fn error_after(mut self, events: usize) -> Self {
        self.break_at = Some((events, Break::Error));
        self
    }

    /// Answers with exactly that many text deltas.
    #[must_use]
    pub fn events(mut self, deltas: usize) -> Self {
        self.events = Some(deltas);
        self
    }

    /// Answers with this text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Reports these input and output tokens.
    #[must_use]
    pub fn tokens(mut self, input: u64, output: u64) -> Self {
        self.tokens.input = Some(input);
        self.tokens.output = Some(output);
        self
    }

    /// Reports this usage.
    #[must_use]
    pub fn usage(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Reports no usage at all.
    #[must_use]
    pub fn no_usage(mut self) -> Self {
        self.no_usage = true;
        self
    }
}
