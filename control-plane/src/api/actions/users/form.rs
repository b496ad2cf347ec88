//! What may be said about a user.

use crate::api::actions::limits::LimitFields;
use crate::db::users::Change;
use crate::rules::Refusal;
use crate::rules::form::form;
use crate::rules::time::{self, Edge};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// Longest name of a user.
pub(super) const NAME_MAX: usize = 64;

form! {
    /// All of a user but the name.
    pub struct UserFields {
        /// Free text. Also accepted as `note`.
        description: Option<String> = ["description", "note"] {max_length = 200, example = "测试用户"},
        /// Requests in 60 seconds; null or 0 is unlimited.
        rpm: Option<i32> = ["rpm"] {minimum = 0, maximum = 1000000, example = 60},
        /// USD a day; null or 0 is unlimited. Also accepted as `limitDailyUsd`.
        daily_quota: Option<f64> = ["dailyQuota", "limitDailyUsd"] {minimum = 0, maximum = 100000, example = 10},
        /// Comma list of provider groups.
        provider_group: Option<String> = ["providerGroup"] {max_length = 200, example = "default"},
        /// Labels.
        tags: Option<Vec<String>> = ["tags"] {max_items = 20},
        /// `admin` or `user`.
        role: Option<String> = ["role"] {pattern = "^(admin|user)$"},
        /// Switched off users' keys are refused.
        is_enabled: Option<bool> = ["isEnabled", "enabled"],
        /// ISO 8601; a date alone is the end of that day in the configured time zone. Null or "" is never.
        expires_at: Option<String> = ["expiresAt"],
        /// User-Agent patterns; empty is all.
        allowed_clients: Option<Vec<String>> = ["allowedClients"] {max_items = 50},
        /// User-Agent patterns.
        blocked_clients: Option<Vec<String>> = ["blockedClients"] {max_items = 50},
        /// Models; empty is all.
        allowed_models: Option<Vec<String>> = ["allowedModels"] {max_items = 50},
        ..limits: LimitFields,
        => ["id", "role", "keys", "user", "defaultKey", "costResetAt", "createdAt", "updatedAt"],
    }
}

impl UserFields {
    /// Checks every field. The expiry may lie in the past, so that somebody can be ended at once.
    pub(super) fn check(&self, zone: Tz, now: DateTime<Utc>) -> Result<Change, Refusal> {
        let limits = self.limits.check()?;
        let expires_at = self.expires_at.time(zone, Edge::LastSecond)?;
        time::must_be_near(expires_at.flatten(), now)?;
        Ok(Change {
            role: self.role.word(&["user", "admin"])?,
            note: self.description.text(200)?.map(Option::unwrap_or_default),
            enabled: self.is_enabled.flag(true)?,
            expires_at,
            groups: self.provider_group.groups()?,
            tags: self.tags.list(20, 32)?,
            rpm: self.rpm.int32(0..=1_000_000)?,
            limit_5h_usd: limits.usd_5h,
            limit_5h_reset_mode: limits.mode_5h,
            limit_daily_usd: self.daily_quota.usd(100_000)?,
            daily_reset_mode: limits.mode_daily,
            daily_reset_time: limits.reset_time,
            limit_weekly_usd: limits.usd_weekly,
            limit_monthly_usd: limits.usd_monthly,
            limit_total_usd: limits.usd_total,
            limit_concurrent_sessions: limits.sessions,
            allowed_clients: self.allowed_clients.list(50, 64)?,
            blocked_clients: self.blocked_clients.list(50, 64)?,
            allowed_models: self.allowed_models.list(50, 64)?,
            name: None,
            generation: None,
        })
    }
}
