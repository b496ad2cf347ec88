//! The state machine of one provider. Pure: every input is an argument, the clock among them.
//!
//! closed → (threshold failures in a row) → open until T → half-open (one trial at a time) → closed after N
//! successes, or open again after one failure. A 429 sleeps and returns to where it came from.

use super::{CREDENTIAL_REFUSALS, DEFAULT_RETRY_AFTER, Gate, MAX_RETRY_AFTER, TRIAL_LIMIT, Verdict};
use contract::ids::ProviderId;
use contract::table::{Breaker, CircuitState, Health};
use std::time::Duration;

/// Reason of a provider that was opened by failures.
pub const FAILURES: &str = "failures";
/// Reason of a provider that sleeps after a 429.
pub const RATE_LIMITED: &str = "rate_limited";
/// Reason of a provider whose credential was refused.
pub const CREDENTIAL: &str = "credential";

/// Where a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Serves.
    Closed,
    /// Sleeps until `until_ms`.
    Open {
        /// Unix milliseconds.
        until_ms: i64,
        /// Where it goes when it wakes.
        then: Wake,
    },
    /// On trial.
    HalfOpen {
        /// Successes so far.
        successes: u32,
        /// When the trial under way began.
        trial_ms: Option<i64>,
    },
    /// Its credential was refused; only a person wakes it.
    Disabled,
}

/// Where a sleeper goes when it wakes. A 429 says nothing against a provider, so it goes on as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// It slept after failures: on trial.
    OnTrial,
    /// It slept after a 429 while it served.
    Serving,
    /// It slept after a 429 while it was on trial.
    Resume {
        /// Successes before.
        successes: u32,
    },
}

/// The health of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    state: State,
    failures: u32,
    /// When the last of them was, Unix milliseconds.
    failed_ms: i64,
    refusals: u32,
    epoch: i64,
    reason: &'static str,
}

impl Default for Machine {
    fn default() -> Self {
        Self { state: State::Closed, failures: 0, failed_ms: 0, refusals: 0, epoch: 0, reason: "" }
    }
}

impl Machine {
    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Number of the last transition.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// When the last failure was that it counts, Unix milliseconds.
    pub fn failed_ms(&self) -> i64 {
        self.failed_ms
    }

    /// Whether it serves, whoever asks: no gate needed.
    pub fn serves(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether another success would change nothing.
    pub fn is_clean(&self) -> bool {
        self.serves() && self.failures == 0 && self.refusals == 0
    }

    /// What [`Machine::enter`] would answer.
    pub fn peek(&self, now_ms: i64) -> Gate {
        match self.state {
            State::Closed => Gate::Open,
            State::Disabled => Gate::Asleep { until_ms: None },
            State::Open { until_ms, .. } if now_ms < until_ms => Gate::Asleep { until_ms: Some(until_ms) },
            State::Open { then: Wake::Serving, .. } => Gate::Open,
            State::Open { .. } => Gate::Trial,
            State::HalfOpen { trial_ms: Some(since), .. } if now_ms < later(since, TRIAL_LIMIT) => {
                // Known to wake by itself: alone in its pool it is still the last resort while its trial runs.
                Gate::Asleep { until_ms: Some(later(since, TRIAL_LIMIT)) }
            }
            State::HalfOpen { .. } => Gate::Trial,
        }
    }

    /// Asks to use the provider now. `Gate::Trial` takes the trial. The second part says whether the state
    /// changed in a way that others must hear of.
    pub fn enter(&mut self, now_ms: i64) -> (Gate, bool) {
        let gate = self.peek(now_ms);
        let successes = match (gate, self.state) {
            (Gate::Open, State::Open { .. }) => return (gate, self.go(State::Closed, "")),
            (Gate::Trial, State::Open { then: Wake::Resume { successes }, .. }) => successes,
            (Gate::Trial, State::HalfOpen { successes, .. }) => {
                self.state = State::HalfOpen { successes, trial_ms: Some(now_ms) };
                return (gate, false);
            }
            (Gate::Trial, _) => 0,
            _ => return (gate, false),
        };
        let changed = self.go(State::HalfOpen { successes, trial_ms: Some(now_ms) }, self.reason);
        (gate, changed)
    }

    /// Gives back a trial that came to nothing.
    pub fn release(&mut self) {
        if let State::HalfOpen { trial_ms, .. } = &mut self.state {
            *trial_ms = None;
        }
    }

    /// Takes note of an attempt's outcome. Says whether others must hear of a change.
    pub fn record(&mut self, verdict: Verdict, rules: &Breaker, now_ms: i64) -> bool {
        if self.state == State::Disabled {
            // Only a person wakes it, and its row stays as it was reported.
            return false;
        }
        match verdict {
            Verdict::Neutral => {
                self.release();
                false
            }
            Verdict::Success => self.success(rules),
            Verdict::Failure => {
                self.refusals = 0;
                self.failure(rules, now_ms)
            }
            Verdict::RateLimited { retry_after } => {
                self.refusals = 0;
                self.sleep(retry_after, now_ms)
            }
            Verdict::CredentialRefused => {
                self.refusals = self.refusals.saturating_add(1);
                if self.refusals < CREDENTIAL_REFUSALS {
                    return self.failure(rules, now_ms);
                }
                self.failures = self.failures.saturating_add(1);
                self.failed_ms = now_ms;
                self.go(State::Disabled, CREDENTIAL)
            }
        }
    }

    fn success(&mut self, rules: &Breaker) -> bool {
        let successes = match self.state {
            State::Closed => {
                (self.failures, self.refusals) = (0, 0);
                return false;
            }
            // An answer that was under way when the 429 came proves nothing.
            State::Disabled | State::Open { then: Wake::Serving | Wake::Resume { .. }, .. } => return false,
            // The last resort worked, although it should still sleep: the first success of its trial.
            State::Open { then: Wake::OnTrial, .. } => 1,
            State::HalfOpen { successes, .. } => successes.saturating_add(1),
        };
        (self.failures, self.refusals) = (0, 0);
        if successes >= rules.half_open_successes.max(1) {
            return self.go(State::Closed, "");
        }
        let was_open = matches!(self.state, State::Open { .. });
        self.state = State::HalfOpen { successes, trial_ms: None };
        was_open && self.go(self.state, self.reason)
    }

    fn failure(&mut self, rules: &Breaker, now_ms: i64) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failed_ms = now_ms;
        let opens = match self.state {
            State::Closed => rules.failure_threshold > 0 && self.failures >= rules.failure_threshold,
            State::HalfOpen { .. } => rules.failure_threshold > 0,
            State::Open { .. } | State::Disabled => false,
        };
        self.release();
        opens && {
            let until_ms = later(now_ms, rules.open);
            self.go(State::Open { until_ms, then: Wake::OnTrial }, FAILURES)
        }
    }

    fn sleep(&mut self, retry_after: Option<Duration>, now_ms: i64) -> bool {
        let until_ms = later(now_ms, retry_after.unwrap_or(DEFAULT_RETRY_AFTER).min(MAX_RETRY_AFTER));
        match self.state {
            State::Disabled => false,
            State::Closed => self.go(State::Open { until_ms, then: Wake::Serving }, RATE_LIMITED),
            State::HalfOpen { successes, .. } => {
                self.go(State::Open { until_ms, then: Wake::Resume { successes } }, RATE_LIMITED)
            }
            // Of two sleeps the longer one; many answers with 429 at once are one sleep.
            State::Open { until_ms: held, then } if held < until_ms => {
                self.go(State::Open { until_ms, then }, self.reason)
            }
            State::Open { .. } => false,
        }
    }

    /// Takes over what all proxies were told, if it is newer. Of two truths of the same number the more
    /// careful one counts, so that all proxies come to the same. Says whether it was taken over.
    pub fn adopt(&mut self, row: &Health, now_ms: i64) -> bool {
        let mine = (self.epoch, self.care());
        let state = match (row.state, row.until_ms) {
            (CircuitState::Closed, _) => State::Closed,
            (CircuitState::Open, Some(until_ms)) => State::Open { until_ms, then: wake(&row.reason) },
            // Open without an end is a mistake; trying it is safer than never waking it.
            (CircuitState::Open, None) => State::Open { until_ms: now_ms, then: Wake::OnTrial },
            (CircuitState::HalfOpen, _) => match self.state {
                State::HalfOpen { .. } => self.state,
                _ => State::HalfOpen { successes: 0, trial_ms: None },
            },
            (CircuitState::Disabled, _) => State::Disabled,
        };
        if mine >= (row.epoch, care(state)) {
            return false;
        }
        *self = Self {
            state,
            failures: if state == State::Closed { 0 } else { row.failures },
            failed_ms: self.failed_ms,
            refusals: if state == State::Disabled { CREDENTIAL_REFUSALS } else { 0 },
            epoch: row.epoch,
            reason: known_reason(&row.reason),
        };
        true
    }

    /// Never opens again by failures: what a threshold of 0 means for a provider that is open now.
    pub fn force_closed(&mut self) -> bool {
        let by_failures = match self.state {
            State::HalfOpen { .. } => true,
            State::Open { then, .. } => then != Wake::Serving,
            State::Closed | State::Disabled => false,
        };
        by_failures && self.go(State::Closed, "")
    }

    /// As it is reported.
    pub fn row(&self, provider_id: ProviderId) -> Health {
        let (state, until_ms) = match self.state {
            State::Closed => (CircuitState::Closed, None),
            State::Open { until_ms, .. } => (CircuitState::Open, Some(until_ms)),
            State::HalfOpen { .. } => (CircuitState::HalfOpen, None),
            State::Disabled => (CircuitState::Disabled, None),
        };
        let reason = self.reason.to_owned();
        Health { provider_id, state, until_ms, reason, failures: self.failures, epoch: self.epoch }
    }

    fn go(&mut self, state: State, reason: &'static str) -> bool {
        if state == State::Closed && !matches!(self.state, State::Open { then: Wake::Serving, .. }) {
            (self.failures, self.refusals) = (0, 0);
        }
        (self.state, self.reason) = (state, reason);
        self.epoch = self.epoch.saturating_add(1);
        true
    }

    fn care(&self) -> (u8, i64) {
        care(self.state)
    }
}

fn care(state: State) -> (u8, i64) {
    match state {
        State::Closed => (0, 0),
        State::HalfOpen { .. } => (1, 0),
        State::Open { until_ms, .. } => (2, until_ms),
        State::Disabled => (3, 0),
    }
}

fn wake(reason: &str) -> Wake {
    if reason == RATE_LIMITED { Wake::Serving } else { Wake::OnTrial }
}

fn known_reason(reason: &str) -> &'static str {
    [FAILURES, RATE_LIMITED, CREDENTIAL, "manual"].into_iter().find(|known| *known == reason).unwrap_or("")
}

fn later(now_ms: i64, by: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
