//! The one guard that ends every request. Whatever happens — answer, refusal, hang-up, cut, panic — it is
//! finished exactly once: usage priced, reservation settled, health told, record in the spool.
//!
//! It is owned by the walk until the head of the answer goes out, then by the body. Everything it does at
//! the end is synchronous and bounded, because the end may be a drop.

mod bill;
mod under_way;
mod verdict;

use super::Shared;
use super::budget::Budget;
use super::opening::Opening;
use super::scrub::Known;
use crate::bill::{Bill, Place};
use crate::clock::Instant;
use crate::health::Pass;
use crate::limit::Counters;
use crate::live::Seat;
use crate::spool::Slot;
use crate::store::{Hold, Limiter, Settlement};
use crate::table::Upstream;
use crate::telemetry::{self, trace};
use bill::Usage;
use contract::ids::ProviderId;
use contract::money::NanoUsd;
use contract::usage::{Attempt, AttemptResult, Outcome, SelectedBy, Skipped, UsageRecord, WhyUnpriced};
use llm::usage::UsageScanner;
use rust_decimal::Decimal;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// Status of a request whose caller hung up; nginx's number, known to every log reader.
pub const STATUS_ABORTED: u16 = 499;
/// Status of a request whose answer broke off after its first byte.
pub const STATUS_CUT: u16 = 502;

/// The guard.
pub struct Meter {
    shared: Arc<Shared>,
    limiter: Limiter,
    opening: Opening,
    /// Its place among the open requests, where it belongs to a conversation.
    seat: Option<Seat>,
    /// Present from admission to settlement.
    reserved: Option<Counters>,
    /// Of a request that reserved nothing.
    none: Counters,
    /// What it is expected to cost.
    expected: NanoUsd,
    /// What it holds at a provider that has limits of its own.
    hold: Option<Hold>,
    /// Whether that provider was tried.
    hold_tried: bool,
    upstream: Option<Arc<Upstream>>,
    /// What that provider's health gave along.
    pass: Pass,
    upstream_model: Option<String>,
    attempts: Vec<Attempt>,
    /// Who was not asked, where that is worth telling.
    skipped: Vec<Skipped>,
    /// The attempt that runs; what is known of it goes into the trail if the caller hangs up meanwhile.
    running: Option<Running>,
    /// Follows the answer from its first byte on, also while it is held back.
    scanner: Option<Box<UsageScanner>>,
    /// Whether the running attempt's request went out whole and was not refused: the upstream works on it.
    is_with_upstream: Cell<bool>,
    /// When the upstream was last heard; since when it was asked, if never.
    heard: Option<Instant>,
    response_bytes: u64,
    first_byte: Option<Instant>,
    blocked: Option<(String, String)>,
    /// Where the spool knows it from after a kill.
    slot: Cell<Option<Slot>>,
    /// What stands there of the provider that is tried: whether it has the request.
    noted: Cell<Option<bool>>,
    /// Where the price classes of its conversation are remembered, once that was looked up.
    place: Cell<Option<Place>>,
    span: tracing::Span,
    finished: bool,
}

impl Meter {
    /// Starts measuring. From here on exactly one record follows, unless [`Meter::disarm`] is called.
    pub fn new(shared: &Arc<Shared>, limiter: &Limiter, opening: Opening, span: tracing::Span) -> Self {
        Self {
            shared: Arc::clone(shared),
            limiter: limiter.clone(),
            seat: opening.open().map(|open| shared.live.enter(opening.id, open)),
            opening,
            reserved: None,
            none: Counters::default(),
            expected: NanoUsd(0),
            hold: None,
            hold_tried: false,
            upstream: None,
            pass: Pass::default(),
            upstream_model: None,
            attempts: Vec::new(),
            skipped: Vec::new(),
            running: None,
            scanner: None,
            is_with_upstream: Cell::new(false),
            heard: None,
            response_bytes: 0,
            first_byte: None,
            blocked: None,
            slot: Cell::default(),
            noted: Cell::default(),
            place: Cell::default(),
            span,
            finished: false,
        }
    }

    /// What was known at the start.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// The request's span.
    pub fn span(&self) -> &tracing::Span {
        &self.span
    }

    /// The request is to be admitted against these counters; they are settled at the end.
    pub fn admitting(&mut self, counters: Counters, expected: NanoUsd) {
        (self.reserved, self.expected) = (Some(counters), expected);
    }

    /// Nothing was taken of them.
    pub fn took_nothing(&mut self) {
        self.reserved = None;
    }

    /// The counters that it is, or is to be, admitted against.
    pub fn counters(&self) -> &Counters {
        self.reserved.as_ref().unwrap_or(&self.none)
    }

    /// What it is expected to cost.
    pub fn expected(&self) -> NanoUsd {
        self.expected
    }

    /// What it holds at the provider that is tried next.
    pub fn holds(&mut self, hold: Option<Hold>) {
        (self.hold, self.hold_tried) = (hold, false);
    }

    /// It moves on: what it holds, and whether it never reached that provider.
    pub fn leaves(&mut self) -> Option<(Hold, bool)> {
        self.hold.take().map(|hold| (hold, !self.hold_tried))
    }

    /// After how long a silence a caller who asked for a stream gets a keep-alive.
    pub fn keep_alive(&self) -> Option<Duration> {
        let every = self.shared.config.sse_keepalive;
        (self.opening.streamed && !every.is_zero()).then_some(every)
    }

    /// What bodies of all requests share, and its bound.
    pub fn budget(&self) -> (&Arc<Budget>, u64) {
        (&self.shared.budget, self.shared.config.body_budget_bytes as u64)
    }

    /// Whether the record is written.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// A request that was refused at admission leaves no record and holds nothing.
    pub fn disarm(mut self: Box<Self>) {
        if let Some(slot) = self.slot.take() {
            self.shared.spool.forget(slot);
        }
        self.finished = true;
    }

    /// A content rule refused it.
    pub fn blocked(&mut self, by: &str, reason: String) {
        self.blocked = Some((by.to_owned(), reason));
    }

    /// An attempt begins: its provider is the record's provider until another one is tried.
    pub fn trying(&mut self, upstream: &Arc<Upstream>, model: &str, pass: Pass) {
        self.pass = pass;
        self.hold_tried = true;
        self.upstream = Some(Arc::clone(upstream));
        self.upstream_model = Some(model.to_owned());
        if let Some(seat) = &self.seat {
            seat.at(upstream.row.id);
        }
        self.noted.set(None);
    }

    /// What is known of the provider that was asked last, and must not be told.
    pub fn known(&self) -> Known {
        self.upstream.as_deref().map(Known::of).unwrap_or_default()
    }

    /// One try at that provider begins.
    pub fn running(&mut self, running: Running) {
        self.heard = Some(running.began);
        self.running = Some(running);
        self.scanner = None;
        self.is_with_upstream.set(false);
    }

    /// An attempt ended; a line of the decision trail.
    pub fn tried(&mut self, result: AttemptResult, status: Option<u16>, detail: String) {
        let (Some(running), Some(up)) = (self.running.take(), &self.upstream) else { return };
        self.attempts.push(Attempt {
            provider_id: up.row.id,
            provider_name: up.row.name.clone(),
            result,
            selected_by: running.selected_by,
            status,
            detail,
            started_at_ms: running.started_at_ms,
            duration_ms: millis(running.began.elapsed().as_millis()),
            model: self.upstream_model.clone().unwrap_or_default(),
        });
    }

    /// The running attempt was sent a second time: the resting connection that it took had been closed. A line of the
    /// trail for the first.
    #[cold]
    pub fn sent_again(&mut self) {
        let Some(running) = self.running.take() else { return };
        let again = Running { began: Instant::now(), ..running };
        self.running = Some(running);
        self.tried(AttemptResult::SystemError, None, "the resting connection was closed".to_owned());
        self.running = Some(again);
    }

    /// The attempt gave no answer: what was seen of it is nobody's to pay.
    pub fn failed(&mut self) {
        self.scanner = None;
        self.is_not_with_upstream();
    }

    /// Who is not asked. The first time counts: later most of them are those that were tried.
    #[cold]
    pub fn skips(&mut self, whom: impl FnOnce(&Opening) -> Vec<Skipped>) {
        if self.skipped.is_empty() {
            self.skipped = whom(&self.opening);
        }
    }

    /// How many attempts there were.
    pub fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// An answer begins: what follows is scanned for usage.
    pub fn answering(&mut self, scanner: UsageScanner) -> &mut UsageScanner {
        self.scanner.insert(Box::new(scanner))
    }

    /// The scanner of the running answer.
    pub fn scanner(&mut self) -> Option<&mut UsageScanner> {
        self.scanner.as_deref_mut()
    }

    /// When the upstream was last heard; until then, since when it was asked.
    pub fn heard(&mut self, at: Instant) {
        self.heard = Some(at);
    }

    /// Bytes go to the caller.
    pub fn sent(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
        if self.first_byte.is_none() {
            self.first_byte = Some(Instant::now());
        }
    }

    /// Ends the request. The first call counts, later ones do nothing.
    pub fn finish(&mut self, outcome: Outcome, status: u16, error: Option<String>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let verdict = self.verdict(outcome);
        if outcome == Outcome::Aborted {
            self.tried(AttemptResult::ClientAbort, None, String::new());
        }
        let usage = self.usage(outcome);
        let bill = self.bill(outcome, &usage);
        if bill.unpriced == Some(WhyUnpriced::NoPrice) {
            self.shared.lacks_price(&self.opening.model);
        }
        self.settle(outcome, bill.charge());
        self.tell_health(verdict);
        let record = self.record(End { outcome, status, error }, usage, bill);
        trace::finish_request(&self.span, &record);
        self.shared.metrics.finished(&record);
        telemetry::access(&record);
        if let Err(error) = self.shared.spool.append(&record, self.slot.take()) {
            self.shared.metrics.record_lost();
            tracing::error!(request_id = %record.id, %error, "a usage record could not be written to the spool");
        }
    }

    fn settle(&mut self, outcome: Outcome, charge: Option<Decimal>) {
        let Some(counters) = self.reserved.take() else { return };
        let served = outcome == Outcome::Completed;
        let answered = !matches!(outcome, Outcome::Exhausted | Outcome::Blocked | Outcome::Internal);
        let bind =
            self.upstream.as_ref().filter(|up| served && !up.row.disable_session_reuse).map(|up| up.row.id);
        self.limiter.settle(Settlement {
            request: self.opening.id,
            home: self.opening.home(),
            user: self.opening.caller.user.id,
            now_ms: self.opening.now_ms(),
            counters,
            actual: charge.map(NanoUsd::from_usd),
            session: self.opening.session.clone(),
            bind,
            hold: self.hold.take(),
            answered,
        });
    }

    fn record(&mut self, end: End, usage: Usage, bill: Bill) -> UsageRecord {
        let End { outcome, status, error } = end;
        let opening = &mut self.opening;
        let (blocked_by, blocked_reason) = self.blocked.take().unzip();
        let ttft = self.first_byte.map(|at| millis(at.duration_since(opening.started).as_millis()));
        UsageRecord {
            id: opening.id,
            proxy_id: self.shared.config.proxy_id.clone(),
            started_at_ms: opening.started_at_ms,
            owner_id: opening.caller.user.owner_id,
            user_id: opening.caller.user.id,
            key_id: opening.caller.key.id,
            provider_id: self.upstream.as_ref().map(|up| -> ProviderId { up.row.id }),
            session_id: opening.session.as_deref().map(str::to_owned),
            dialect: opening.dialect,
            endpoint: std::mem::take(&mut opening.endpoint),
            model: std::mem::take(&mut opening.model),
            upstream_model: self.upstream_model.take(),
            response_model: usage.response_model,
            billed_model: bill.model,
            streamed: opening.streamed,
            outcome,
            status,
            error,
            blocked_by,
            blocked_reason,
            tokens: usage.tokens,
            usage_source: usage.source,
            cost: bill.cost,
            unpriced: bill.unpriced,
            held_cost: bill.held,
            cost_parts: bill.parts,
            cost_multiplier: bill.multiplier,
            generation: opening.table.generation,
            duration_ms: millis(opening.started.elapsed().as_millis()),
            ttft_ms: ttft,
            attempts: std::mem::take(&mut self.attempts),
            user_agent: opening.user_agent.take(),
            client_ip: Some(std::mem::take(&mut opening.client_ip)),
            trace_id: trace::trace_id(&self.span),
            request_bytes: opening.request_bytes,
            response_bytes: self.response_bytes,
            messages_count: opening.messages_count,
            skipped: std::mem::take(&mut self.skipped),
        }
    }
}

impl Drop for Meter {
    /// The caller hung up: hyper dropped the handler or the body before its end.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (outcome, status) = if std::thread::panicking() {
            (Outcome::Internal, 500)
        } else {
            (Outcome::Aborted, STATUS_ABORTED)
        };
        self.finish(outcome, status, None);
    }
}

/// A try at a provider.
#[derive(Clone, Copy)]
pub struct Running {
    /// Why this provider.
    pub selected_by: SelectedBy,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    /// The same instant, for its duration.
    pub began: Instant,
}

/// How it ended.
struct End {
    outcome: Outcome,
    status: u16,
    error: Option<String>,
}

/// Saturates after 49 days.
pub fn millis(value: u128) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
