//! The partitions of this month and the next two; and of past months whose records came late and lie in the
//! default partition.

use super::Context;
use crate::db::partitions::{Month, in_default, make};
use anyhow::Context as _;
use chrono::{Months, Utc};

const AHEAD: u32 = 2;
/// Records older than that come from a broken clock and stay in the default partition.
const BEHIND: Months = Months::new(12);

/// Makes what is missing.
pub async fn run(context: &Context) -> anyhow::Result<()> {
    let mut conn = context.pool.write().await?;
    let now = Utc::now();
    let this = Month::of(now);
    let late = in_default(&mut conn, Month::of(now - BEHIND), this).await.context("look for late records")?;
    for month in (0..=AHEAD).map(|count| this.plus(count)).chain(late) {
        if make(&mut conn, month).await.context("make a partition")? {
            tracing::info!(?month, "made a partition of the ledger");
        }
    }
    Ok(())
}
