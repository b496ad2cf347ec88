//! What may be said about a key.

use crate::api::actions::limits::{CACHE_TTL, LimitFields};
use crate::db::keys::Change;
use crate::rules::Refusal;
use crate::rules::form::form;
use crate::rules::time::Edge;
use chrono_tz::Tz;

/// Longest name of a key.
pub(super) const NAME_MAX: usize = 64;

form! {
    /// All of a key but the name.
    pub struct KeyFields {
        /// ISO 8601; a date alone is the end of that day in the configured time zone. Null or "" is never.
        expires_at: Option<String> = ["expiresAt"] {example = "2025-12-31T23:59:59Z"},
        /// Switched off keys are refused.
        is_enabled: Option<bool> = ["isEnabled", "enabled"],
        /// Whether the key may log in; otherwise it may only read its own usage.
        can_login_web_ui: Option<bool> = ["canLoginWebUi"],
        /// USD a day. Also accepted as `dailyQuota`.
        limit_daily_usd: Option<f64> = ["limitDailyUsd", "dailyQuota"] {minimum = 0, maximum = 10000},
        /// Comma list of provider groups; empty is the user's.
        provider_group: Option<String> = ["providerGroup"] {max_length = 200},
        /// `inherit`, `5m` or `1h`.
        cache_ttl_preference: Option<String> = ["cacheTtlPreference"] {pattern = "^(inherit|5m|1h)$"},
        ..limits: LimitFields,
        => ["id", "userId", "key", "generatedKey", "maskedKey", "canReveal", "canCopy", "status", "createdAt", "updatedAt",
            "createdAtFormatted", "todayUsage", "todayCallCount", "todayTokens", "lastUsedAt", "lastProviderName", "modelStats",
        ],
    }
}

impl KeyFields {
    /// Checks every field. An expiry may lie in the past: such a key is expired from the start.
    pub(super) fn check(&self, zone: Tz) -> Result<Change, Refusal> {
        let limits = self.limits.check()?;
        Ok(Change {
            enabled: self.is_enabled.flag(true)?,
            expires_at: self.expires_at.time(zone, Edge::LastSecond)?,
            can_login_web_ui: self.can_login_web_ui.flag(true)?,
            groups: self.provider_group.groups()?,
            limit_5h_usd: limits.usd_5h,
            limit_5h_reset_mode: limits.mode_5h,
            limit_daily_usd: self.limit_daily_usd.usd(10_000)?,
            daily_reset_mode: limits.mode_daily,
            daily_reset_time: limits.reset_time,
            limit_weekly_usd: limits.usd_weekly,
            limit_monthly_usd: limits.usd_monthly,
            limit_total_usd: limits.usd_total,
            limit_concurrent_sessions: limits.sessions.map(Option::unwrap_or_default),
            cache_ttl_preference: self.cache_ttl_preference.word(CACHE_TTL)?,
            name: None,
            generation: None,
        })
    }
}
