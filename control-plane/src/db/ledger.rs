//! The ledger: usage records in, once each; and the sums that stand beside them.

use super::schema::{usage_hourly, usage_records};
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use contract::table::Scope;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Numeric, SmallInt, Text, Timestamptz};
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use std::collections::HashSet;
use uuid::Uuid;

/// Rows of one statement: Postgres takes 65,535 parameters, and a record has 46.
const ROWS: usize = 1_000;

/// A record as it is stored.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = usage_records)]
pub struct RecordRow {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub owner_id: i64,
    pub user_id: i64,
    pub key_id: i64,
    pub provider_id: Option<i64>,
    pub proxy_id: String,
    pub session_id: Option<String>,
    pub dialect: &'static str,
    pub endpoint: String,
    pub model: String,
    pub upstream_model: Option<String>,
    pub response_model: Option<String>,
    pub billed_model: Option<String>,
    pub streamed: bool,
    pub outcome: &'static str,
    pub status: i16,
    pub error: Option<String>,
    pub blocked_by: Option<String>,
    pub blocked_reason: Option<String>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub reasoning_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_5m_tokens: i64,
    pub cache_write_1h_tokens: i64,
    pub other_tokens: Option<Value>,
    pub usage_source: &'static str,
    pub cost: Option<BigDecimal>,
    pub unpriced: Option<&'static str>,
    pub held_cost: Option<BigDecimal>,
    pub cost_parts: Value,
    pub cost_multiplier: BigDecimal,
    pub generation: i64,
    pub duration_ms: i32,
    pub ttft_ms: Option<i32>,
    pub attempts: Value,
    pub retry_count: i16,
    pub user_agent: Option<String>,
    pub client_ip: Option<String>,
    pub trace_id: Option<String>,
    pub request_bytes: i64,
    pub response_bytes: i64,
    pub messages_count: i32,
}

/// Sums of one hour; provider 0: no provider was reached.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = usage_hourly)]
pub struct HourRow {
    pub hour: DateTime<Utc>,
    pub owner_id: i64,
    pub user_id: i64,
    pub key_id: i64,
    pub provider_id: i64,
    pub model: String,
    pub requests: i64,
    pub errors: i64,
    pub blocked: i64,
    pub unpriced: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_5m_tokens: i64,
    pub cache_write_1h_tokens: i64,
    pub cost: BigDecimal,
    pub duration_ms: i64,
}

/// What a batch adds to one conversation.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub owner_id: i64,
    pub user_id: i64,
    pub session_id: String,
    pub key_id: i64,
    pub provider_id: Option<i64>,
    pub model: String,
    pub dialect: &'static str,
    pub first_seen_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    pub requests: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_tokens: i64,
    pub cost: BigDecimal,
    pub duration_ms: i64,
    pub last_status: i16,
}

/// Inserts what is not there yet and says which that were.
pub async fn insert_in_tx(conn: &mut Conn, rows: &[RecordRow]) -> Result<HashSet<Uuid>, Error> {
    let mut inserted = HashSet::with_capacity(rows.len());
    for rows in rows.chunks(ROWS) {
        let new: Vec<Uuid> = diesel::insert_into(usage_records::table)
            .values(rows)
            .on_conflict_do_nothing()
            .returning(usage_records::id)
            .get_results(conn)
            .await?;
        inserted.extend(new);
    }
    Ok(inserted)
}

/// Adds to the hourly sums. `rows` in order of their key, so that two batches never wait for each other
/// crosswise; each key once.
pub async fn add_hours_in_tx(conn: &mut Conn, rows: &[HourRow]) -> Result<(), Error> {
    use usage_hourly::*;
    macro_rules! added {
        ($($column:ident),+) => { ($($column.eq($column + excluded($column)),)+) };
    }
    for rows in rows.chunks(ROWS) {
        diesel::insert_into(table)
            .values(rows)
            .on_conflict((hour, owner_id, user_id, key_id, provider_id, model))
            .do_update()
            .set(added!(
                requests,
                errors,
                blocked,
                unpriced,
                input_tokens,
                output_tokens,
                cache_read_tokens,
                cache_write_5m_tokens,
                cache_write_1h_tokens,
                cost,
                duration_ms
            ))
            .execute(conn)
            .await?;
    }
    Ok(())
}

const ADD_SESSIONS: &str = include_str!("ledger/add_sessions.sql");

/// Adds to the conversations. `rows` in order of their key, each key once.
pub async fn add_sessions_in_tx(conn: &mut Conn, rows: &[SessionRow]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        ($field:ident) => {
            rows.iter().map(|row| row.$field.clone()).collect::<Vec<_>>()
        };
    }
    diesel::sql_query(ADD_SESSIONS)
        .bind::<Array<BigInt>, _>(column!(owner_id))
        .bind::<Array<BigInt>, _>(column!(user_id))
        .bind::<Array<Text>, _>(column!(session_id))
        .bind::<Array<BigInt>, _>(column!(key_id))
        .bind::<Array<Nullable<BigInt>>, _>(column!(provider_id))
        .bind::<Array<Text>, _>(column!(model))
        .bind::<Array<Text>, _>(column!(dialect))
        .bind::<Array<Timestamptz>, _>(column!(first_seen_at))
        .bind::<Array<Timestamptz>, _>(column!(last_seen_at))
        .bind::<Array<BigInt>, _>(column!(requests))
        .bind::<Array<BigInt>, _>(column!(input_tokens))
        .bind::<Array<BigInt>, _>(column!(output_tokens))
        .bind::<Array<BigInt>, _>(column!(cache_read_tokens))
        .bind::<Array<BigInt>, _>(column!(cache_write_tokens))
        .bind::<Array<Numeric>, _>(column!(cost))
        .bind::<Array<BigInt>, _>(column!(duration_ms))
        .bind::<Array<SmallInt>, _>(column!(last_status))
        .execute(conn)
        .await?;
    Ok(())
}

/// A sum of money: costs, and what is held where there is none.
#[derive(Debug, QueryableByName)]
pub struct Spent {
    /// Unix milliseconds.
    #[diesel(sql_type = BigInt)]
    pub start_ms: i64,
    /// USD.
    #[diesel(sql_type = Numeric)]
    pub cost: BigDecimal,
}

fn column(scope: Scope) -> (&'static str, i64) {
    match scope {
        Scope::Key(id) => ("key_id", id.0),
        Scope::User(id) => ("user_id", id.0),
        Scope::Provider(id) => ("provider_id", id.0),
    }
}

/// What was spent, or is held for models without a price, since an instant. Of users and keys whole hours from the sums, the broken first one from the
/// records; of a provider, which everybody uses, from the sums that have no callers: from the first midnight on by
/// days, until then by quarters of an hour. With `until` only what ended before.
pub async fn spent_since(
    conn: &mut Conn,
    scope: Scope,
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
) -> Result<Spent, Error> {
    let (column, id) = column(scope);
    let recent = until.map_or_else(String::new, |_| {
        format!(
            " UNION ALL SELECT -sum(coalesce(cost, held_cost)) FROM usage_records \
             WHERE {column} = $1 AND created_at >= greatest($2, $3 - {LONGEST}) AND {ENDED} >= $3"
        )
    });
    let (whole, parts) = match scope {
        Scope::Provider(_) => ("900", provider_parts()),
        Scope::User(_) | Scope::Key(_) => (
            "3600",
            format!(
                "SELECT sum(cost) AS cost FROM usage_hourly, edge WHERE {column} = $1 AND usage_hourly.hour >= edge.at"
            ),
        ),
    };
    let query = format!(
        "WITH edge AS (SELECT to_timestamp(ceil(extract(epoch FROM $2::timestamptz) / {whole}) * {whole}) AS at), \
         hours AS (SELECT to_timestamp(ceil(extract(epoch FROM $2::timestamptz) / 3600) * 3600) AS at), \
         parts AS ({parts} UNION ALL SELECT sum(cost) FROM usage_records, edge \
             WHERE {column} = $1 AND created_at >= $2 AND created_at < edge.at \
             UNION ALL SELECT sum(held_cost) FROM usage_held, hours WHERE {column} = $1 AND hour >= hours.at \
             UNION ALL SELECT sum(held_cost) FROM usage_records, hours \
             WHERE {column} = $1 AND created_at >= $2 AND created_at < hours.at AND held_cost > 0{recent}) \
         SELECT (extract(epoch FROM $2::timestamptz) * 1000)::bigint AS start_ms, coalesce(sum(cost), 0) AS cost FROM parts"
    );
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(id)
        .bind::<Timestamptz, _>(since)
        .bind::<Timestamptz, _>(until.unwrap_or(since));
    Ok(query.get_result(conn).await?)
}

/// What was spent by requests that ended since an instant, and before `until`.
pub async fn spent_ended(
    conn: &mut Conn,
    scope: Scope,
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
) -> Result<Spent, Error> {
    let (column, id) = column(scope);
    let before = until.map_or_else(String::new, |_| format!(" AND {ENDED} < $3"));
    let query = format!(
        "SELECT (extract(epoch FROM $2::timestamptz) * 1000)::bigint AS start_ms, \
         coalesce(sum(coalesce(cost, held_cost)), 0) AS cost FROM usage_records \
         WHERE {column} = $1 AND created_at >= $2 - {LONGEST} AND {ENDED} >= $2{before}"
    );
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(id)
        .bind::<Timestamptz, _>(since)
        .bind::<Timestamptz, _>(until.unwrap_or(since));
    Ok(query.get_result(conn).await?)
}

/// When a request ended.
const ENDED: &str = "created_at + duration_ms * interval '1 ms'";
/// No request takes longer, as far as sums by their end are concerned.
const LONGEST: &str = "interval '1 hour'";

/// The sums of provider `$1` from `edge` on. Days are those of the configured zone: the first one that begins after
/// `edge` is found in the table itself.
fn provider_parts() -> String {
    let sums = |span: i16| {
        format!(
            "usage_margins WHERE facet = 'provider' AND value = $1::text AND span = {span} AND start >= (SELECT at FROM edge)"
        )
    };
    let (days, quarters) = (sums(1440), sums(15));
    let first = format!("(SELECT coalesce(min(start), 'infinity') FROM {days})");
    format!(
        "SELECT sum(cost) AS cost FROM {days} UNION ALL SELECT sum(cost) FROM {quarters} AND start < {first}"
    )
}

/// What was spent since an instant, by requests that ended before another, in buckets of `bucket_ms`, aligned to the
/// epoch; empty ones are absent.
pub async fn spent_by_bucket(
    conn: &mut Conn,
    scope: Scope,
    (since, until): (DateTime<Utc>, Option<DateTime<Utc>>),
    bucket_ms: i64,
) -> Result<Vec<Spent>, Error> {
    let (column, id) = column(scope);
    let before = until.map_or_else(String::new, |_| format!(" AND {ENDED} < $4"));
    let query = format!(
        "SELECT (floor(extract(epoch FROM created_at) * 1000 / $3) * $3)::bigint AS start_ms, \
         sum(coalesce(cost, held_cost)) AS cost FROM usage_records \
         WHERE {column} = $1 AND created_at >= $2 AND coalesce(cost, held_cost) <> 0{before} GROUP BY 1 ORDER BY 1"
    );
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(id)
        .bind::<Timestamptz, _>(since)
        .bind::<BigInt, _>(bucket_ms)
        .bind::<Timestamptz, _>(until.unwrap_or(since));
    Ok(query.load(conn).await?)
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Hourly sums of `[from, until)` that differ from the records, by any of requests, tokens and cost.
pub async fn rollup_mismatches(
    conn: &mut Conn,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<i64, Error> {
    let query = "SELECT count(*) AS count FROM ( \
            SELECT date_trunc('hour', created_at) AS hour, owner_id, user_id, key_id, coalesce(provider_id, 0) AS provider_id, \
                model, count(*) AS requests, sum(input_tokens + output_tokens) AS tokens, coalesce(sum(cost), 0) AS cost \
            FROM usage_records WHERE created_at >= $1 AND created_at < $2 GROUP BY 1, 2, 3, 4, 5, 6) AS truth \
        FULL JOIN (SELECT hour, owner_id, user_id, key_id, provider_id, model, requests, \
                input_tokens + output_tokens AS tokens, cost \
            FROM usage_hourly WHERE hour >= $1 AND hour < $2) AS sums \
        USING (hour, owner_id, user_id, key_id, provider_id, model) \
        WHERE (truth.requests, truth.tokens, truth.cost) IS DISTINCT FROM (sums.requests, sums.tokens, sums.cost)";
    let query = diesel::sql_query(query).bind::<Timestamptz, _>(from).bind::<Timestamptz, _>(until);
    Ok(query.get_result::<Count>(conn).await?.count)
}
