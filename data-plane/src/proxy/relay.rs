//! The answer on its way to the caller: each frame goes out at once, a view of it goes to the scanner.
//!
//! The record is written before the caller can know that the answer is complete: before the frame with the
//! protocol's end marker, before the last byte of a known length, before the end of a chunked body. A proxy
//! that is killed right after has lost nothing.

use super::body::BodyError;
use super::budget::{FREE, Share};
use super::leave::Rest;
use super::meter::{Meter, STATUS_CUT};
use super::scrub;
use super::sift::Sift;
use crate::upstream::{self, Heard};
use bytes::Bytes;
use contract::usage::{Dialect, Outcome};
use http_body::{Body as _, SizeHint};
use llm::error_body::{ErrorBody, ErrorKind};
use llm::sse::{FrameEnd, HoldBack};
use std::collections::VecDeque;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A relayed answer.
pub struct Stream {
    /// Frames that were held back until the answer was known to be one; already scanned and filtered.
    held: VecDeque<Bytes>,
    /// The room that they take; given back with this.
    _share: Option<Share>,
    /// `None` once it ended.
    upstream: Option<upstream::Body>,
    meter: Box<Meter>,
    /// Set for event streams, which need their own end marker and can carry an error event.
    events: Option<Dialect>,
    /// Drops the usage chunk that this proxy asked for and the caller did not.
    filter: Option<HoldBack>,
    sift: Sift,
    status: u16,
    outcome: Outcome,
    /// Bytes still to come, where the upstream said how many.
    length: Option<u64>,
    /// The room that an unfinished event takes in the scanner, if it is much.
    unfinished: Option<Share>,
    /// Where a keep-alive may stand.
    frame_end: FrameEnd,
}

/// What a relay starts from.
pub struct Start {
    /// Frames held back so far.
    pub held: VecDeque<Bytes>,
    /// The room that they take.
    pub share: Option<Share>,
    /// The rest.
    pub upstream: upstream::Body,
    /// The guard.
    pub meter: Box<Meter>,
    /// For event streams.
    pub events: Option<Dialect>,
    /// Drops the usage chunk that this proxy asked for and the caller did not.
    pub filter: Option<HoldBack>,
    /// Sent to the caller.
    pub status: u16,
    /// If all goes well.
    pub outcome: Outcome,
    /// Content length.
    pub length: Option<u64>,
    /// After how long a silence a keep-alive is due; for event streams.
    pub keep_alive: Option<Duration>,
}

impl Stream {
    /// A relay over what was opened.
    pub fn new(start: Start) -> Self {
        let Start { held, share, mut upstream, meter, events, filter, status, outcome, length, .. } = start;
        if let Some(after) = start.keep_alive {
            upstream.tell_pauses(after);
        }
        let mut stream = Self {
            held: VecDeque::new(),
            _share: share,
            upstream: Some(upstream),
            meter,
            events,
            filter,
            sift: Sift::default(),
            status,
            outcome,
            length,
            unfinished: None,
            frame_end: FrameEnd::default(),
        };
        match stream.wants_sifting() {
            None => held.into_iter().for_each(|data| stream.take_in(data)),
            // One of them holds an error, or ends in the midst of an event.
            Some(what) => {
                let whole: Vec<u8> = held.into_iter().flatten().collect();
                stream.sifted(whole.into(), what);
            }
        }
        // A short answer may lie here as a whole; then its record is due before its first byte.
        stream.finish_if_complete();
        stream
    }

    /// The dialect of a stream of events that has not come to its end.
    pub fn is_open(&self) -> Option<Dialect> {
        self.events.filter(|_| !self.meter.is_finished())
    }

    /// Whether nothing more will come.
    pub fn is_end(&self) -> bool {
        self.held.is_empty() && self.upstream.is_none()
    }

    /// Exact where the upstream named a length and the bytes pass unchanged.
    pub fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// What is left of it when it is dropped, if its caller left and the rest is worth reading on.
    pub fn left(self: Box<Self>) -> Option<Rest> {
        let Self { upstream, mut meter, events, outcome, .. } = *self;
        let upstream = upstream?;
        // A caller who leaves says something of a provider that was silent.
        meter.heard(upstream.last_frame());
        let is_answer = events.is_some() && outcome == Outcome::Completed;
        (is_answer && meter.lacks_usage()).then(|| Rest { upstream, meter })
    }

    /// The next bytes for the caller.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(data) = self.held.pop_front() {
                return Poll::Ready(Some(Ok(self.count(data))));
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Ready(None) };
            match ready!(upstream.poll_heard(cx)) {
                Some(Ok(Heard::Pause)) => {
                    if let Some(data) = self.keep_alive() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Ok(Heard::Data(data))) => {
                    if let Some(scanner) = self.meter.scanner() {
                        scanner.feed(&data);
                        let held = scanner.held();
                        if held > FREE || self.unfinished.is_some() {
                            self.make_room(held);
                        }
                    }
                    match self.wants_sifting() {
                        None => self.take_in(data),
                        Some(what) => self.sifted(data, what),
                    }
                    self.finish_if_complete();
                }
                Some(Err(failure)) => return Poll::Ready(self.broke(&failure.to_string())),
                None if self.sifted_rest() => {}
                None => return Poll::Ready(self.ended()),
            }
        }
    }

    /// An event that is long and unfinished counts like a body; without room for it, it passes unread. Images come so.
    #[cold]
    fn make_room(&mut self, held: usize) {
        if held <= FREE {
            self.unfinished = None;
            return;
        }
        let (budget, limit) = self.meter.budget();
        let share = self.unfinished.get_or_insert_with(|| Share::new(budget));
        if share.resize(held, limit).is_err() {
            self.unfinished = None;
            if let Some(scanner) = self.meter.scanner() {
                scanner.pass_over();
            }
        }
    }

    /// Whether the newest piece of a stream needs a look, and what is known of it; nearly none does.
    fn wants_sifting(&mut self) -> Option<(bool, bool)> {
        self.events?;
        let scanner = self.meter.scanner()?;
        let (failed, within) = (scanner.error().is_some(), scanner.is_within_event());
        self.sift.wants(failed, within).then_some((failed, within))
    }

    #[cold]
    fn sifted(&mut self, data: Bytes, (failed, within): (bool, bool)) {
        let meter = &self.meter;
        let data = self.sift.feed(data, failed, within, || meter.known());
        if !data.is_empty() {
            self.take_in(data);
        }
    }

    /// The last event of a stream may lack its empty line.
    fn sifted_rest(&mut self) -> bool {
        let meter = &self.meter;
        let rest = self.sift.rest(|| meter.known());
        let any = rest.is_some();
        rest.into_iter().for_each(|data| self.take_in(data));
        any
    }

    /// Through the filter, if there is one.
    fn take_in(&mut self, data: Bytes) {
        let before = self.held.len();
        match &mut self.filter {
            Some(filter) => self.held.extend(filter.feed(&data)),
            None => self.held.push_back(data),
        }
        // Counted now, because the record may be written before they go out.
        let bytes: usize = self.held.iter().skip(before).map(Bytes::len).sum();
        if bytes > 0 {
            self.meter.sent(bytes);
        }
    }

    /// A whole frame, where one may stand: never inside another one, never behind the last one.
    fn keep_alive(&self) -> Option<Bytes> {
        let dialect = self.events.filter(|_| self.frame_end.is_here() && !self.meter.is_finished())?;
        Some(Bytes::from_static(llm::sse::keep_alive(dialect)))
    }

    fn count(&mut self, data: Bytes) -> Bytes {
        self.frame_end.sent(&data);
        if let Some(length) = &mut self.length {
            *length = length.saturating_sub(data.len() as u64);
        }
        data
    }

    fn finish_if_complete(&mut self) {
        let last_byte = self.upstream.as_ref().is_some_and(|body| body.is_end_stream());
        let marker = self.meter.scanner().is_some_and(|scanner| scanner.terminal());
        if marker || (last_byte && self.events.is_none()) {
            self.finish();
        }
    }

    /// The answer is here as a whole. A stream that carried an error after its first content is a broken one,
    /// however regular its end.
    fn finish(&mut self) {
        let failed = self.outcome == Outcome::Completed
            && self.events.is_some()
            && self.meter.scanner().is_some_and(|scanner| scanner.error().is_some());
        if failed {
            let why = "the upstream ended its answer with an error".to_owned();
            self.meter.finish(Outcome::Cut, STATUS_CUT, Some(why));
        } else {
            self.meter.finish(self.outcome, self.status, None);
        }
    }

    /// The upstream's body ended.
    fn ended(&mut self) -> Option<Result<Bytes, BodyError>> {
        // A refusal in the form of an event has no end marker, and those of mere resources are not known here.
        let complete = self.events.is_none()
            || self.outcome == Outcome::Rejected
            || !self.meter.opening().kind.is_metered()
            || self.meter.scanner().is_none_or(|scanner| scanner.ended());
        if !complete {
            return self.broke("the stream ended without its end marker");
        }
        self.upstream = None;
        self.finish();
        self.filter.as_mut().and_then(HoldBack::finish).map(Ok)
    }

    /// The answer broke off after bytes were sent: an error event where the dialect has one, else the
    /// connection is closed. Never a clean end.
    fn broke(&mut self, why: &str) -> Option<Result<Bytes, BodyError>> {
        self.upstream = None;
        if self.events.is_some() && self.meter.is_finished() {
            // All of it had come; only the connection ended untidily.
            return self.filter.as_mut().and_then(HoldBack::finish).map(Ok);
        }
        let told = self.meter.scanner().is_some_and(|scanner| scanner.error().is_some());
        self.meter.finish(Outcome::Cut, STATUS_CUT, Some(why.to_owned()));
        let Some(dialect) = self.events else { return Some(Err(BodyError)) };
        if told {
            // The upstream's own error event has passed already.
            return None;
        }
        let why = scrub::for_callers(why, &self.meter.known()).into_owned();
        let text = format!("the upstream's answer broke off: {why}");
        let error = ErrorBody::new(STATUS_CUT, ErrorKind::Api, text).with_code("upstream_cut");
        let event = llm::error_body::stream_error_event(dialect, &error);
        // A half-written event before it must not swallow it: an empty line ends whatever was open.
        Some(Ok([b"\n\n".as_slice(), &event].concat().into()))
    }
}
