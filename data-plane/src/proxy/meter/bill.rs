//! What a request used and what that costs. Reads the meter, changes nothing.

use super::super::budget::FREE;
use super::super::force;
use super::Meter;
use crate::bill::{self, Bill, Names, Service};
use crate::config::BillAborted;
use contract::usage::{Outcome, TokenCounts, UsageSource};
use llm::usage::UsageScanner;
use rust_decimal::Decimal;

impl Meter {
    pub(super) fn usage(&mut self, outcome: Outcome) -> Usage {
        let scanner = self.scanner.take().filter(|scanner| scanner.saw_anything());
        let Some(scanner) = scanner else { return self.unanswered(outcome) };
        if outcome == Outcome::Aborted && scanner.leading_error().is_some() {
            return Usage::none();
        }
        let mut seen = scanner.finish();
        // Only the end of an answer says for certain which tier served it.
        let priority = seen.service_tier.as_deref() == Some("priority");
        if let Some(up) = &self.upstream {
            let wish = self.opening.caller.key.cache_ttl;
            force::cache_writes(up, wish, &mut seen.tokens, seen.lifetimes);
        }
        let billed = matches!(outcome, Outcome::Completed | Outcome::Aborted | Outcome::Cut);
        let (tokens, source) = if !billed || !self.opening.kind.is_metered() {
            (seen.tokens, if seen.reported { UsageSource::Reported } else { UsageSource::None })
        } else {
            // What the upstream did not report was used all the same: the input as sent, the output as seen.
            seen.or_estimated(|| self.input().0)
        };
        if source == UsageSource::Reported
            && let Some(place) = self.conversation()
        {
            self.shared.last_classes.learn(place, &tokens);
        }
        // An answer that says what it used says so of fast mode, too; of others what was asked for holds.
        let fast = seen.fast.unwrap_or(self.opening.fast && source != UsageSource::Reported);
        Usage { tokens, source, response_model: seen.response_model, priority, fast }
    }

    /// Whether it will be billed by what it used, and that is not known yet but will be at the end of its answer: not of
    /// one that failed, and not of one of which so little came for so long that nobody should wait for more.
    pub fn lacks_usage(&self) -> bool {
        let config = &self.shared.config;
        let is_told = |scanner: &UsageScanner| scanner.first_content() && scanner.error().is_none();
        !self.finished
            && self.opening.kind.is_metered()
            && config.bill_aborted != BillAborted::Free
            && self.scanner.as_deref().is_some_and(is_told)
            && self.heard.is_some_and(|heard| heard.elapsed() < config.hangup_silence)
    }

    /// Scans a piece that goes to nobody; whether it is the last one that says anything.
    pub fn scanned_last(&mut self, piece: &[u8]) -> bool {
        let Some(scanner) = &mut self.scanner else { return true };
        scanner.feed(piece);
        if scanner.held() > FREE {
            // An image or the like.
            scanner.pass_over();
        }
        scanner.terminal()
    }

    /// Of an answer of which nothing came nothing is billed, unless it is the caller who did not wait for it, or there was
    /// nothing to say: the upstream works, or has worked, on what it was sent, and is paid for it.
    fn unanswered(&self, outcome: Outcome) -> Usage {
        if !matches!(outcome, Outcome::Aborted | Outcome::Completed)
            || !self.is_with_upstream.get()
            || !self.opening.kind.is_metered()
        {
            return Usage::none();
        }
        let (tokens, source) = self.input();
        Usage { tokens, source, fast: self.opening.fast, ..Usage::none() }
    }

    /// The input, estimated from the size of the request.
    fn input(&self) -> (TokenCounts, UsageSource) {
        bill::hung_up(self.opening.input_bytes, self.last_classes())
    }

    pub(super) fn bill(&self, outcome: Outcome, usage: &Usage) -> Bill {
        let multiplier = self.upstream.as_ref().map_or(Decimal::ONE, |up| up.row.cost_multiplier);
        let free = match outcome {
            _ if !self.opening.kind.is_metered() => true,
            Outcome::Completed => false,
            Outcome::Aborted | Outcome::Cut | Outcome::Interrupted => {
                usage.source == UsageSource::None || self.shared.config.bill_aborted == BillAborted::Free
            }
            Outcome::Rejected | Outcome::Exhausted | Outcome::Blocked | Outcome::Internal => true,
        };
        // What is billed was sent to somebody.
        let Some(up) = self.upstream.as_ref().filter(|_| !free) else { return Bill::free(multiplier) };
        let service = Service {
            owner: self.opening.caller.user.owner_id,
            names: Names {
                asked: &self.opening.model,
                sent: self.upstream_model.as_deref(),
                answered: usage.response_model.as_deref(),
                falls_back: self.opening.falls_back,
            },
            kind: up.row.kind,
            multiplier,
            fast: usage.fast,
        };
        bill::bill(&self.opening.table, &service, &usage.tokens, usage.priority)
    }
}

/// What was used.
pub struct Usage {
    pub tokens: TokenCounts,
    pub source: UsageSource,
    pub response_model: Option<String>,
    /// Whether the priority tier served it.
    pub priority: bool,
    /// Whether it was served in fast mode.
    pub fast: bool,
}

impl Usage {
    fn none() -> Self {
        Self {
            tokens: TokenCounts::default(),
            source: UsageSource::None,
            response_model: None,
            priority: false,
            fast: false,
        }
    }
}
