//! The limit fields that users, keys and providers have in common: how they are asked for and checked.

use crate::rules::form::form;
use crate::rules::{Refusal, Usd};

/// Words of the reset modes, with the default first.
pub const MODE_5H: &[&str] = &["rolling", "fixed"];
/// Words of the reset modes, with the default first.
pub const MODE_DAILY: &[&str] = &["fixed", "rolling"];
/// Words of the cache preference, with the default first.
pub const CACHE_TTL: &[&str] = &["inherit", "5m", "1h"];
/// When a fixed day begins.
pub const MIDNIGHT: &str = "00:00";

form! {
    /// Limits. Null or 0 is unlimited.
    pub struct LimitFields {
        /// USD in 5 hours.
        limit_5h_usd: Option<f64> = ["limit5hUsd"] {minimum = 0, maximum = 10000},
        /// Whether the 5 hours roll, or start with the first billed request.
        limit_5h_reset_mode: Option<String> = ["limit5hResetMode"] {pattern = "^(fixed|rolling)$"},
        /// Whether a day starts at `dailyResetTime`, or is the last 24 hours.
        daily_reset_mode: Option<String> = ["dailyResetMode"] {pattern = "^(fixed|rolling)$"},
        /// HH:mm in the configured time zone.
        daily_reset_time: Option<String> = ["dailyResetTime"] {pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
        /// USD in a week, from Monday on.
        limit_weekly_usd: Option<f64> = ["limitWeeklyUsd"] {minimum = 0, maximum = 50000},
        /// USD in a month.
        limit_monthly_usd: Option<f64> = ["limitMonthlyUsd"] {minimum = 0, maximum = 200000},
        /// USD ever.
        limit_total_usd: Option<f64> = ["limitTotalUsd"] {minimum = 0, maximum = 10000000},
        /// Sessions at the same time.
        limit_concurrent_sessions: Option<i32> = ["limitConcurrentSessions"] {minimum = 0, maximum = 1000},
    }
}

/// Limits as checked; `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// USD in 5 hours.
    pub usd_5h: Option<Option<Usd>>,
    /// `rolling` or `fixed`.
    pub mode_5h: Option<&'static str>,
    /// `fixed` or `rolling`.
    pub mode_daily: Option<&'static str>,
    /// HH:mm.
    pub reset_time: Option<String>,
    /// USD in a week.
    pub usd_weekly: Option<Option<Usd>>,
    /// USD in a month.
    pub usd_monthly: Option<Option<Usd>>,
    /// USD ever.
    pub usd_total: Option<Option<Usd>>,
    /// Sessions at the same time.
    pub sessions: Option<Option<i32>>,
}

impl LimitFields {
    /// Checks every field.
    pub fn check(&self) -> Result<Limits, Refusal> {
        let reset_time = self.daily_reset_time.clock()?;
        Ok(Limits {
            usd_5h: self.limit_5h_usd.usd(10_000)?,
            mode_5h: self.limit_5h_reset_mode.word(MODE_5H)?,
            mode_daily: self.daily_reset_mode.word(MODE_DAILY)?,
            reset_time: reset_time.map(|time| time.unwrap_or_else(|| MIDNIGHT.to_owned())),
            usd_weekly: self.limit_weekly_usd.usd(50_000)?,
            usd_monthly: self.limit_monthly_usd.usd(200_000)?,
            usd_total: self.limit_total_usd.usd(10_000_000)?,
            sessions: self.limit_concurrent_sessions.int32(0..=1000)?,
        })
    }
}
