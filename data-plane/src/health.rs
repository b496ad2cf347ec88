//! Which providers may be used now: one small state machine per provider ([`machine`]), shared by all
//! threads in a [`Book`]. The clock is an argument everywhere.
//!
//! Floor 2. Never waits, never does I/O; transitions are collected for `control` to report.

pub mod book;
pub mod fault;
pub mod machine;

pub use book::Book;

use std::time::Duration;

/// The longest sleep that an upstream's `Retry-After` can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// How long a provider sleeps after a 429 that names no time.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Refused credentials in a row that disable a provider.
pub const CREDENTIAL_REFUSALS: u32 = 3;
/// After this time a trial counts as lost, and another may begin. Above the longest answer that is waited for.
pub const TRIAL_LIMIT: Duration = Duration::from_secs(900);

/// What an attempt says about its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An answer with content.
    Success,
    /// 5xx, 408, no connection, timeout, cut, or an error in the guise of a 200.
    Failure,
    /// 429: sleeps, and counts neither as failure nor as success.
    RateLimited {
        /// As the upstream asked; capped here.
        retry_after: Option<Duration>,
    },
    /// 401, 402 or 403.
    CredentialRefused,
    /// Nothing: the caller's fault, a model that is unknown there, a caller who hung up.
    Neutral,
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
        /// Unix milliseconds at which it wakes; `None`: only a person wakes it, or a trial is under way.
        until_ms: Option<i64>,
    },
}
