//! What happened to one request: token counts, the outcome, the decision trail, the record.

use crate::ids::{Generation, KeyId, ProviderId, RequestId, UserId};
use rust_decimal::Decimal;
use std::collections::BTreeMap;
use std::fmt;

/// Tokens by price class. All classes are disjoint, except that `reasoning` is a part of `output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Input tokens that came from no cache and went to no cache.
    pub input: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Reasoning tokens, a part of `output`.
    pub reasoning: u64,
    /// Input tokens read from a prompt cache.
    pub cache_read: u64,
    /// Input tokens written to a 5-minute prompt cache.
    pub cache_write_5m: u64,
    /// Input tokens written to a 1-hour prompt cache.
    pub cache_write_1h: u64,
    /// Audio input tokens.
    pub input_audio: u64,
    /// Audio output tokens.
    pub output_audio: u64,
    /// Image input tokens.
    pub input_image: u64,
    /// Image output tokens.
    pub output_image: u64,
}

impl TokenCounts {
    /// All prompt tokens; decides the long-context tier.
    pub fn prompt(&self) -> u64 {
        self.input
            + self.cache_read
            + self.cache_write_5m
            + self.cache_write_1h
            + self.input_audio
            + self.input_image
    }

    /// Everything that was counted.
    pub fn total(&self) -> u64 {
        self.prompt() + self.output + self.output_audio + self.output_image
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}

/// Declares a closed enum with one wire word per case, used as metric label and column value.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$case_doc])* $case,)+ }

        impl $name {
            /// Every case, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$case,)+];

            /// The word on the wire, in the database and on metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$case => $word,)+ }
            }

            /// The case of a word; `None` for an unknown one.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|case| case.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(
    /// The protocol that a caller speaks.
    Dialect {
        /// Anthropic Messages.
        Anthropic = "anthropic",
        /// OpenAI Chat Completions and the other OpenAI paths.
        OpenAi = "openai",
        /// OpenAI Responses.
        Responses = "responses",
        /// Gemini native.
        Gemini = "gemini",
    }
);

words!(
    /// How a request ended.
    Outcome {
        /// The whole answer reached the caller.
        Completed = "completed",
        /// The upstream refused the caller's request, and the refusal was passed on.
        Rejected = "rejected",
        /// No provider could serve it.
        Exhausted = "exhausted",
        /// A content rule refused it before any provider was asked.
        Blocked = "blocked",
        /// The caller hung up.
        Aborted = "aborted",
        /// The upstream's stream broke after bytes had gone to the caller.
        Cut = "cut",
        /// This proxy failed.
        Internal = "internal",
        /// This proxy was killed while it served it; what it came to is not known.
        Interrupted = "interrupted",
    }
);

words!(
    /// Where the token counts come from.
    UsageSource {
        /// The upstream reported them.
        Reported = "reported",
        /// Partly reported, partly estimated from what was streamed.
        Estimated = "estimated",
        /// There are none.
        None = "none",
    }
);

words!(
    /// Why a request that would be billed has no cost.
    WhyUnpriced {
        /// The price table has no price for the model.
        NoPrice = "no_price",
        /// The table prices the model in a unit that is not counted: an image, a second, a character, a query.
        OtherUnit = "other_unit",
    }
);

words!(
    /// What became of one attempt, in the words of the decision trail.
    AttemptResult {
        /// First attempt, answered.
        Success = "request_success",
        /// A later attempt, answered.
        RetrySuccess = "retry_success",
        /// Failed; another attempt follows or none is left.
        Failed = "retry_failed",
        /// Could not be reached: DNS, connect, TLS, reset, timeout.
        SystemError = "system_error",
        /// The upstream does not know this model or path.
        NotFound = "resource_not_found",
        /// The caller's fault; passed on without another attempt.
        ClientError = "client_error_non_retryable",
        /// The caller hung up during it.
        ClientAbort = "client_abort",
        /// Skipped: its concurrent-session limit was reached.
        ConcurrentLimit = "concurrent_limit_failed",
    }
);

words!(
    /// Why a provider was picked.
    SelectedBy {
        /// The session was bound to it.
        SessionReuse = "session_reuse",
        /// Priority, then weight.
        Initial = "initial_selection",
        /// Everything was asleep; it wakes first.
        LastResort = "last_resort",
    }
);

words!(
    /// Why a provider was not asked.
    WhySkipped {
        /// At a limit of its own.
        AtLimit = "at_limit",
        /// It sleeps after failures, or a person has opened its circuit.
        CircuitOpen = "circuit_open",
        /// Another request is its trial.
        OnTrial = "on_trial",
        /// It sleeps after a 429.
        RateLimited = "rate_limited",
        /// Its credential is refused.
        CredentialRefused = "credential_refused",
        /// It refused such a call for this model a moment ago.
        Resting = "resting",
        /// Outside its hours.
        OutOfHours = "out_of_hours",
        /// Its lists do not serve the caller's program.
        ClientNotServed = "client_not_served",
        /// Its rules do not serve the model.
        ModelNotServed = "model_not_served",
        /// It serves other groups.
        OtherGroup = "other_group",
    }
);

/// A provider that was not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Which provider.
    pub provider_id: ProviderId,
    /// Its name at the time.
    pub provider_name: String,
    /// Why.
    pub why: WhySkipped,
}

/// One line of the decision trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which provider.
    pub provider_id: ProviderId,
    /// Its name at the time.
    pub provider_name: String,
    /// What became of it.
    pub result: AttemptResult,
    /// Why this provider.
    pub selected_by: SelectedBy,
    /// The upstream's status, if it answered.
    pub status: Option<u16>,
    /// A short text without secrets: failure class, or the start of the upstream's message.
    pub detail: String,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    /// Until the head of the answer, or the failure.
    pub duration_ms: u32,
    /// The model name sent upstream.
    pub model: String,
}

/// Exactly one exists for every admitted request.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRecord {
    /// UUIDv7; a record sent twice is stored once.
    pub id: RequestId,
    /// The proxy that served it.
    pub proxy_id: String,
    /// Unix milliseconds at which the request was read.
    pub started_at_ms: i64,
    /// First-level account.
    pub owner_id: UserId,
    /// Caller.
    pub user_id: UserId,
    /// Caller's key.
    pub key_id: KeyId,
    /// Who answered, or was tried last.
    pub provider_id: Option<ProviderId>,
    /// Conversation, if the caller named one or one was derived.
    pub session_id: Option<String>,
    /// Caller's protocol.
    pub dialect: Dialect,
    /// Path without query.
    pub endpoint: String,
    /// Asked for.
    pub model: String,
    /// Sent upstream, after redirects.
    pub upstream_model: Option<String>,
    /// Named in the answer.
    pub response_model: Option<String>,
    /// Whose price was used.
    pub billed_model: Option<String>,
    /// Whether the caller asked for a stream.
    pub streamed: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Status as sent to the caller; 499 if the caller hung up, 502 if the stream was cut or the proxy killed.
    pub status: u16,
    /// Failure class or message, without secrets.
    pub error: Option<String>,
    /// `sensitive_word`, … if a content rule refused it.
    pub blocked_by: Option<String>,
    /// Details of the rule.
    pub blocked_reason: Option<String>,
    /// Tokens by class.
    pub tokens: TokenCounts,
    /// Where `tokens` come from.
    pub usage_source: UsageSource,
    /// USD; `None` if the model has no price, see `unpriced`.
    pub cost: Option<Decimal>,
    /// Why there is no cost.
    pub unpriced: Option<WhyUnpriced>,
    /// USD that count towards money limits in place of the cost that is not known.
    pub held_cost: Option<Decimal>,
    /// USD by component, before the multiplier.
    pub cost_parts: BTreeMap<String, Decimal>,
    /// Product of all multipliers, as applied.
    pub cost_multiplier: Decimal,
    /// Of the table that the request was pinned to.
    pub generation: Generation,
    /// From the request's head to the end of the answer.
    pub duration_ms: u32,
    /// To the first content byte sent to the caller.
    pub ttft_ms: Option<u32>,
    /// Decision trail.
    pub attempts: Vec<Attempt>,
    /// Caller's User-Agent, shortened to 256 bytes.
    pub user_agent: Option<String>,
    /// Caller's address.
    pub client_ip: Option<String>,
    /// W3C trace id, if the request was traced.
    pub trace_id: Option<String>,
    /// Body bytes read from the caller.
    pub request_bytes: u64,
    /// Body bytes sent to the caller.
    pub response_bytes: u64,
    /// Items of `messages` / `input`, 0 if not counted.
    pub messages_count: u32,
    /// Who was not asked. Known only where somebody was left out for a while, or failed.
    pub skipped: Vec<Skipped>,
}
