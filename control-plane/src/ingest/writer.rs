//! One batch, one transaction: records that are not there yet, and from just these the sums.

use super::row;
use crate::db::ledger::{HourRow, RecordRow, SessionRow, add_hours_in_tx, add_sessions_in_tx, insert_in_tx};
use crate::db::{Conn, Error, rollup};
use bigdecimal::BigDecimal;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use contract::convert::Invalid;
use contract::pb;
use contract::usage::Outcome;
use diesel_async::AsyncConnection;
use std::collections::{BTreeMap, HashSet};

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Written {
    /// Records that were not there before.
    pub inserted: usize,
    /// Records that were.
    pub known: usize,
    /// Records that can never be stored.
    pub refused: Vec<pb::RefusedRecord>,
}

/// Stores a batch. Not cancel-safe: call it through `tasks`.
pub async fn write(conn: &mut Conn, records: Vec<pb::UsageRecord>) -> Result<Written, Error> {
    let mut refused = Vec::new();
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(records.len());
    let total = records.len();
    for record in records {
        let id = record.id.clone();
        match row::read(record) {
            Ok(row) if seen.insert((row.id, row.created_at)) => rows.push(row),
            Ok(_) => {}
            Err(Invalid { path, why }) => {
                let reason = format!("{path}: {why}");
                refused.push(pb::RefusedRecord { id, reason });
            }
        }
    }
    let inserted = match rows.is_empty() {
        true => 0,
        false => conn.transaction(async |conn| write_in_tx(conn, &rows).await).await?,
    };
    Ok(Written { inserted, known: total - inserted - refused.len(), refused })
}

async fn write_in_tx(conn: &mut Conn, rows: &[RecordRow]) -> Result<usize, Error> {
    let new = insert_in_tx(conn, rows).await?;
    let rows = || rows.iter().filter(|row| new.contains(&row.id));
    add_hours_in_tx(conn, &hours(rows())).await?;
    let times: Vec<_> = rows().map(|row| (row.id, row.created_at)).collect();
    rollup::add_in_tx(conn, &times).await?;
    add_sessions_in_tx(conn, &sessions(rows())).await?;
    Ok(new.len())
}

fn hour_of(at: DateTime<Utc>) -> DateTime<Utc> {
    // An hour divides every instant that the row's bounds let in.
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at)
}

/// Sums by hour and dimension, in order of their key.
fn hours<'a>(rows: impl Iterator<Item = &'a RecordRow>) -> Vec<HourRow> {
    let mut sums: BTreeMap<_, HourRow> = BTreeMap::new();
    for row in rows {
        let (hour, provider_id) = (hour_of(row.created_at), row.provider_id.unwrap_or(0));
        let key = (hour, row.owner_id, row.user_id, row.key_id, provider_id, row.model.clone());
        let sum = sums.entry(key).or_insert_with(|| HourRow {
            hour,
            owner_id: row.owner_id,
            user_id: row.user_id,
            key_id: row.key_id,
            provider_id,
            model: row.model.clone(),
            requests: 0,
            errors: 0,
            blocked: 0,
            unpriced: 0,
            input_tokens: 0,
            output_tokens: 0,
            cache_read_tokens: 0,
            cache_write_5m_tokens: 0,
            cache_write_1h_tokens: 0,
            cost: BigDecimal::default(),
            duration_ms: 0,
        });
        let is_blocked = row.outcome == Outcome::Blocked.as_str();
        sum.requests += 1;
        sum.blocked += i64::from(is_blocked);
        sum.errors += i64::from(!is_blocked && row.outcome != Outcome::Completed.as_str());
        sum.unpriced += i64::from(row.cost.is_none());
        sum.input_tokens += row.input_tokens;
        sum.output_tokens += row.output_tokens;
        sum.cache_read_tokens += row.cache_read_tokens;
        sum.cache_write_5m_tokens += row.cache_write_5m_tokens;
        sum.cache_write_1h_tokens += row.cache_write_1h_tokens;
        sum.cost += row.cost.as_ref().unwrap_or(&BigDecimal::default());
        sum.duration_ms += i64::from(row.duration_ms);
    }
    sums.into_values().collect()
}

/// What the records add to each conversation, in order of its key.
fn sessions<'a>(rows: impl Iterator<Item = &'a RecordRow>) -> Vec<SessionRow> {
    let mut sums: BTreeMap<_, SessionRow> = BTreeMap::new();
    for row in rows {
        let Some(session_id) = row.session_id.clone().filter(|id| !id.is_empty()) else { continue };
        let sum = sums.entry((row.user_id, session_id.clone())).or_insert_with(|| SessionRow {
            owner_id: row.owner_id,
            user_id: row.user_id,
            session_id,
            key_id: row.key_id,
            provider_id: row.provider_id,
            model: row.model.clone(),
            dialect: row.dialect,
            first_seen_at: row.created_at,
            last_seen_at: row.created_at,
            requests: 0,
            input_tokens: 0,
            output_tokens: 0,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            cost: BigDecimal::default(),
            duration_ms: 0,
            last_status: row.status,
        });
        if row.created_at >= sum.last_seen_at {
            sum.last_seen_at = row.created_at;
            sum.key_id = row.key_id;
            sum.provider_id = row.provider_id.or(sum.provider_id);
            sum.model.clone_from(&row.model);
            sum.dialect = row.dialect;
            sum.last_status = row.status;
        }
        sum.first_seen_at = sum.first_seen_at.min(row.created_at);
        sum.requests += 1;
        sum.input_tokens += row.input_tokens;
        sum.output_tokens += row.output_tokens;
        sum.cache_read_tokens += row.cache_read_tokens;
        sum.cache_write_tokens += row.cache_write_5m_tokens + row.cache_write_1h_tokens;
        sum.cost += row.cost.as_ref().unwrap_or(&BigDecimal::default());
        sum.duration_ms += i64::from(row.duration_ms);
    }
    sums.into_values().collect()
}
