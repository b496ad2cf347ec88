//! The table at `PRICE_URL`, fetched every `PRICE_SYNC_SECONDS`, and at once when a model without a price is asked for:
//! it is served without being billed, and new ones come every week.

use super::merge::{Rule, differs, merge_in_tx};
use super::sync_litellm_prices::remote;
use crate::api::auth::Caller;
use crate::api::{Failure, State};
use crate::db::notifications::{begin_checks, release_check, take_check};
use crate::db::rows::ROOT;
use crate::rules::price::Table;
use anyhow::{anyhow, bail};
use chrono::{TimeDelta, Utc};
use diesel_async::AsyncConnection;
use std::collections::HashSet;
use std::time::Duration;

/// As the claim and the audit entry name it.
const TOPIC: &str = "price-sync";
/// The claim of a sync that does not wait for its time.
const TOPIC_NOW: &str = "price-sync-unpriced";
/// At most one such in so long, over all replicas: callers can invent names as fast as they like.
const NOW_AT_MOST: TimeDelta = TimeDelta::minutes(5);

/// Fetches and merges the table if the last time is a period ago, on whichever replica comes first; after a failure the
/// next call tries again. What a person uploaded stays as it is; the first sync is one period after the first start,
/// whose bundled prices come with the program.
pub async fn run(state: &State, period: Duration) -> anyhow::Result<()> {
    let period = TimeDelta::from_std(period)?;
    let mut conn = state.pool.write().await?;
    begin_checks(&mut conn, ROOT, TOPIC, Utc::now()).await?;
    if !take_check(&mut conn, ROOT, TOPIC, Utc::now(), period).await? {
        return Ok(());
    }
    // One that is out of turn need not follow at once.
    take_check(&mut conn, ROOT, TOPIC_NOW, Utc::now(), TimeDelta::zero()).await?;
    drop(conn);
    let table = match remote(&state.settings.outbound).await {
        Ok(table) => table,
        Err(reason) => {
            let mut conn = state.pool.write().await?;
            release_check(&mut conn, ROOT, TOPIC, Utc::now() - period).await?;
            bail!("no price table from PRICE_URL: {reason}")
        }
    };
    merge(state, &table).await
}

/// Fetches and merges the table now, because these models have no price; unless that was done a moment ago.
pub async fn run_for(state: &State, models: &[String]) -> anyhow::Result<()> {
    let mut conn = state.pool.write().await?;
    if !take_check(&mut conn, ROOT, TOPIC_NOW, Utc::now(), NOW_AT_MOST).await? {
        return Ok(());
    }
    drop(conn);
    tracing::warn!(?models, "models without a price are asked for; looking for one at PRICE_URL");
    let table = remote(&state.settings.outbound).await;
    let table = table.map_err(|reason| anyhow!("no price table from PRICE_URL: {reason}"))?;
    let mut conn = state.pool.write().await?;
    begin_checks(&mut conn, ROOT, TOPIC, Utc::now()).await?;
    release_check(&mut conn, ROOT, TOPIC, Utc::now()).await?;
    drop(conn);
    merge(state, &table).await
}

async fn merge(state: &State, table: &Table) -> anyhow::Result<()> {
    let failed = |failure: Failure| anyhow!("{failure}");
    let rule = Rule {
        source: "litellm",
        overwrite: HashSet::new(),
        only: Some(&["bundled", "litellm"]),
        pins: false,
    };
    let mut conn = state.pool.write().await?;
    // Most fetches bring nothing new; then no proxy need hear of it.
    if !differs(&mut conn, ROOT, table, &rule).await.map_err(failed)? {
        return Ok(());
    }
    let caller = Caller {
        id: ROOT,
        owner: ROOT,
        is_admin: true,
        name: String::new(),
        action: format!("jobs/{TOPIC}"),
        client_ip: None,
    };
    let merged =
        conn.transaction::<_, Failure, _>(async |conn| merge_in_tx(conn, &caller, table, &rule).await).await;
    let (uploaded, closed) = merged.map_err(failed)?;
    let generation = closed.committed(state).publish();
    let (added, updated) = uploaded.changed();
    tracing::info!(added, updated, generation = generation.0, "new prices from PRICE_URL");
    Ok(())
}
