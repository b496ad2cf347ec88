//! Sums of today, and the newest record of each key and provider.

use super::super::{Conn, Error};
use super::filter::NOT_QUIET;
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Nullable, Numeric, Text, Timestamptz};
use diesel_async::RunQueryDsl;

/// What one key used of one model.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, QueryableByName)]
pub struct KeyModel {
    #[diesel(sql_type = BigInt)]
    pub key_id: i64,
    #[diesel(sql_type = Text)]
    pub model: String,
    #[diesel(sql_type = BigInt)]
    pub requests: i64,
    #[diesel(sql_type = Numeric)]
    pub cost: BigDecimal,
    #[diesel(sql_type = BigInt)]
    pub input_tokens: i64,
    #[diesel(sql_type = BigInt)]
    pub output_tokens: i64,
    #[diesel(sql_type = BigInt)]
    pub cache_write_tokens: i64,
    #[diesel(sql_type = BigInt)]
    pub cache_read_tokens: i64,
}

/// What was sent to one provider.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, QueryableByName)]
pub struct ProviderDay {
    #[diesel(sql_type = BigInt)]
    pub provider_id: i64,
    #[diesel(sql_type = BigInt)]
    pub requests: i64,
    #[diesel(sql_type = Numeric)]
    pub cost: BigDecimal,
}

/// The newest record of a key or a provider.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, QueryableByName)]
pub struct Last {
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    pub model: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub provider_id: Option<i64>,
}

/// Sums per key and model since a midnight of the configured zone, of what the overview counts as requests.
pub async fn of_keys_since(
    conn: &mut Conn,
    owner: i64,
    keys: &[i64],
    midnight: DateTime<Utc>,
) -> Result<Vec<KeyModel>, Error> {
    let query = format!(
        "SELECT key_id, model, sum(requests)::bigint AS requests, sum(cost) AS cost, \
         sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens, \
         sum(cache_write_5m_tokens + cache_write_1h_tokens)::bigint AS cache_write_tokens, \
         sum(cache_read_tokens)::bigint AS cache_read_tokens FROM usage_key_days \
         WHERE owner_id = $1 AND key_id = ANY($2) AND start >= $3 AND NOT is_blocked AND {NOT_QUIET} \
         GROUP BY key_id, model ORDER BY key_id, cost DESC, model"
    );
    let query = diesel::sql_query(query);
    let query =
        query.bind::<BigInt, _>(owner).bind::<Array<BigInt>, _>(keys).bind::<Timestamptz, _>(midnight);
    Ok(query.load(conn).await?)
}

/// Sums per provider since a midnight of the configured zone, of what the overview counts as requests.
pub async fn of_providers_since(
    conn: &mut Conn,
    owner: i64,
    midnight: DateTime<Utc>,
) -> Result<Vec<ProviderDay>, Error> {
    let query = "SELECT value::bigint AS provider_id, sum(requests)::bigint AS requests, sum(cost) AS cost \
         FROM usage_margins WHERE owner_id = $1 AND facet = 'provider' AND span = 1440 AND start >= $2 \
         AND NOT is_quiet AND NOT is_blocked GROUP BY 1";
    let query = diesel::sql_query(query).bind::<BigInt, _>(owner).bind::<Timestamptz, _>(midnight);
    Ok(query.load(conn).await?)
}

/// The newest record of each key that has one: one index look-up per key.
pub async fn last_of_keys(conn: &mut Conn, keys: &[i64]) -> Result<Vec<Last>, Error> {
    last(conn, "key_id", keys).await
}

/// The newest record of each provider that has one.
pub async fn last_of_providers(conn: &mut Conn, providers: &[i64]) -> Result<Vec<Last>, Error> {
    last(conn, "provider_id", providers).await
}

async fn last(conn: &mut Conn, column: &'static str, ids: &[i64]) -> Result<Vec<Last>, Error> {
    let query = format!(
        "SELECT wanted.id, newest.created_at, newest.model, newest.provider_id \
         FROM unnest($1::bigint[]) AS wanted (id) CROSS JOIN LATERAL (\
         SELECT created_at, model, provider_id FROM usage_records WHERE {column} = wanted.id \
         ORDER BY created_at DESC LIMIT 1) AS newest"
    );
    Ok(diesel::sql_query(query).bind::<Array<BigInt>, _>(ids).load(conn).await?)
}
