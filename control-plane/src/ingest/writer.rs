//! One batch, one transaction: records that are not there yet, and from just these the sums.

use super::row;
use crate::db::dead_letters::{self, Letter};
use crate::db::held::{self, HeldRow};
use crate::db::ledger::{HourRow, RecordRow, SessionRow, add_hours_in_tx, add_sessions_in_tx, insert_in_tx};
use crate::db::{Conn, Error, rollup};
use bigdecimal::BigDecimal;
use bytes::Bytes;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use contract::convert::Invalid;
use contract::pb;
use contract::usage::Outcome;
use diesel_async::AsyncConnection;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

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

/// A record that can never be stored.
struct Dead {
    id: Bytes,
    wire: Bytes,
    reason: String,
}

/// Stores a batch of encoded records. Not cancel-safe: call it through `tasks`.
///
/// A record that can never be stored must not hold up those behind it: it is kept as a dead letter, with the
/// reason, and acknowledged. What Postgres refuses is found by halves, each half a transaction of its own.
pub async fn write(conn: &mut Conn, records: Vec<Bytes>) -> Result<Written, Error> {
    let mut dead = Vec::new();
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(records.len());
    let mut wires = HashMap::with_capacity(records.len());
    let total = records.len();
    for wire in records {
        match read(&wire) {
            Ok(row) if seen.insert((row.id, row.created_at)) => {
                wires.insert((row.id, row.created_at), wire);
                rows.push(row);
            }
            Ok(_) => {}
            Err((id, reason)) => dead.push(Dead { id, wire, reason }),
        }
    }
    let stored = store(conn, &rows).await?;
    for (key, reason) in stored.refused {
        let wire = wires.remove(&key).unwrap_or_default();
        dead.push(Dead { id: Bytes::copy_from_slice(key.0.as_bytes()), wire, reason });
    }
    let letters: Vec<Letter> = dead.iter().map(letter).collect();
    dead_letters::keep(conn, &letters).await?;
    let refused: Vec<_> =
        dead.into_iter().map(|dead| pb::RefusedRecord { id: dead.id, reason: dead.reason }).collect();
    Ok(Written { inserted: stored.inserted, known: total - stored.inserted - refused.len(), refused })
}

/// The row of a record, or its id, if it has one, and what is wrong.
fn read(wire: &Bytes) -> Result<RecordRow, (Bytes, String)> {
    let record = pb::UsageRecord::decode(wire.clone());
    let record = record.map_err(|error| (Bytes::new(), format!("no usage record: {error}")))?;
    let id = record.id.clone();
    row::read(record).map_err(|Invalid { path, why }| (id, format!("{path}: {why}")))
}

fn letter(dead: &Dead) -> Letter<'_> {
    Letter {
        digest: Sha256::digest(&dead.wire).to_vec(),
        record_id: dead.id.to_vec(),
        reason: &dead.reason,
        record: dead.wire.to_vec(),
    }
}

/// What makes a record one: its id, and when it began.
type RecordKey = (Uuid, DateTime<Utc>);

#[derive(Default)]
struct Stored {
    inserted: usize,
    refused: Vec<(RecordKey, String)>,
}

/// What Postgres takes of `rows`, and the others with the reason.
async fn store(conn: &mut Conn, rows: &[RecordRow]) -> Result<Stored, Error> {
    let mut stored = Stored::default();
    let mut is_any_taken = false;
    let mut doubtful = None;
    let mut parts = vec![rows];
    while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
        match (conn.transaction(async |conn| write_in_tx(conn, part).await).await, part) {
            (Ok(count), _) => {
                stored.inserted += count;
                is_any_taken = true;
            }
            (Err(error), [row]) if error.is_refusal() => {
                if !error.is_about_data() {
                    doubtful = Some(error);
                    stored.refused.push(((row.id, row.created_at), "the database refuses it".to_owned()));
                } else {
                    stored
                        .refused
                        .push(((row.id, row.created_at), "the database refuses its values".to_owned()));
                }
            }
            (Err(error), _) if error.is_refusal() => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            (Err(error), _) => return Err(error),
        }
    }
    match doubtful {
        // Nothing at all was taken, and not because of a value: the fault is likely ours, and the batch comes again.
        Some(error) if !is_any_taken => Err(error),
        _ => Ok(stored),
    }
}

async fn write_in_tx(conn: &mut Conn, rows: &[RecordRow]) -> Result<usize, Error> {
    let new = insert_in_tx(conn, rows).await?;
    let rows = || rows.iter().filter(|row| new.contains(&row.id));
    add_hours_in_tx(conn, &hours(rows())).await?;
    held::add_in_tx(conn, &held_hours(rows())).await?;
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

/// What is held by hour, in order of its key.
fn held_hours<'a>(rows: impl Iterator<Item = &'a RecordRow>) -> Vec<HeldRow> {
    let mut sums: BTreeMap<_, HeldRow> = BTreeMap::new();
    for row in rows {
        let Some(held_cost) = row.held_cost.as_ref().filter(|held| **held > BigDecimal::default()) else {
            continue;
        };
        let (hour, provider_id) = (hour_of(row.created_at), row.provider_id.unwrap_or(0));
        let (user_id, key_id, owner_id) = (row.user_id, row.key_id, row.owner_id);
        let sum = sums.entry((user_id, hour, key_id, provider_id, owner_id)).or_insert_with(|| HeldRow {
            user_id,
            hour,
            key_id,
            provider_id,
            owner_id,
            held_cost: BigDecimal::default(),
        });
        sum.held_cost += held_cost;
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
