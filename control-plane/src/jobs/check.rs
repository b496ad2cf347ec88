//! Recomputes the sums of the last day from the records. They are written in one transaction, so a
//! difference is a fault of ours, or somebody's hand in the database.

use super::Context;
use crate::db::ledger::rollup_mismatches;
use crate::db::rollup;
use crate::telemetry::metric;
use anyhow::Context as _;
use chrono::{DurationRound, TimeDelta, Utc};

/// Compares, and sets the metric.
pub async fn run(context: &Context) -> anyhow::Result<()> {
    let until = Utc::now().duration_trunc(TimeDelta::hours(1)).context("truncate the time")?;
    let mut conn = context.pool.read().await?;
    let count =
        rollup_mismatches(&mut conn, until - TimeDelta::days(1), until).await.context("compare sums")?;
    let today = rollup::day_of(Utc::now(), context.zone);
    let yesterday = rollup::day_of(today - TimeDelta::hours(1), context.zone);
    let count =
        count + rollup::mismatches(&mut conn, yesterday, today).await.context("compare sums of a day")?;
    metrics::gauge!(metric::ROLLUP_MISMATCHES).set(count as f64);
    if count > 0 {
        tracing::error!(count, "sums of the last day differ from the records");
    }
    Ok(())
}
