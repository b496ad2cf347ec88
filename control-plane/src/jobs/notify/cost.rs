//! Limits of which the configured share is used up. Each is told once per window.

use super::Notifier;
use crate::compile::limits;
use crate::db::{Conn, ledger, notifications, watched};
use crate::rules::notification::{Stored, Topic};
use chrono::{DateTime, TimeDelta, Utc};
use contract::ids::{KeyId, ProviderId, UserId};
use contract::money::NanoUsd;
use contract::table::{Limit, Measure, Scope};
use contract::window::{Span, Window};
use rust_decimal::Decimal;
use serde_json::json;

/// Looks at every money limit of whoever spent something lately, if the last look was long enough ago.
pub(super) async fn look(
    notifier: &Notifier,
    owner: i64,
    stored: &Stored,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    if stored.active(Topic::CostAlert).is_none() {
        return Ok(());
    }
    let Ok(share) = stored.cost_threshold.parse::<Decimal>() else { return Ok(()) };
    let interval = TimeDelta::minutes(stored.cost_interval.into());
    let mut conn = notifier.pool.write().await?;
    if !notifications::take_check(&mut conn, owner, Topic::CostAlert.as_str(), now, interval).await? {
        return Ok(());
    }
    for one in limited(&mut conn, owner, now - interval).await? {
        for limit in one.limits.iter().filter(|limit| limit.measure == Measure::Usd) {
            let look = Look { notifier, owner, share, now };
            look.at(&mut conn, &one, limit).await?;
        }
    }
    Ok(())
}

/// Something with limits.
struct Limited {
    scope: Scope,
    name: String,
    limits: Vec<Limit>,
}

/// Users, keys and providers with usage since `since`. One whose limits cannot be read is left out here; the
/// compiler reports it.
async fn limited(conn: &mut Conn, owner: i64, since: DateTime<Utc>) -> anyhow::Result<Vec<Limited>> {
    let mut all = Vec::new();
    for row in watched::users(conn, owner, since).await? {
        if let Ok(limits) = limits::of_user(&row.limits, None) {
            all.push(Limited { scope: Scope::User(UserId(row.id)), name: row.name, limits });
        }
    }
    for row in watched::keys(conn, owner, since).await? {
        if let Ok(limits) = limits::of_key(&row.limits) {
            all.push(Limited { scope: Scope::Key(KeyId(row.id)), name: row.name, limits });
        }
    }
    for row in watched::providers(conn, owner, since).await? {
        if let Ok(limits) = limits::of_provider(&row.limits) {
            all.push(Limited { scope: Scope::Provider(ProviderId(row.id)), name: row.name, limits });
        }
    }
    Ok(all)
}

struct Look<'a> {
    notifier: &'a Notifier,
    owner: i64,
    share: Decimal,
    now: DateTime<Utc>,
}

impl Look<'_> {
    async fn at(&self, conn: &mut Conn, one: &Limited, limit: &Limit) -> anyhow::Result<()> {
        let now_ms = self.now.timestamp_millis();
        let (start_ms, bucket) = match limit.window.span(now_ms, self.notifier.time_zone) {
            Span::Fixed { start_ms, .. } => (start_ms, start_ms),
            // When such a window began is known to the proxies only; the last hours are the most it can hold.
            Span::Rolling { length_ms, .. } | Span::FromFirst { length_ms } => {
                (now_ms - length_ms, now_ms / length_ms)
            }
        };
        let start_ms = start_ms.max(limit.since_ms.unwrap_or(0));
        let Some(since) = DateTime::from_timestamp_millis(start_ms) else { return Ok(()) };
        let (scope, id) = match one.scope {
            Scope::User(id) => ("user", id.0),
            Scope::Key(id) => ("key", id.0),
            Scope::Provider(id) => ("provider", id.0),
        };
        let spent = ledger::spent_since(conn, one.scope, since, None).await?;
        let spent: Decimal = spent.cost.round(9).to_plain_string().parse().unwrap_or(Decimal::MAX);
        let amount = NanoUsd(limit.amount).to_usd();
        if spent.is_zero() || spent < amount * self.share {
            return Ok(());
        }
        let percent = (spent / amount).checked_mul(100.into()).unwrap_or(Decimal::MAX).round();
        let window = word(limit.window);
        let payload = json!({"scope": scope, "id": id, "name": one.name, "window": window,
            "limit": amount.to_string(), "current": spent.normalize().to_string(), "percent": percent.to_string()});
        let reset = limit.since_ms.unwrap_or(0);
        let cause = format!("cost:{scope}:{id}:{}:{bucket}:{reset}:{}", limit.window.tag(), limit.amount);
        notifications::add(conn, self.owner, Topic::CostAlert.as_str(), &cause, &payload).await?;
        Ok(())
    }
}

fn word(window: Window) -> &'static str {
    match window {
        Window::FiveHours | Window::FiveHoursFixed => "5h",
        Window::Day { .. } | Window::DayRolling => "daily",
        Window::Week => "weekly",
        Window::Month => "monthly",
        Window::Total | Window::Minute | Window::Concurrent => "total",
    }
}
