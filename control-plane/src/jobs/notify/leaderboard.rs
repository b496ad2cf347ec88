//! Who used most yesterday, told once a day from the configured time on.

use super::Notifier;
use crate::db::{notifications, usage};
use crate::rules::amount;
use crate::rules::notification::{Stored, Topic};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use contract::window;
use serde_json::json;

/// How long after its time a leaderboard is still told: whoever switches it on later hears of it tomorrow.
const GRACE: TimeDelta = TimeDelta::hours(1);

/// Adds the leaderboard, if its time has come.
pub(super) async fn look(
    notifier: &Notifier,
    owner: i64,
    stored: &Stored,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    if stored.active(Topic::DailyLeaderboard).is_none() {
        return Ok(());
    }
    let Some(yesterday) = due(notifier, &stored.leaderboard_time, now) else { return Ok(()) };
    let cause = format!("leaderboard:{yesterday}");
    let mut conn = notifier.pool.write().await?;
    if notifications::is_told(&mut conn, owner, &cause).await? {
        return Ok(());
    }
    let at = |date: NaiveDate| {
        DateTime::from_timestamp_millis(window::local(date.and_time(NaiveTime::MIN), notifier.time_zone))
    };
    let (Some(from), Some(until)) = (at(yesterday), at(yesterday + Days::new(1))) else { return Ok(()) };
    let ranks = usage::leaderboard(&mut conn, owner, (from, until)).await?;
    if ranks.is_empty() {
        return Ok(());
    }
    let top = usize::try_from(stored.leaderboard_top).unwrap_or(5);
    let entries: Vec<_> = ranks
        .iter()
        .take(top)
        .map(|rank| {
            json!({"userId": rank.user_id, "userName": rank.name, "requests": rank.requests,
                "cost": amount::plain(&rank.cost), "tokens": rank.tokens})
        })
        .collect();
    let cost: bigdecimal::BigDecimal = ranks.iter().map(|rank| &rank.cost).sum();
    let requests: i64 = ranks.iter().map(|rank| rank.requests).sum();
    let payload = json!({"date": yesterday.to_string(), "requests": requests, "cost": amount::plain(&cost),
        "entries": entries});
    notifications::add(&mut conn, owner, Topic::DailyLeaderboard.as_str(), &cause, &payload).await?;
    Ok(())
}

/// The day that is to be told of now.
fn due(notifier: &Notifier, time: &str, now: DateTime<Utc>) -> Option<NaiveDate> {
    let today = now.with_timezone(&notifier.time_zone).date_naive();
    let time = NaiveTime::parse_from_str(time, "%H:%M").ok()?;
    // Just after midnight the time may have been late yesterday.
    [today, today - Days::new(1)].into_iter().find_map(|day| {
        let at = DateTime::from_timestamp_millis(window::local(day.and_time(time), notifier.time_zone))?;
        (at <= now && now < at + GRACE).then(|| day - Days::new(1))
    })
}
