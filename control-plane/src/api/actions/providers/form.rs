//! What may be said about a provider. Every field comes in camelCase or snake_case.

use crate::api::actions::limits::LimitFields;
use crate::db::providers::{Change, Provider};
use crate::rules::form::form;
use crate::rules::provider::Extras;
use crate::rules::{Field, Members, Refusal, provider};
use contract::table::ProviderKind;
use serde_json::{Map, Value};

/// Longest name of a provider.
pub(super) const NAME_MAX: usize = 64;
/// Longest list of groups, as text.
const GROUP_TAG_MAX: usize = 255;
/// Largest factor on the cost.
const MULTIPLIER_MAX: i64 = 1_000_000;
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

form! {
    /// All of a provider but its name, URL, credential and kind.
    pub struct ProviderFields {
        /// Switched off providers are not chosen.
        is_enabled: Option<bool> = ["isEnabled", "enabled"] {example = true},
        /// Share among providers of the same priority.
        weight: Option<i32> = ["weight"] {minimum = 1, maximum = 100, example = 10},
        /// Lower is preferred.
        priority: Option<i32> = ["priority"] {minimum = 0, example = 1},
        /// Priority by the caller's group, where it differs.
        group_priorities: Option<Object> = ["groupPriorities"],
        /// Factor on the cost.
        cost_multiplier: Option<f64> = ["costMultiplier"] {minimum = 0},
        /// Comma list of groups that it serves; null is the default group.
        group_tag: Option<String> = ["groupTag"] {max_length = 255},
        /// Map of source to target, or a list of `{matchType, source, target}`.
        model_redirects: Option<Value> = ["modelRedirects"],
        /// Names or `{matchType, pattern}`; null or empty is all.
        allowed_models: Option<Vec<Value>> = ["allowedModels"],
        /// User-Agent patterns; empty is all.
        allowed_clients: Option<Vec<String>> = ["allowedClients"] {max_items = 50},
        /// User-Agent patterns.
        blocked_clients: Option<Vec<String>> = ["blockedClients"] {max_items = 50},
        /// USD a day.
        limit_daily_usd: Option<f64> = ["limitDailyUsd"] {minimum = 0, maximum = 10000},
        /// Attempts per request; null is the proxy's default.
        max_retry_attempts: Option<i32> = ["maxRetryAttempts"] {minimum = 1, maximum = 10},
        /// Consecutive failures that open the breaker; 0 is never.
        breaker_failures: Option<i32> = ["circuitBreakerFailureThreshold"] {minimum = 0},
        /// How long it stays open, in milliseconds.
        breaker_open: Option<i64> = ["circuitBreakerOpenDuration"] {minimum = 1000, maximum = 86400000},
        /// Successes in half-open that close it.
        breaker_successes: Option<i32> = ["circuitBreakerHalfOpenSuccessThreshold"] {minimum = 1, maximum = 10},
        /// Milliseconds to the first byte of a stream; 0 is off.
        first_byte_timeout: Option<i32> = ["firstByteTimeoutStreamingMs"] {minimum = 0, maximum = 180000},
        /// Milliseconds between two parts of a stream; 0 is off.
        idle_timeout: Option<i32> = ["streamingIdleTimeoutMs"] {minimum = 0, maximum = 600000},
        /// Milliseconds for a whole answer; 0 is off.
        total_timeout: Option<i32> = ["requestTimeoutNonStreamingMs"] {minimum = 0, maximum = 1800000},
        /// HH:mm from which it is used.
        active_time_start: Option<String> = ["activeTimeStart"],
        /// HH:mm until which it is used; may pass midnight.
        active_time_end: Option<String> = ["activeTimeEnd"],
        /// Whether the caller's address headers are passed on.
        preserve_client_ip: Option<bool> = ["preserveClientIp"],
        /// Whether sessions never stick to it.
        disable_session_reuse: Option<bool> = ["disableSessionReuse"],
        /// Sent upstream; never the credential's or the transport's headers.
        custom_headers: Option<Object> = ["customHeaders"],
        ..limits: LimitFields,
        ..extras: Extras,
        => ["id", "maskedKey", "disabledReason", "level", "totalCostResetAt", "createdAt", "updatedAt", "providerVendorId",
            "todayTotalCostUsd", "todayCallCount", "lastCallTime", "lastCallModel",
        ],
    }
}

impl ProviderFields {
    /// Checks every field against what is stored.
    pub(super) fn check(&self, members: &Members, old: &Provider) -> Result<Change, Refusal> {
        let limits = self.limits.check()?;
        let none = Map::new();
        let extra = provider::extras(members, old.extra.as_object().unwrap_or(&none))?;
        let change = Change {
            enabled: self.is_enabled.flag(true)?,
            weight: self.weight.int32(1..=100)?.map(|weight| weight.unwrap_or(1)),
            priority: self.priority.int32(0..=i32::MAX)?.map(Option::unwrap_or_default),
            group_priorities: provider::group_priorities(&self.group_priorities)?.map(object),
            groups: self.group_tag.groups_within(GROUP_TAG_MAX)?,
            cost_multiplier: self.cost_multiplier.usd(MULTIPLIER_MAX)?.map(|m| m.unwrap_or_else(|| 1.into())),
            model_redirects: provider::redirects(&self.model_redirects)?,
            allowed_models: provider::allowed_models(&self.allowed_models)?,
            allowed_clients: self.allowed_clients.list(50, 64)?,
            blocked_clients: self.blocked_clients.list(50, 64)?,
            limit_5h_usd: limits.usd_5h,
            limit_5h_reset_mode: limits.mode_5h,
            limit_daily_usd: self.limit_daily_usd.usd(10_000)?,
            daily_reset_mode: limits.mode_daily,
            daily_reset_time: limits.reset_time,
            limit_weekly_usd: limits.usd_weekly,
            limit_monthly_usd: limits.usd_monthly,
            limit_total_usd: limits.usd_total,
            limit_concurrent_sessions: limits.sessions.map(Option::unwrap_or_default),
            max_retry_attempts: self.max_retry_attempts.int32(1..=10)?,
            preserve_client_ip: self.preserve_client_ip.flag(false)?,
            disable_session_reuse: self.disable_session_reuse.flag(false)?,
            custom_headers: provider::headers(&self.custom_headers)?.map(object),
            extra: Some(Value::Object(extra)),
            ..self.times()?
        };
        let start = change.active_time_start.as_ref().unwrap_or(&old.active_time_start);
        let end = change.active_time_end.as_ref().unwrap_or(&old.active_time_end);
        provider::active_time(start.as_deref(), end.as_deref())?;
        Ok(change)
    }

    /// Breaker, timeouts and active time.
    fn times(&self) -> Result<Change, Refusal> {
        let failures = self.breaker_failures.int32(0..=i32::MAX)?;
        let successes = self.breaker_successes.int32(1..=10)?;
        Ok(Change {
            breaker_failure_threshold: failures.map(|count| count.unwrap_or(5)),
            breaker_open_ms: self.breaker_open.int(1000..=DAY_MS)?.map(|ms| ms.unwrap_or(1_800_000)),
            breaker_half_open_successes: successes.map(|count| count.unwrap_or(2)),
            first_byte_timeout_ms: self.first_byte_timeout.int_or_zero(1000..=180_000)?,
            idle_timeout_ms: self.idle_timeout.int_or_zero(60_000..=600_000)?,
            total_timeout_ms: self.total_timeout.int_or_zero(60_000..=1_800_000)?,
            active_time_start: self.active_time_start.clock()?,
            active_time_end: self.active_time_end.clock()?,
            ..Change::default()
        })
    }
}

fn object(map: Option<Map<String, Value>>) -> Option<Value> {
    map.map(Value::Object)
}

/// The kind of a provider; the first is the default.
pub(super) fn kind(field: &Field) -> Result<Option<&'static str>, Refusal> {
    field.word(&ProviderKind::ALL.map(ProviderKind::as_str))
}
