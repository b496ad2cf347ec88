//! What was used: the ledger by filter and page, and today's sums per key and provider.
//!
//! The ledger is read through its indexes on (owner | user | key | provider, created_at); the sums of a day
//! come from the hourly roll-ups.

mod rank;
mod today;

pub use rank::{Rank, leaderboard};

pub use today::{
    KeyModel, Last, ProviderDay, last_of_keys, last_of_providers, of_keys_since, of_providers_since,
};

use super::schema::{keys, providers, usage_records, users};
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Numeric};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use std::collections::HashMap;
use usage_records::dsl;
use uuid::Uuid;

/// A record, as far as the log shows it.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = usage_records, check_for_backend(Pg))]
pub struct Record {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub user_id: i64,
    pub key_id: i64,
    pub provider_id: Option<i64>,
    pub session_id: Option<String>,
    pub dialect: String,
    pub endpoint: String,
    pub model: String,
    pub upstream_model: Option<String>,
    pub response_model: Option<String>,
    pub billed_model: Option<String>,
    pub streamed: bool,
    pub outcome: String,
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
    pub usage_source: String,
    pub cost: Option<BigDecimal>,
    pub cost_parts: Value,
    pub cost_multiplier: BigDecimal,
    pub duration_ms: i32,
    pub ttft_ms: Option<i32>,
    pub attempts: Value,
    pub user_agent: Option<String>,
    pub client_ip: Option<String>,
    pub messages_count: i32,
}

/// Which records. Every filter that is set must hold.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub owner: i64,
    pub user: Option<i64>,
    pub key: Option<i64>,
    pub provider: Option<i64>,
    /// Asked for or sent upstream.
    pub model: Option<String>,
    pub endpoint: Option<String>,
    pub status: Option<i16>,
    pub exclude_200: bool,
    pub min_retries: Option<i16>,
    pub session: Option<String>,
    pub from: Option<DateTime<Utc>>,
    /// Excluded.
    pub until: Option<DateTime<Utc>>,
}

/// Sums over all records of a filter, exact.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, Queryable)]
pub struct Summary {
    pub requests: i64,
    pub cost: Option<BigDecimal>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_5m_tokens: i64,
    pub cache_write_1h_tokens: i64,
}

/// A place in the list, newest first: what follows is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the last record seen.
    pub created_at: DateTime<Utc>,
    /// Of the last record seen.
    pub id: Uuid,
}

type Query = usage_records::BoxedQuery<'static, Pg>;

/// Requests that do no work of their own; shown when they are asked for by their endpoint.
const QUIET: [&str; 2] = ["%/count\\_tokens", "%/responses/compact"];

fn filtered(filter: &Filter) -> Query {
    let mut query = dsl::usage_records.filter(dsl::owner_id.eq(filter.owner)).into_boxed();
    if let Some(user) = filter.user {
        query = query.filter(dsl::user_id.eq(user));
    }
    if let Some(key) = filter.key {
        query = query.filter(dsl::key_id.eq(key));
    }
    if let Some(provider) = filter.provider {
        query = query.filter(dsl::provider_id.eq(provider));
    }
    if let Some(model) = &filter.model {
        query =
            query.filter(dsl::model.nullable().eq(model.clone()).or(dsl::upstream_model.eq(model.clone())));
    }
    query = match &filter.endpoint {
        Some(endpoint) => query.filter(dsl::endpoint.eq(endpoint.clone())),
        None => query.filter(dsl::endpoint.not_like(QUIET[0]).and(dsl::endpoint.not_like(QUIET[1]))),
    };
    if let Some(status) = filter.status {
        query = query.filter(dsl::status.eq(status));
    }
    if filter.exclude_200 {
        query = query.filter(dsl::status.ne(200));
    }
    if let Some(retries) = filter.min_retries {
        query = query.filter(dsl::retry_count.ge(retries));
    }
    if let Some(session) = &filter.session {
        query = query.filter(dsl::session_id.eq(session.clone()));
    }
    if let Some(from) = filter.from {
        query = query.filter(dsl::created_at.ge(from));
    }
    if let Some(until) = filter.until {
        query = query.filter(dsl::created_at.lt(until));
    }
    query
}

/// The sums.
pub async fn summary(conn: &mut Conn, filter: &Filter) -> Result<Summary, Error> {
    let sum = |column: &str| sql::<BigInt>(&format!("coalesce(sum({column}), 0)::bigint"));
    let columns = (
        diesel::dsl::count_star(),
        sql::<Nullable<Numeric>>("sum(cost)"),
        sum("input_tokens"),
        sum("output_tokens"),
        sum("cache_read_tokens"),
        sum("cache_write_5m_tokens"),
        sum("cache_write_1h_tokens"),
    );
    Ok(filtered(filter).select(columns).first(conn).await?)
}

/// Records, newest first: after a place, or so many rows further on.
pub async fn page(
    conn: &mut Conn,
    filter: &Filter,
    after: Option<Place>,
    offset: i64,
    limit: i64,
) -> Result<Vec<Record>, Error> {
    let mut query = filtered(filter)
        .order((dsl::created_at.desc(), dsl::id.desc()))
        .offset(offset)
        .limit(limit)
        .select(Record::as_select());
    if let Some(place) = after {
        let same = dsl::created_at.eq(place.created_at).and(dsl::id.lt(place.id));
        query = query.filter(dsl::created_at.le(place.created_at));
        query = query.filter(dsl::created_at.lt(place.created_at).or(same));
    }
    Ok(query.load(conn).await?)
}

/// Names by id, of rows that may be deleted since.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Users.
    pub users: HashMap<i64, String>,
    /// Keys.
    pub keys: HashMap<i64, String>,
    /// Providers.
    pub providers: HashMap<i64, String>,
}

/// The names in some records.
pub async fn names(conn: &mut Conn, owner: i64, records: &[Record]) -> Result<Names, Error> {
    let ids = |id: &dyn Fn(&Record) -> Option<i64>| -> Vec<i64> {
        let mut ids: Vec<i64> = records.iter().filter_map(id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let user_ids = ids(&|record| Some(record.user_id));
    let key_ids = ids(&|record| Some(record.key_id));
    let provider_ids = ids(&|record| record.provider_id);
    let of_users = users::table.filter(users::owner_id.eq(owner).and(users::id.eq_any(user_ids)));
    let of_keys = keys::table.filter(keys::owner_id.eq(owner).and(keys::id.eq_any(key_ids)));
    Ok(Names {
        users: of_users.select((users::id, users::name)).load(conn).await?.into_iter().collect(),
        keys: of_keys.select((keys::id, keys::name)).load(conn).await?.into_iter().collect(),
        providers: provider_names(conn, owner, &provider_ids).await?,
    })
}

/// The names of some providers.
pub async fn provider_names(conn: &mut Conn, owner: i64, ids: &[i64]) -> Result<HashMap<i64, String>, Error> {
    let query = providers::table.filter(providers::owner_id.eq(owner).and(providers::id.eq_any(ids)));
    Ok(query.select((providers::id, providers::name)).load(conn).await?.into_iter().collect())
}
