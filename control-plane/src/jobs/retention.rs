//! Drops the partitions that `RETENTION_DAYS` lets go; 0 keeps everything.

use super::Context;
use crate::db::partitions::drop_before;
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
    if dropped > 0 {
        tracing::info!(dropped, retention_days = days, "dropped old partitions of the ledger");
    }
    Ok(())
}
