//! The limits of a user, a key or a provider, as far as their use is shown.

use super::super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use contract::table::Scope;
use diesel::QueryableByName;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable, Numeric, Text, Timestamptz};
use diesel_async::RunQueryDsl;

/// Limits; null and 0 are none.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, QueryableByName)]
pub struct LimitRow {
    /// Of whom it is: the user itself, the key's user, 0 for a provider.
    #[diesel(sql_type = BigInt)]
    pub user_id: i64,
    #[diesel(sql_type = Nullable<Integer>)]
    pub rpm: Option<i32>,
    #[diesel(sql_type = Nullable<Numeric>)]
    pub limit_5h_usd: Option<BigDecimal>,
    #[diesel(sql_type = Text)]
    pub limit_5h_reset_mode: String,
    #[diesel(sql_type = Nullable<Numeric>)]
    pub limit_daily_usd: Option<BigDecimal>,
    #[diesel(sql_type = Text)]
    pub daily_reset_mode: String,
    #[diesel(sql_type = Text)]
    pub daily_reset_time: String,
    #[diesel(sql_type = Nullable<Numeric>)]
    pub limit_weekly_usd: Option<BigDecimal>,
    #[diesel(sql_type = Nullable<Numeric>)]
    pub limit_monthly_usd: Option<BigDecimal>,
    #[diesel(sql_type = Nullable<Numeric>)]
    pub limit_total_usd: Option<BigDecimal>,
    /// A key without a limit of its own has its user's.
    #[diesel(sql_type = Nullable<Integer>)]
    pub sessions: Option<i32>,
    /// What was spent before does not count.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub reset_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "limit_5h_usd, t.limit_5h_reset_mode, t.limit_daily_usd, t.daily_reset_mode, \
    t.daily_reset_time, t.limit_weekly_usd, t.limit_monthly_usd, t.limit_total_usd";

/// The limits of what is not deleted.
pub async fn limits(conn: &mut Conn, owner: i64, scope: Scope) -> Result<Option<LimitRow>, Error> {
    let (id, own, table) = match scope {
        Scope::User(id) => (
            id.0,
            "t.id AS user_id, t.rpm, t.limit_concurrent_sessions AS sessions, t.cost_reset_at AS reset_at",
            "users AS t",
        ),
        Scope::Key(id) => (
            id.0,
            "t.user_id, NULL::integer AS rpm, coalesce(nullif(t.limit_concurrent_sessions, 0), \
             u.limit_concurrent_sessions) AS sessions, t.cost_reset_at AS reset_at",
            "keys AS t JOIN users AS u ON u.id = t.user_id",
        ),
        Scope::Provider(id) => (
            id.0,
            "0::bigint AS user_id, NULL::integer AS rpm, t.limit_concurrent_sessions AS sessions, \
             t.total_cost_reset_at AS reset_at",
            "providers AS t",
        ),
    };
    let query = format!(
        "SELECT {own}, t.{COLUMNS} FROM {table} WHERE t.owner_id = $1 AND t.id = $2 AND t.deleted_at IS NULL"
    );
    let query = diesel::sql_query(query).bind::<BigInt, _>(owner).bind::<BigInt, _>(id);
    Ok(query.get_result(conn).await.optional()?)
}
