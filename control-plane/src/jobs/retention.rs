//! Removes the records that `RETENTION_DAYS` lets go: whole partitions, and in batches what is old of the oldest
//! that stays; 0 keeps everything. The sums beside the ledger stay.

use super::Context;
use crate::db::partitions::{drop_before, remove_before};
use anyhow::Context as _;
use chrono::{Days, Utc};

/// Drops what is too old.
pub async fn run(context: &Context) -> anyhow::Result<()> {
    let days = context.settings.retention_days;
    if days == 0 {
        return Ok(());
    }
    let Some(day) = Utc::now().date_naive().checked_sub_days(Days::new(days.into())) else { return Ok(()) };
    let mut conn = context.pool.write().await?;
    let dropped = drop_before(&mut conn, day).await.context("drop old partitions")?;
    let mut removed = 0;
    for _ in 0..context.settings.retention_batches {
        let count = remove_before(&mut conn, day, context.settings.retention_batch);
        match count.await.context("remove old records")? {
            0 => break,
            count => removed += count,
        }
    }
    if removed > 0 {
        tracing::info!(removed, retention_days = days, "removed old records of the ledger");
    }
    if dropped > 0 {
        tracing::info!(dropped, retention_days = days, "dropped old partitions of the ledger");
    }
    Ok(())
}
