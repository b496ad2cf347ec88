//! Client keys. The clear key is nowhere; all statements are scoped by the owner.

use super::schema::keys::{self, dsl};
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;

type Time = Option<DateTime<Utc>>;

/// A row, without its hash.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = keys, check_for_backend(Pg))]
pub struct Key {
    pub id: i64,
    pub user_id: i64,
    pub name: String,
    pub first_chars: String,
    pub last_chars: String,
    pub sealed: Option<Vec<u8>>,
    pub enabled: bool,
    pub expires_at: Time,
    pub can_login_web_ui: bool,
    pub groups: Vec<String>,
    pub limit_5h_usd: Option<BigDecimal>,
    pub limit_5h_reset_mode: String,
    pub limit_daily_usd: Option<BigDecimal>,
    pub daily_reset_mode: String,
    pub daily_reset_time: String,
    pub limit_weekly_usd: Option<BigDecimal>,
    pub limit_monthly_usd: Option<BigDecimal>,
    pub limit_total_usd: Option<BigDecimal>,
    pub limit_concurrent_sessions: i32,
    pub cache_ttl_preference: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What a row begins with; everything else comes by [`Change`] in the same transaction.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = keys)]
pub struct New {
    pub id: i64,
    pub owner_id: i64,
    pub user_id: i64,
    pub name: String,
    pub hash: Vec<u8>,
    pub first_chars: String,
    pub last_chars: String,
    pub sealed: Option<Vec<u8>>,
    pub generation: i64,
}

/// `None` leaves a column as it is.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Default, AsChangeset)]
#[diesel(table_name = keys)]
pub struct Change {
    pub name: Option<String>,
    pub enabled: Option<bool>,
    pub expires_at: Option<Time>,
    pub can_login_web_ui: Option<bool>,
    pub groups: Option<Vec<String>>,
    pub limit_5h_usd: Option<Option<BigDecimal>>,
    pub limit_5h_reset_mode: Option<&'static str>,
    pub limit_daily_usd: Option<Option<BigDecimal>>,
    pub daily_reset_mode: Option<&'static str>,
    pub daily_reset_time: Option<String>,
    pub limit_weekly_usd: Option<Option<BigDecimal>>,
    pub limit_monthly_usd: Option<Option<BigDecimal>>,
    pub limit_total_usd: Option<Option<BigDecimal>>,
    pub limit_concurrent_sessions: Option<i32>,
    pub cache_ttl_preference: Option<&'static str>,
    /// Stamped by whoever writes; always set.
    pub generation: Option<i64>,
}

/// The index that keeps a user's key names apart.
pub const NAME_INDEX: &str = "keys_name";

/// The identity of the next row, taken before it exists because secrets are sealed under it.
pub async fn next_id_in_tx(conn: &mut Conn) -> Result<i64, Error> {
    super::sql::next_id(conn, "keys").await
}

/// The keys of some users, in the order in which they were made.
pub async fn of_users(conn: &mut Conn, owner: i64, users: &[i64]) -> Result<Vec<Key>, Error> {
    let query = dsl::keys
        .filter(dsl::owner_id.eq(owner).and(dsl::user_id.eq_any(users)).and(dsl::deleted_at.is_null()))
        .order((dsl::user_id, dsl::id));
    Ok(query.select(Key::as_select()).load(conn).await?)
}

/// One key that is not deleted.
pub async fn find(conn: &mut Conn, owner: i64, id: i64) -> Result<Option<Key>, Error> {
    let query = dsl::keys.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    Ok(query.select(Key::as_select()).first(conn).await.optional()?)
}

/// A new row.
pub async fn insert_in_tx(conn: &mut Conn, new: New) -> Result<Key, Error> {
    Ok(diesel::insert_into(keys::table).values(new).returning(Key::as_returning()).get_result(conn).await?)
}

/// Changes a row; `None` if there is none.
pub async fn update_in_tx(
    conn: &mut Conn,
    owner: i64,
    id: i64,
    change: &Change,
) -> Result<Option<Key>, Error> {
    let target = dsl::keys.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    let change = (change, dsl::updated_at.eq(now));
    Ok(diesel::update(target).set(change).returning(Key::as_returning()).get_result(conn).await.optional()?)
}

/// No limit of a user's keys above the one of the user: lowers those that are. A limit of 0 is none. Says how
/// many keys changed.
pub async fn lower_to_user_in_tx(
    conn: &mut Conn,
    owner: i64,
    user: i64,
    generation: i64,
) -> Result<usize, Error> {
    let update = diesel::sql_query(include_str!("keys/lower_to_user.sql"));
    Ok(update
        .bind::<BigInt, _>(owner)
        .bind::<BigInt, _>(user)
        .bind::<BigInt, _>(generation)
        .execute(conn)
        .await?)
}

/// Deletes softly, and lets go of the sealed copy.
pub async fn remove_in_tx(conn: &mut Conn, owner: i64, id: i64, generation: i64) -> Result<(), Error> {
    let target = dsl::keys.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    let change = (dsl::deleted_at.eq(now), dsl::sealed.eq(None::<Vec<u8>>), dsl::generation.eq(generation));
    diesel::update(target).set(change).execute(conn).await?;
    Ok(())
}

/// Deletes all keys of a user softly.
pub async fn remove_of_user_in_tx(
    conn: &mut Conn,
    owner: i64,
    user: i64,
    generation: i64,
) -> Result<usize, Error> {
    let target =
        dsl::keys.filter(dsl::owner_id.eq(owner).and(dsl::user_id.eq(user)).and(dsl::deleted_at.is_null()));
    let change = (dsl::deleted_at.eq(now), dsl::sealed.eq(None::<Vec<u8>>), dsl::generation.eq(generation));
    Ok(diesel::update(target).set(change).execute(conn).await?)
}
