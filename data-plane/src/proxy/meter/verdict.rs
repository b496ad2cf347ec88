//! What the end of a request says of its last provider. Failed attempts were told one by one, before it.

use super::Meter;
use crate::health::Verdict;
use crate::health::fault::{Case, Place, judge};
use contract::usage::Outcome;
use llm::usage::UsageScanner;

impl Meter {
    /// Tells the provider's health, and remembers what was served for the gateway's own requests.
    pub(super) fn tell_health(&self, verdict: Verdict) {
        let Some(upstream) = &self.upstream else { return };
        let now_ms = self.opening.now_ms();
        self.shared.health.record(upstream, self.pass, (&verdict, self.opening.caller.user.id), now_ms);
        if verdict == Verdict::Success && upstream.served.get().is_none() {
            upstream.has_served(self.opening.kind, self.upstream_model.as_deref().unwrap_or_default());
        }
    }

    /// What the end of the request says of its last provider.
    pub(super) fn verdict(&self, outcome: Outcome) -> Verdict {
        match outcome {
            // What is not metered says nothing: it may need no credential.
            Outcome::Completed if self.opening.kind.is_metered() => Verdict::Success,
            Outcome::Cut => self.cut_verdict(),
            Outcome::Aborted => self.hang_up(),
            Outcome::Completed
            | Outcome::Rejected
            | Outcome::Exhausted
            | Outcome::Blocked
            | Outcome::Internal
            | Outcome::Interrupted => Verdict::Neutral,
        }
    }

    /// Of an answer that broke off after content: by its own error event, if it had one.
    #[cold]
    fn cut_verdict(&self) -> Verdict {
        let error = self.scanner.as_deref().and_then(UsageScanner::error);
        let case = |error| Case {
            kind: self.opening.kind,
            repeatable: false,
            place: Place::MidStream,
            status: 200,
            error: Some(error),
            text: "",
            retry_after: None,
            request: &[],
        };
        error.map_or(Verdict::Failure, |error| judge(&case(error)).verdict)
    }

    /// Of a caller who left: nothing, unless it was a stream that had been silent for long. Documents are silent by
    /// nature.
    #[cold]
    fn hang_up(&self) -> Verdict {
        let silent = self.heard.is_some_and(|heard| heard.elapsed() >= self.shared.config.hangup_silence);
        if self.opening.streamed && self.opening.kind.is_metered() && silent {
            return Verdict::HungUp { account: self.opening.caller.user.id };
        }
        Verdict::Neutral
    }
}
