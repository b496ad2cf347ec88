//! Who used most in some time, from the records themselves.

use super::super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Numeric, Text, Timestamptz};
use diesel_async::RunQueryDsl;

/// What one user used.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, QueryableByName)]
pub struct Rank {
    #[diesel(sql_type = BigInt)]
    pub user_id: i64,
    #[diesel(sql_type = Text)]
    pub name: String,
    #[diesel(sql_type = BigInt)]
    pub requests: i64,
    #[diesel(sql_type = Numeric)]
    pub cost: BigDecimal,
    #[diesel(sql_type = BigInt)]
    pub tokens: i64,
}

/// Users by cost, highest first; the end of the time is excluded.
pub async fn leaderboard(
    conn: &mut Conn,
    owner: i64,
    time: (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<Rank>, Error> {
    let query = diesel::sql_query(
        "SELECT r.user_id, coalesce(max(u.name), '') AS name, count(*) AS requests, coalesce(sum(r.cost), 0) AS cost, \
         sum(r.input_tokens + r.output_tokens + r.cache_read_tokens + r.cache_write_5m_tokens \
             + r.cache_write_1h_tokens)::bigint AS tokens \
         FROM usage_records AS r LEFT JOIN users AS u ON u.id = r.user_id \
         WHERE r.owner_id = $1 AND r.created_at >= $2 AND r.created_at < $3 AND r.blocked_by IS NULL AND r.user_id <> 0 \
         GROUP BY r.user_id ORDER BY cost DESC, requests DESC, r.user_id",
    );
    let query = query.bind::<BigInt, _>(owner).bind::<Timestamptz, _>(time.0).bind::<Timestamptz, _>(time.1);
    Ok(query.load(conn).await?)
}
