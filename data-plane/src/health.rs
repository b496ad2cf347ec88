//! Which providers may be used now: one small state machine per provider ([`machine`]), shared by all
//! threads in a [`Book`]. The clock is an argument everywhere.
//!
//! Floor 2. Never waits, never does I/O; transitions are collected for `control` to report.

pub mod book;
pub mod fault;
pub mod machine;
mod rest;
mod senders;

pub use book::Book;

use contract::ids::UserId;
use std::time::Duration;

/// The longest sleep that an upstream's `Retry-After` can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// How long a provider sleeps after a 429 that names no time.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Refusals of the credential in a row after which the gateway asks the provider itself. Only what comes of that
/// disables it, never a caller's request.
pub const CREDENTIAL_REFUSALS: u32 = 3;
/// How long the last provider of a pool rests whose credential is refused; it goes on being the last resort.
pub const LAST_REST: Duration = Duration::from_secs(15 * 60);
/// After this time a trial counts as lost, and another may begin. Above the longest answer that is waited for.
pub const TRIAL_LIMIT: Duration = Duration::from_secs(900);

/// What an attempt says about its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An answer with content.
    Success,
    /// 5xx, 408, no connection, timeout, cut, or an error in the guise of a 200.
    Failure,
    /// A caller left a stream that had been silent for long. Weighs half a failure, once per account and minute, and
    /// opens a circuit only together with another account's.
    HungUp {
        /// Whose key it was.
        account: UserId,
    },
    /// 429: sleeps, and counts neither as failure nor as success.
    RateLimited {
        /// As the upstream asked; capped here.
        retry_after: Option<Duration>,
    },
    /// The answer said that the credential, or its account, is refused.
    CredentialRefused,
    /// Nothing: the caller's fault, a model that is unknown there, a caller who hung up.
    Neutral,
}

/// What an attempt holds from the moment it was let through, so that what it says can be told from what happened
/// since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Number of the provider's last transition then.
    pub epoch: i64,
    /// Number of the trial that it holds; 0: none.
    pub trial: u32,
    /// Whose request it is. None: whose it is makes no difference, because nobody else sends any.
    pub account: Option<UserId>,
}

/// What came of a request that the gateway itself made, to see whether a credential is accepted, and whether a provider
/// is broken for others than the account that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The provider took the credential.
    Accepted,
    /// It said that it refuses it.
    Refused,
    /// Neither: a limit, or a refusal that does not say why.
    Unclear,
    /// It gave no answer, or one that is its own fault.
    Failed,
}

/// A [`Probe`] and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What came of it.
    pub probe: Probe,
    /// From before it was asked.
    pub pass: Pass,
    /// Whether no other provider of a pool of its own can be used: then it is rested and not taken away.
    pub is_last: bool,
}

/// Whether a provider may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// It may once: whoever got this from [`Book::gate`] holds the one trial and owes a `record` or `release`.
    Trial,
    /// It may not.
    Asleep {
        /// Unix milliseconds at which it wakes; `None`: when its credential is accepted again, or by a person.
        until_ms: Option<i64>,
    },
}
