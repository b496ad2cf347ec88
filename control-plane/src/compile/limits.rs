//! Limit columns → limits. Null and 0 mean unlimited, and an unlimited measure has no row.

use super::Broken;
use crate::db::rows::{KeyLimits, ProviderLimits, UserLimits};
use bigdecimal::BigDecimal;
use contract::money::NanoUsd;
use contract::table::{Limit, Measure};
use contract::window::Window;
use rust_decimal::Decimal;

/// The exact decimal of a `numeric` column.
pub(super) fn decimal(value: &BigDecimal, field: &str) -> Result<Decimal, Broken> {
    value.to_plain_string().parse().map_err(|_| Broken::new(field, "is not a number within bounds"))
}

/// Minute of the day of `HH:mm`.
pub(super) fn minute(text: &str, field: &str) -> Result<u16, Broken> {
    let wrong = || Broken::new(field, "is not a time as HH:mm");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let part = |text: &str, end: u16| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n: &u16| digits && *n < end)
    };
    match (part(hour, 24), part(minute, 60)) {
        (Some(hour), Some(minute)) => Ok(hour * 60 + minute),
        _ => Err(wrong()),
    }
}

struct Columns<'a> {
    five_hours: &'a Option<BigDecimal>,
    five_hours_mode: &'a str,
    daily: &'a Option<BigDecimal>,
    daily_mode: &'a str,
    daily_time: &'a str,
    weekly: &'a Option<BigDecimal>,
    monthly: &'a Option<BigDecimal>,
    total: &'a Option<BigDecimal>,
    sessions: i32,
}

impl Columns<'_> {
    fn read(&self) -> Result<Vec<Limit>, Broken> {
        let five_hours = match self.five_hours_mode {
            "rolling" => Window::FiveHours,
            "fixed" => Window::FiveHoursFixed,
            _ => return Err(Broken::new("limit_5h_reset_mode", "must be fixed or rolling")),
        };
        let reset_minute = minute(self.daily_time, "daily_reset_time")?;
        let day = match self.daily_mode {
            "fixed" => Window::Day { reset_minute },
            "rolling" => Window::DayRolling,
            _ => return Err(Broken::new("daily_reset_mode", "must be fixed or rolling")),
        };
        let mut limits = Vec::new();
        for (amount, window, field) in [
            (self.five_hours, five_hours, "limit_5h_usd"),
            (self.daily, day, "limit_daily_usd"),
            (self.weekly, Window::Week, "limit_weekly_usd"),
            (self.monthly, Window::Month, "limit_monthly_usd"),
            (self.total, Window::Total, "limit_total_usd"),
        ] {
            limits.extend(usd(amount.as_ref(), window, field)?);
        }
        limits.extend(count(
            self.sessions,
            Measure::Sessions,
            Window::Concurrent,
            "limit_concurrent_sessions",
        )?);
        Ok(limits)
    }
}

fn usd(amount: Option<&BigDecimal>, window: Window, field: &str) -> Result<Option<Limit>, Broken> {
    let Some(amount) = amount else { return Ok(None) };
    let amount = decimal(amount, field)?;
    if amount.is_zero() {
        return Ok(None);
    }
    if amount.is_sign_negative() {
        return Err(Broken::new(field, "cannot be negative"));
    }
    // Less than half a billionth is still a limit, not the absence of one.
    let amount = NanoUsd::from_usd(amount).0.max(1);
    Ok(Some(Limit { measure: Measure::Usd, window, amount, since_ms: None, absent_until_ms: None }))
}

fn count(amount: i32, measure: Measure, window: Window, field: &str) -> Result<Option<Limit>, Broken> {
    match amount {
        ..0 => Err(Broken::new(field, "cannot be negative")),
        0 => Ok(None),
        1.. => Ok(Some(Limit {
            measure,
            window,
            amount: i64::from(amount),
            since_ms: None,
            absent_until_ms: None,
        })),
    }
}

fn since(mut limits: Vec<Limit>, reset_ms: Option<i64>, only_total: bool) -> Vec<Limit> {
    for limit in &mut limits {
        if limit.measure == Measure::Usd && (!only_total || limit.window == Window::Total) {
            limit.since_ms = reset_ms;
        }
    }
    limits
}

macro_rules! columns {
    ($row:ident, $sessions:expr) => {
        Columns {
            five_hours: &$row.limit_5h_usd,
            five_hours_mode: &$row.limit_5h_reset_mode,
            daily: &$row.limit_daily_usd,
            daily_mode: &$row.daily_reset_mode,
            daily_time: &$row.daily_reset_time,
            weekly: &$row.limit_weekly_usd,
            monthly: &$row.limit_monthly_usd,
            total: &$row.limit_total_usd,
            sessions: $sessions,
        }
    };
}

/// A key's own limits; 0 sessions: the user's limit holds alone.
pub(crate) fn of_key(row: &KeyLimits) -> Result<Vec<Limit>, Broken> {
    let limits = columns!(row, row.limit_concurrent_sessions).read()?;
    Ok(since(limits, row.cost_reset_at.map(|at| at.timestamp_millis()), false))
}

/// Limits over all keys of a user.
pub(crate) fn of_user(row: &UserLimits, rpm: Option<i32>) -> Result<Vec<Limit>, Broken> {
    let mut limits = Vec::new();
    limits.extend(count(rpm.unwrap_or_default(), Measure::Requests, Window::Minute, "rpm")?);
    limits.extend(columns!(row, row.limit_concurrent_sessions.unwrap_or_default()).read()?);
    Ok(since(limits, row.cost_reset_at.map(|at| at.timestamp_millis()), false))
}

/// Limits of an upstream account; its reset touches the total only.
pub(crate) fn of_provider(row: &ProviderLimits) -> Result<Vec<Limit>, Broken> {
    let limits = columns!(row, row.limit_concurrent_sessions).read()?;
    Ok(since(limits, row.total_cost_reset_at.map(|at| at.timestamp_millis()), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day() {
        for (text, want) in [("00:00", Some(0)), ("9:30", Some(570)), ("23:59", Some(1439))] {
            assert_eq!(minute(text, "t").ok(), want, "{text}");
        }
        for text in ["", "24:00", "12:60", "12", "+1:00", "1:-1", "12:00:00", " 1:00"] {
            assert!(minute(text, "t").is_err(), "{text:?}");
        }
    }

    #[test]
    fn zero_and_null_are_no_limit() {
        let row = KeyLimits {
            limit_5h_usd: None,
            limit_5h_reset_mode: "fixed".to_owned(),
            limit_daily_usd: Some(0.into()),
            daily_reset_mode: "fixed".to_owned(),
            daily_reset_time: "08:15".to_owned(),
            limit_weekly_usd: "0.000000001".parse().ok(),
            limit_monthly_usd: "12.5".parse().ok(),
            limit_total_usd: None,
            limit_concurrent_sessions: 0,
            cost_reset_at: None,
        };
        let limits = of_key(&row).expect("limits");
        let seen: Vec<_> = limits.iter().map(|limit| (limit.window, limit.amount)).collect();
        assert_eq!(seen, [(Window::Week, 1), (Window::Month, 12_500_000_000)]);
    }
}
