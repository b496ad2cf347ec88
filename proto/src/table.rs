//! Plain immutable rows of the routing table. What a proxy needs and nothing else; built by `convert`.

mod options;
mod owner;

pub use options::{AdaptiveThinking, Anthropic, CacheTtl, Codex, Options};
pub use owner::{CounterNaming, OwnerConfig, Unpriced, WordScope};

use crate::ids::{KeyId, ProviderId, UserId};
use crate::money::Price;
use crate::usage::Dialect;
use crate::window::Window;
use rust_decimal::Decimal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The group of a provider or caller that names none.
pub const DEFAULT_GROUP: &str = "default";
/// In a caller's groups: every group.
pub const ALL_GROUPS: &str = "*";

/// What a limit counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One client key.
    Key(KeyId),
    /// All keys of one user.
    User(UserId),
    /// One upstream credential.
    Provider(ProviderId),
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    /// Admitted requests.
    Requests,
    /// Nano-USD.
    Usd,
    /// Distinct sessions that are alive now.
    Sessions,
}

/// One limit of a key, user or provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub measure: Measure,
    /// Over which time.
    pub window: Window,
    /// Requests, sessions, or nano-USD; always > 0.
    pub amount: i64,
    /// Unix milliseconds: spend before this does not count (soft reset).
    pub since_ms: Option<i64>,
    /// Unix milliseconds: up to then whoever holds the row knew it without this limit, so nobody counted. Never sent.
    pub absent_until_ms: Option<i64>,
}

impl Limit {
    /// The `limit_type` word of the refusal body.
    pub fn word(&self) -> &'static str {
        match (self.measure, self.window) {
            (Measure::Requests, _) => "rpm",
            (Measure::Sessions, _) => "concurrent_sessions",
            (Measure::Usd, Window::FiveHours | Window::FiveHoursFixed) => "usd_5h",
            (Measure::Usd, Window::Week) => "usd_weekly",
            (Measure::Usd, Window::Month) => "usd_monthly",
            (Measure::Usd, Window::Total) => "usd_total",
            (Measure::Usd, Window::Day { .. } | Window::DayRolling | Window::Minute | Window::Concurrent) => {
                "daily_quota"
            }
        }
    }
}

/// A client credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Identity.
    pub id: KeyId,
    /// Owner.
    pub user_id: UserId,
    /// SHA-256 of the clear key.
    pub hash: [u8; 32],
    /// For people.
    pub name: String,
    /// Switched off keys are refused with their own reason.
    pub enabled: bool,
    /// Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    /// Empty: the user's.
    pub groups: Vec<Arc<str>>,
    /// The key's own limits.
    pub limits: Vec<Limit>,
    /// How long is kept what its requests mark to be cached; none: as the provider says.
    pub cache_ttl: Option<CacheTtl>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Identity.
    pub id: UserId,
    /// First-level account whose providers serve this user.
    pub owner_id: UserId,
    /// For people.
    pub name: String,
    /// Switched off users' keys are refused.
    pub enabled: bool,
    /// Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    /// Empty: [`DEFAULT_GROUP`].
    pub groups: Vec<Arc<str>>,
    /// Limits over all of the user's keys.
    pub limits: Vec<Limit>,
    /// Empty: all. Compared without regard to case.
    pub allowed_models: Vec<String>,
    /// User-Agent patterns; empty: all.
    pub allowed_clients: Vec<String>,
    /// User-Agent patterns.
    pub blocked_clients: Vec<String>,
    /// Pool number used when no mapper names one.
    pub level: i32,
}

/// What a provider speaks and how it takes its credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// Anthropic Messages; `x-api-key` and Bearer.
    Claude,
    /// Anthropic Messages; Bearer only.
    ClaudeAuth,
    /// OpenAI Responses; Bearer.
    Codex,
    /// OpenAI Chat Completions and the other OpenAI paths; Bearer.
    OpenAiCompatible,
    /// Gemini native; `x-goog-api-key`.
    Gemini,
    /// Gemini through its CLI's endpoint; OAuth.
    GeminiCli,
}

impl ProviderKind {
    /// Every kind, in the order of the admin API's list.
    pub const ALL: [Self; 6] =
        [Self::Claude, Self::ClaudeAuth, Self::Codex, Self::Gemini, Self::GeminiCli, Self::OpenAiCompatible];

    /// The word of the admin API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::ClaudeAuth => "claude-auth",
            Self::Codex => "codex",
            Self::OpenAiCompatible => "openai-compatible",
            Self::Gemini => "gemini",
            Self::GeminiCli => "gemini-cli",
        }
    }

    /// The kind of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The dialect it serves.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Claude | Self::ClaudeAuth => Dialect::Anthropic,
            Self::Codex => Dialect::Responses,
            Self::OpenAiCompatible => Dialect::OpenAi,
            Self::Gemini | Self::GeminiCli => Dialect::Gemini,
        }
    }
}

/// How a model rule compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchType {
    /// The whole name.
    Exact,
    /// Its beginning.
    Prefix,
    /// Its end.
    Suffix,
    /// Any part.
    Contains,
    /// A regular expression (linear-time engine).
    Regex,
}

impl MatchType {
    /// Every way.
    pub const ALL: [Self; 5] = [Self::Exact, Self::Prefix, Self::Suffix, Self::Contains, Self::Regex];

    /// The word of the admin API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Suffix => "suffix",
            Self::Contains => "contains",
            Self::Regex => "regex",
        }
    }

    /// The way of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A model rule: an allow-list entry (`target` is `None`) or a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRule {
    /// How to compare.
    pub match_type: MatchType,
    /// With what.
    pub pattern: String,
    /// The model to send upstream.
    pub target: Option<String>,
}

/// Parameters of a provider's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Consecutive failures that open it; 0: never.
    pub failure_threshold: u32,
    /// How long it stays open.
    pub open: Duration,
    /// Successes in half-open that close it.
    pub half_open_successes: u32,
}

impl Default for Breaker {
    /// The actions API's defaults: 5 failures, 30 minutes, 2 successes.
    fn default() -> Self {
        Self { failure_threshold: 5, open: Duration::from_secs(1800), half_open_successes: 2 }
    }
}

/// One upstream credential at one base URL.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Identity.
    pub id: ProviderId,
    /// Whose it is; serves only this owner's users.
    pub owner_id: UserId,
    /// For people.
    pub name: String,
    /// Absolute http(s) URL, with or without `/v1` or the full endpoint path.
    pub base_url: String,
    /// Dialect and credential form.
    pub kind: ProviderKind,
    /// Sealed, see [`crate::seal`]; associated data [`credential_aad`].
    pub credential: Vec<u8>,
    /// Switched off providers are not chosen.
    pub enabled: bool,
    /// Share among providers of the same priority, 1..=100.
    pub weight: u32,
    /// Lower is preferred.
    pub priority: i32,
    /// Empty: [`DEFAULT_GROUP`].
    pub groups: Vec<Arc<str>>,
    /// Priority by caller's group, where it differs.
    pub group_priorities: BTreeMap<String, i32>,
    /// Factor on the cost.
    pub cost_multiplier: Decimal,
    /// Model names to send upstream instead of the asked one.
    pub redirects: Vec<ModelRule>,
    /// Empty: all.
    pub allowed_models: Vec<ModelRule>,
    /// Limits of this upstream account; a provider at its limit is skipped.
    pub limits: Vec<Limit>,
    /// Attempts per request; `None`: the proxy's default.
    pub max_attempts: Option<u32>,
    /// Health parameters.
    pub breaker: Breaker,
    /// To the first content byte of a stream; zero: the proxy's default.
    pub first_byte_timeout: Duration,
    /// Between two chunks of a stream; zero: the proxy's default.
    pub idle_timeout: Duration,
    /// Whole answer when not streaming; zero: the proxy's default.
    pub total_timeout: Duration,
    /// Pool number.
    pub level: i32,
    /// Sent upstream; can never replace authentication, host or transport headers.
    pub custom_headers: BTreeMap<String, String>,
    /// Minutes of the day between which it is used; may pass midnight.
    pub active: Option<(u16, u16)>,
    /// Whether the caller's address headers are passed on.
    pub preserve_client_ip: bool,
    /// Whether sessions never stick to it.
    pub disable_session_reuse: bool,
    /// User-Agent patterns of the programs that it serves; empty: all.
    pub allowed_clients: Vec<String>,
    /// User-Agent patterns of those that it does not.
    pub blocked_clients: Vec<String>,
    /// What few providers have.
    pub options: Option<Box<Options>>,
    /// `base_url` and `custom_headers`, sealed, where one of them may hold a secret; empty elsewhere. On the wire they
    /// are empty while it is not. See [`crate::private`].
    pub private: Vec<u8>,
}

/// Associated data under which a provider's credential is sealed: its identity, so that a sealed value
/// moved to another row does not open.
pub fn credential_aad(id: ProviderId) -> String {
    format!("provider:{id}:credential")
}

/// The price of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPrice {
    /// Model name.
    pub model: String,
    /// USD per token.
    pub price: Price,
}

/// A sensitive word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Identity.
    pub id: i64,
    /// Whose users it holds for.
    pub owner_id: UserId,
    /// `Exact`, `Contains` or `Regex`.
    pub match_type: MatchType,
    /// The word or expression.
    pub word: String,
}

/// A provider's health as all proxies were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircuitState {
    /// Serves.
    Closed,
    /// Sleeps until a time.
    Open,
    /// On trial.
    HalfOpen,
    /// Its credential was refused three times in a row; only a person wakes it.
    Disabled,
}

/// One row of the health section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whose.
    pub provider_id: ProviderId,
    /// State.
    pub state: CircuitState,
    /// Unix milliseconds; set when open.
    pub until_ms: Option<i64>,
    /// `failures`, `rate_limited`, `credential`, `manual`.
    pub reason: String,
    /// Consecutive failures.
    pub failures: u32,
    /// Grows with every transition or reset; the newest wins.
    pub epoch: i64,
}

impl Health {
    /// Which of two reports of one provider holds: the newer one; of two of the same number, which two proxies made at
    /// the same time, the more careful one. Both planes compare this, so that all come to the same.
    pub fn order(&self) -> (i64, u8, i64) {
        let (care, until_ms) = self.state.care(self.until_ms);
        (self.epoch, care, until_ms)
    }
}

impl CircuitState {
    /// How careful a state is, and of open ones which is open for longer.
    pub fn care(self, until_ms: Option<i64>) -> (u8, i64) {
        match self {
            Self::Closed => (0, 0),
            Self::HalfOpen => (1, 0),
            Self::Open => (2, until_ms.unwrap_or_default()),
            Self::Disabled => (3, 0),
        }
    }
}

/// All rows of one section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Client credentials.
    pub keys: Vec<Key>,
    /// Users.
    pub users: Vec<User>,
    /// Upstream credentials.
    pub providers: Vec<Provider>,
    /// Prices.
    pub prices: Vec<ModelPrice>,
    /// Owners' settings.
    pub owners: Vec<OwnerConfig>,
    /// Sensitive words.
    pub words: Vec<Word>,
    /// Health.
    pub health: Vec<Health>,
}
