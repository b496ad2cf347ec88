//! Upstream credentials at their base URLs. All statements are scoped by the owner.

use super::schema::providers::{self, dsl};
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

type Time = Option<DateTime<Utc>>;

/// A row, without the sealed credential.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = providers, check_for_backend(Pg))]
pub struct Provider {
    pub id: i64,
    pub name: String,
    pub base_url: String,
    pub kind: String,
    pub credential_mask: String,
    pub enabled: bool,
    pub disabled_reason: Option<String>,
    pub weight: i32,
    pub priority: i32,
    pub group_priorities: Option<Value>,
    pub groups: Vec<String>,
    pub level: i32,
    pub cost_multiplier: BigDecimal,
    pub model_redirects: Option<Value>,
    pub allowed_models: Option<Value>,
    pub allowed_clients: Vec<String>,
    pub blocked_clients: Vec<String>,
    pub limit_5h_usd: Option<BigDecimal>,
    pub limit_5h_reset_mode: String,
    pub limit_daily_usd: Option<BigDecimal>,
    pub daily_reset_mode: String,
    pub daily_reset_time: String,
    pub limit_weekly_usd: Option<BigDecimal>,
    pub limit_monthly_usd: Option<BigDecimal>,
    pub limit_total_usd: Option<BigDecimal>,
    pub limit_concurrent_sessions: i32,
    pub total_cost_reset_at: Time,
    pub max_retry_attempts: Option<i32>,
    pub breaker_failure_threshold: i32,
    pub breaker_open_ms: i64,
    pub breaker_half_open_successes: i32,
    pub first_byte_timeout_ms: i32,
    pub idle_timeout_ms: i32,
    pub total_timeout_ms: i32,
    pub active_time_start: Option<String>,
    pub active_time_end: Option<String>,
    pub preserve_client_ip: bool,
    pub disable_session_reuse: bool,
    pub custom_headers: Option<Value>,
    pub extra: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What a row begins with; everything else comes by [`Change`] in the same transaction.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = providers)]
pub struct New {
    pub id: i64,
    pub owner_id: i64,
    pub name: String,
    pub base_url: String,
    pub kind: &'static str,
    pub credential: Vec<u8>,
    pub credential_mask: String,
    pub generation: i64,
}

/// `None` leaves a column as it is.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Default, AsChangeset)]
#[diesel(table_name = providers)]
pub struct Change {
    pub name: Option<String>,
    pub base_url: Option<String>,
    pub kind: Option<&'static str>,
    pub credential: Option<Vec<u8>>,
    pub credential_mask: Option<String>,
    pub enabled: Option<bool>,
    pub disabled_reason: Option<Option<String>>,
    pub weight: Option<i32>,
    pub priority: Option<i32>,
    pub group_priorities: Option<Option<Value>>,
    pub groups: Option<Vec<String>>,
    pub cost_multiplier: Option<BigDecimal>,
    pub model_redirects: Option<Option<Value>>,
    pub allowed_models: Option<Option<Value>>,
    pub allowed_clients: Option<Vec<String>>,
    pub blocked_clients: Option<Vec<String>>,
    pub limit_5h_usd: Option<Option<BigDecimal>>,
    pub limit_5h_reset_mode: Option<&'static str>,
    pub limit_daily_usd: Option<Option<BigDecimal>>,
    pub daily_reset_mode: Option<&'static str>,
    pub daily_reset_time: Option<String>,
    pub limit_weekly_usd: Option<Option<BigDecimal>>,
    pub limit_monthly_usd: Option<Option<BigDecimal>>,
    pub limit_total_usd: Option<Option<BigDecimal>>,
    pub limit_concurrent_sessions: Option<i32>,
    pub max_retry_attempts: Option<Option<i32>>,
    pub breaker_failure_threshold: Option<i32>,
    pub breaker_open_ms: Option<i64>,
    pub breaker_half_open_successes: Option<i32>,
    pub first_byte_timeout_ms: Option<i32>,
    pub idle_timeout_ms: Option<i32>,
    pub total_timeout_ms: Option<i32>,
    pub active_time_start: Option<Option<String>>,
    pub active_time_end: Option<Option<String>>,
    pub preserve_client_ip: Option<bool>,
    pub disable_session_reuse: Option<bool>,
    pub custom_headers: Option<Option<Value>>,
    pub extra: Option<Value>,
    /// Stamped by whoever writes; always set.
    pub generation: Option<i64>,
}

/// The identity of the next row, taken before it exists because the credential is sealed under it.
pub async fn next_id_in_tx(conn: &mut Conn) -> Result<i64, Error> {
    super::sql::next_id(conn, "providers").await
}

/// All of an owner, in the order in which they are preferred.
pub async fn list(conn: &mut Conn, owner: i64) -> Result<Vec<Provider>, Error> {
    let query = dsl::providers
        .filter(dsl::owner_id.eq(owner).and(dsl::deleted_at.is_null()))
        .order((dsl::priority, dsl::id));
    Ok(query.select(Provider::as_select()).load(conn).await?)
}

/// One provider that is not deleted.
pub async fn find(conn: &mut Conn, owner: i64, id: i64) -> Result<Option<Provider>, Error> {
    let query =
        dsl::providers.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    Ok(query.select(Provider::as_select()).first(conn).await.optional()?)
}

/// A new row.
pub async fn insert_in_tx(conn: &mut Conn, new: New) -> Result<Provider, Error> {
    let insert = diesel::insert_into(providers::table).values(new);
    Ok(insert.returning(Provider::as_returning()).get_result(conn).await?)
}

/// Changes a row; `None` if there is none.
pub async fn update_in_tx(
    conn: &mut Conn,
    owner: i64,
    id: i64,
    change: &Change,
) -> Result<Option<Provider>, Error> {
    let target =
        dsl::providers.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    let change = (change, dsl::updated_at.eq(now));
    let update = diesel::update(target).set(change).returning(Provider::as_returning());
    Ok(update.get_result(conn).await.optional()?)
}

/// Deletes softly, and lets go of the sealed credential.
pub async fn remove_in_tx(conn: &mut Conn, owner: i64, id: i64, generation: i64) -> Result<(), Error> {
    let target =
        dsl::providers.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    let change = (
        dsl::deleted_at.eq(now),
        dsl::credential.eq(Vec::new()),
        dsl::custom_headers.eq(None::<Value>),
        dsl::generation.eq(generation),
    );
    diesel::update(target).set(change).execute(conn).await?;
    Ok(())
}
