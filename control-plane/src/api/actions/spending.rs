//! How much of its limits a user, a key or a provider has used in the windows that run now.
//!
//! Money comes from the ledger and the sums beside it, in the same windows in which the proxies count; what is
//! under way is in neither until it is over. Requests per minute and sessions come from the ledger too: the
//! control plane holds no connection to Redis, which stays the proxies' affair, so these lag by the requests
//! that run.

use crate::api::Failure;
use crate::db::usage::{self, Filter, LimitRow};
use crate::db::{Conn, held};
use crate::rules::Exact;
use crate::rules::time::iso;
use bigdecimal::{BigDecimal, Zero};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use contract::window::{Span, Window};
use serde::Serialize;
use std::time::Duration;

/// How far back the beginning of a running from-first window is looked for, as the proxies do.
const HISTORY: TimeDelta = TimeDelta::hours(24);

/// Money in a window.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Money {
    /// USD spent in the window that runs now, with what is held for models without a price.
    #[schema(value_type = f64, example = 0.01155)]
    current: Exact,
    /// USD; null is unlimited.
    #[schema(value_type = Option<f64>, example = 10)]
    limit: Option<Exact>,
    /// When the window ends; absent where it rolls or never ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    reset_at: Option<String>,
}

/// Something that is counted.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Counted {
    /// Now.
    #[schema(example = 1)]
    current: i64,
    /// 0 is unlimited.
    #[schema(example = 2)]
    limit: i32,
}

/// The windows of money, and sessions.
#[derive(Clone, Debug)]
pub struct Spending {
    /// Five hours.
    pub five_hours: Money,
    /// A day.
    pub day: Money,
    /// A week.
    pub week: Money,
    /// A month.
    pub month: Money,
    /// Ever, or since the reset.
    pub total: Money,
    /// Conversations.
    pub sessions: Counted,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Whose records.
    pub filter: Filter,
    /// The limits.
    pub row: &'a LimitRow,
    /// Whether the reset is about the total only.
    pub resets_total_only: bool,
    /// Of the windows.
    pub zone: Tz,
    /// How long a conversation counts as active after a request began.
    pub conversation: Duration,
    /// The clock.
    pub now: DateTime<Utc>,
}

impl Question<'_> {
    fn day(&self) -> Window {
        match self.row.daily_reset_mode.as_str() {
            "rolling" => Window::DayRolling,
            _ => Window::Day { reset_minute: minute(&self.row.daily_reset_time) },
        }
    }

    fn five_hours(&self) -> Window {
        match self.row.limit_5h_reset_mode.as_str() {
            "fixed" => Window::FiveHoursFixed,
            _ => Window::FiveHours,
        }
    }

    /// Everything.
    pub async fn answer(&self, conn: &mut Conn) -> Result<Spending, Failure> {
        let row = self.row;
        Ok(Spending {
            five_hours: self.money(conn, self.five_hours(), row.limit_5h_usd.as_ref()).await?,
            day: self.daily(conn).await?,
            week: self.money(conn, Window::Week, row.limit_weekly_usd.as_ref()).await?,
            month: self.money(conn, Window::Month, row.limit_monthly_usd.as_ref()).await?,
            total: self.money(conn, Window::Total, row.limit_total_usd.as_ref()).await?,
            sessions: Counted {
                current: usage::sessions_of(conn, &self.since(self.now - self.conversation)).await?,
                limit: row.sessions.unwrap_or(0),
            },
        })
    }

    /// The day alone.
    pub async fn daily(&self, conn: &mut Conn) -> Result<Money, Failure> {
        self.money(conn, self.day(), self.row.limit_daily_usd.as_ref()).await
    }

    /// Requests that began within the last minute, and are over.
    pub async fn minute(&self, conn: &mut Conn) -> Result<i64, Failure> {
        let minute = self.now - TimeDelta::minutes(1);
        Ok(usage::requests_since(conn, self.filter.owner, self.filter.user, minute).await?)
    }

    fn since(&self, from: DateTime<Utc>) -> Filter {
        Filter { from: Some(from), with_quiet: true, ..self.filter.clone() }
    }

    async fn money(
        &self,
        conn: &mut Conn,
        window: Window,
        limit: Option<&BigDecimal>,
    ) -> Result<Money, Failure> {
        let reset = self.row.reset_at.filter(|_| !self.resets_total_only || window == Window::Total);
        let since = |from: DateTime<Utc>| reset.map_or(from, |reset| reset.max(from));
        let (from, ends) = match window.span(self.now.timestamp_millis(), self.zone) {
            Span::Fixed { start_ms, end_ms } => (Some(since(at(start_ms))), end_ms.map(at)),
            Span::Rolling { length_ms, bucket_ms } => {
                let oldest = self.now.timestamp_millis() - length_ms;
                (Some(since(at(oldest.div_euclid(bucket_ms) * bucket_ms))), None)
            }
            Span::FromFirst { length_ms } => {
                let billed = usage::billed_minutes(conn, &self.since(since(self.now - HISTORY))).await?;
                let length = TimeDelta::milliseconds(length_ms);
                let start = running(&billed, length, self.now);
                (start.map(since), start.map(|start| start + length))
            }
        };
        let current = match from {
            Some(from) => {
                let cost = usage::summary(conn, &self.since(from), self.zone).await?.cost;
                // The proxies count it, so whoever asks why a limit is reached must see it.
                cost + held::since(conn, &self.filter, from).await?
            }
            None => BigDecimal::zero(),
        };
        Ok(Money {
            current: Exact::of(&current),
            limit: Exact::maybe(limit.filter(|limit| !limit.is_zero())),
            reset_at: ends.map(iso),
        })
    }
}

/// Where the window began that runs now, if one does: each begins with the first billed request after the last.
fn running(billed: &[DateTime<Utc>], length: TimeDelta, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let next = |start: Option<DateTime<Utc>>, at: &DateTime<Utc>| match start {
        Some(start) if *at < start + length => Some(start),
        _ => Some(*at),
    };
    billed.iter().fold(None, next).filter(|start| now < *start + length)
}

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::UNIX_EPOCH)
}

/// The minute of the day of `HH:mm`, which was checked when it was stored.
fn minute(clock: &str) -> u16 {
    let (hour, minute) = clock.split_once(':').unwrap_or(("0", "0"));
    hour.parse::<u16>().unwrap_or(0) * 60 + minute.parse::<u16>().unwrap_or(0)
}
