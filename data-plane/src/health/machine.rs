//! The state machine of one provider. Pure: every input is an argument, the clock among them.
//!
//! closed → (threshold failures in a row) → open until T → half-open (one trial at a time) → closed after N
//! successes, or open again after one failure. A 429 sleeps and returns to where it came from. What began before the
//! last transition says nothing about it. A credential is found refused by a request of the gateway's own.

use super::{
    CREDENTIAL_REFUSALS, DEFAULT_RETRY_AFTER, Finding, Gate, LAST_REST, MAX_RETRY_AFTER, Pass, Probe,
    TRIAL_LIMIT, Verdict,
};
use contract::ids::{ProviderId, UserId};
use contract::table::{Breaker, CircuitState, Health};
use std::time::Duration;

/// Hang-ups that are remembered of one provider; beyond, more say no more.
const MAX_HANGUPS: usize = 64;
/// Milliseconds of the time in which an account's hang-ups are one.
const HANGUP_SLOT_MS: i64 = 60_000;

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
    /// Its credential is refused; a request of the gateway's own, or a person, wakes it.
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

/// Whose requests a provider failed, in a row. What one account sends may be what breaks it, so one account's failures
/// alone open no circuit while others are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Witness {
    /// Nobody's.
    #[default]
    Nobody,
    /// This account's alone.
    One(UserId),
    /// Several accounts', or those of the only account that sends anything.
    Several,
}

impl Witness {
    fn and(self, account: Option<UserId>) -> Self {
        match (self, account) {
            (Self::Nobody, Some(account)) => Self::One(account),
            (Self::One(before), Some(account)) if before == account => self,
            _ => Self::Several,
        }
    }
}

/// The health of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    state: State,
    failures: u32,
    /// Whose requests failed, as far as that matters.
    witness: Witness,
    /// When the last of them was, Unix milliseconds.
    failed_ms: i64,
    refusals: u32,
    /// Who left streams that were silent, and in which minute.
    hangups: Vec<(UserId, i64)>,
    epoch: i64,
    /// Number of the last trial.
    trials: u32,
    reason: &'static str,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            witness: Witness::Nobody,
            failed_ms: 0,
            refusals: 0,
            hangups: Vec::new(),
            epoch: 0,
            trials: 0,
            reason: "",
        }
    }
}

impl Machine {
    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it is on trial, and why it is where it is.
    pub fn reason(&self) -> (bool, &'static str) {
        (matches!(self.state, State::HalfOpen { .. }), self.reason)
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
        self.serves() && self.failures == 0 && self.refusals == 0 && self.hangups.is_empty()
    }

    /// Whether the gateway should ask itself: callers were refused so often in a row, or so many requests of one account
    /// failed.
    pub fn is_suspected(&self, rules: &Breaker) -> bool {
        self.refusals >= CREDENTIAL_REFUSALS && !self.is_refused() || self.is_doubted(rules)
    }

    /// Whether one account's failures would be enough, were they not one account's. Not on trial: a provider that failed
    /// before and fails again is not left on trial, where each next request would try it.
    fn is_doubted(&self, rules: &Breaker) -> bool {
        let is_one = matches!(self.witness, Witness::One(_)) && self.state == State::Closed;
        is_one && self.is_enough(rules) && !self.is_left_by_several(rules)
    }

    /// Whether the gateway found the credential refused, and it was not accepted since.
    pub fn is_refused(&self) -> bool {
        self.state == State::Disabled || (self.reason == CREDENTIAL && self.state != State::Closed)
    }

    /// What an attempt that is let through by `gate` holds.
    pub fn pass(&self, gate: Gate) -> Pass {
        let trial = if gate == Gate::Trial { self.trials } else { 0 };
        Pass { epoch: self.epoch, trial, account: None }
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
                self.trials = self.trials.wrapping_add(1).max(1);
                self.state = State::HalfOpen { successes, trial_ms: Some(now_ms) };
                return (gate, false);
            }
            (Gate::Trial, _) => 0,
            _ => return (gate, false),
        };
        self.trials = self.trials.wrapping_add(1).max(1);
        let changed = self.go(State::HalfOpen { successes, trial_ms: Some(now_ms) }, self.reason);
        (gate, changed)
    }

    /// Takes note of an attempt's outcome. Says whether others must hear of a change.
    pub fn record(&mut self, verdict: Verdict, pass: Pass, rules: &Breaker, now_ms: i64) -> bool {
        let on_trial = self.ends_trial(pass);
        if self.state == State::Disabled {
            // Its row stays as it was reported.
            return false;
        }
        if let Verdict::RateLimited { retry_after } = verdict {
            // A limit is a limit whenever the request began; but somebody else's trial goes on.
            self.refusals = 0;
            let elsewhere = matches!(self.state, State::HalfOpen { .. }) && !on_trial;
            return !elsewhere && self.sleep(retry_after, now_ms);
        }
        if pass.epoch < self.epoch {
            // It began before the last transition and cannot undo it.
            return false;
        }
        match verdict {
            Verdict::Neutral | Verdict::RateLimited { .. } => false,
            Verdict::Success => self.success(rules),
            Verdict::Failure => {
                self.refusals = 0;
                self.failure(on_trial, pass.account, rules, now_ms)
            }
            Verdict::HungUp { account } => self.hung_up(account, rules, now_ms),
            Verdict::CredentialRefused => {
                // No failure, and no end of a trial either: callers can bring refusals about.
                self.refusals = self.refusals.saturating_add(1);
                false
            }
        }
    }

    /// Takes note of a request that the gateway itself made. Says whether others must hear of a change.
    pub fn probed(&mut self, found: Finding, rules: &Breaker, now_ms: i64) -> bool {
        let Finding { probe, pass, is_last } = found;
        if pass.epoch < self.epoch {
            return false;
        }
        match probe {
            Probe::Accepted => {
                let was_refused = self.is_refused();
                self.refusals = 0;
                if self.is_doubted(rules) {
                    // It was those requests.
                    (self.failures, self.witness) = (0, Witness::Nobody);
                }
                was_refused && self.go(State::Closed, "")
            }
            Probe::Refused if is_last => {
                let rests = self.reason == CREDENTIAL
                    && matches!(self.state, State::Open { until_ms, .. } if now_ms < until_ms);
                let until_ms = later(now_ms, LAST_REST);
                !rests && self.go(State::Open { until_ms, then: Wake::OnTrial }, CREDENTIAL)
            }
            Probe::Refused => self.state != State::Disabled && self.go(State::Disabled, CREDENTIAL),
            Probe::Failed | Probe::Unclear => {
                self.refusals = self.refusals.min(CREDENTIAL_REFUSALS - 1);
                probe == Probe::Failed && self.is_doubted(rules) && self.open(FAILURES, rules, now_ms)
            }
        }
    }

    /// Ends the trial under way if it is this attempt's.
    fn ends_trial(&mut self, pass: Pass) -> bool {
        match &mut self.state {
            State::HalfOpen { trial_ms, .. } if pass.trial != 0 && pass.trial == self.trials => {
                trial_ms.take().is_some()
            }
            _ => false,
        }
    }

    fn success(&mut self, rules: &Breaker) -> bool {
        let (successes, trial_ms) = match self.state {
            State::Closed => {
                self.forget();
                return false;
            }
            // An answer that was under way when the 429 came proves nothing.
            State::Disabled | State::Open { then: Wake::Serving | Wake::Resume { .. }, .. } => return false,
            // The last resort worked, although it should still sleep: the first success of its trial.
            State::Open { then: Wake::OnTrial, .. } => (1, None),
            State::HalfOpen { successes, trial_ms } => (successes.saturating_add(1), trial_ms),
        };
        self.forget();
        if successes >= rules.half_open_successes.max(1) {
            return self.go(State::Closed, "");
        }
        let was_open = matches!(self.state, State::Open { .. });
        self.state = State::HalfOpen { successes, trial_ms };
        was_open && self.go(self.state, self.reason)
    }

    fn failure(&mut self, on_trial: bool, account: Option<UserId>, rules: &Breaker, now_ms: i64) -> bool {
        if matches!(self.state, State::HalfOpen { .. }) && !on_trial {
            // Of another request; the one on trial decides.
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_ms = now_ms;
        self.witness = self.witness.and(account);
        self.would_open(rules) && !self.is_doubted(rules) && self.open(FAILURES, rules, now_ms)
    }

    /// Whether what is counted is enough, whoever brought it about.
    fn would_open(&self, rules: &Breaker) -> bool {
        match self.state {
            State::Closed => self.is_enough(rules),
            State::HalfOpen { .. } => rules.failure_threshold > 0,
            State::Open { .. } | State::Disabled => false,
        }
    }

    fn hung_up(&mut self, account: UserId, rules: &Breaker, now_ms: i64) -> bool {
        let seen = (account, now_ms.div_euclid(HANGUP_SLOT_MS));
        if self.state != State::Closed || self.hangups.len() >= MAX_HANGUPS || self.hangups.contains(&seen) {
            return false;
        }
        self.hangups.push(seen);
        self.failed_ms = now_ms;
        self.is_enough(rules) && self.open(FAILURES, rules, now_ms)
    }

    /// Whether failures, and hang-ups of at least two accounts as halves of one, reach the threshold.
    fn is_enough(&self, rules: &Breaker) -> bool {
        let threshold = rules.failure_threshold;
        threshold > 0 && (self.failures >= threshold || self.is_left_by_several(rules))
    }

    fn is_left_by_several(&self, rules: &Breaker) -> bool {
        let several = self.hangups.iter().any(|(account, _)| *account != self.hangups[0].0);
        let halves = u32::try_from(self.hangups.len()).unwrap_or(u32::MAX) / 2;
        several && self.failures.saturating_add(halves) >= rules.failure_threshold
    }

    fn open(&mut self, reason: &'static str, rules: &Breaker, now_ms: i64) -> bool {
        // What comes of its trials is judged anew.
        self.witness = Witness::Nobody;
        let until_ms = later(now_ms, rules.open);
        self.go(State::Open { until_ms, then: Wake::OnTrial }, reason)
    }

    fn forget(&mut self) {
        (self.failures, self.refusals) = (0, 0);
        self.witness = Witness::Nobody;
        self.hangups.clear();
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
            witness: Witness::Nobody,
            hangups: Vec::new(),
            trials: self.trials,
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
        let (state, until_ms) = shown(self.state);
        let reason = self.reason.to_owned();
        Health { provider_id, state, until_ms, reason, failures: self.failures, epoch: self.epoch }
    }

    fn go(&mut self, state: State, reason: &'static str) -> bool {
        if state == State::Closed && !matches!(self.state, State::Open { then: Wake::Serving, .. }) {
            self.forget();
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
    let (state, until_ms) = shown(state);
    state.care(until_ms)
}

/// In the words of the table.
fn shown(state: State) -> (CircuitState, Option<i64>) {
    match state {
        State::Closed => (CircuitState::Closed, None),
        State::Open { until_ms, .. } => (CircuitState::Open, Some(until_ms)),
        State::HalfOpen { .. } => (CircuitState::HalfOpen, None),
        State::Disabled => (CircuitState::Disabled, None),
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
