//! Removes proxies from the fleet table that stayed away for long.

use super::Context;
use crate::db::proxies::forget_before;
use anyhow::Context as _;
use chrono::Utc;

/// Forgets them.
pub async fn run(context: &Context) -> anyhow::Result<()> {
    let mut conn = context.pool.write().await?;
    let forgotten = forget_before(&mut conn, Utc::now() - context.forget).await.context("forget proxies")?;
    if forgotten > 0 {
        tracing::info!(forgotten, "proxies that stayed away left the fleet");
    }
    Ok(())
}
