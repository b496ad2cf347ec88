//! Who a credential belongs to: client keys that log in, and the logins made with them.

use super::schema::{keys, login_sessions, users};
use super::{Conn, Error};
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

/// The account that calls.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(Pg))]
pub struct Account {
    pub id: i64,
    pub owner_id: i64,
    pub role: String,
    pub name: String,
    pub note: String,
    pub enabled: bool,
    pub expires_at: Option<DateTime<Utc>>,
    pub deleted_at: Option<DateTime<Utc>>,
}

/// The key that it calls with.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = keys, check_for_backend(Pg))]
pub struct Credential {
    pub id: i64,
    pub enabled: bool,
    pub expires_at: Option<DateTime<Utc>>,
    pub can_login_web_ui: bool,
    pub deleted_at: Option<DateTime<Utc>>,
}

impl Account {
    /// Whether it may act at all.
    pub fn is_active(&self, at: DateTime<Utc>) -> bool {
        self.enabled && self.deleted_at.is_none() && self.expires_at.is_none_or(|end| end > at)
    }
}

impl Credential {
    /// Whether it may be used at all.
    pub fn is_active(&self, at: DateTime<Utc>) -> bool {
        self.enabled && self.deleted_at.is_none() && self.expires_at.is_none_or(|end| end > at)
    }
}

/// A login to write.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = login_sessions)]
pub struct New<'a> {
    pub token_hash: &'a [u8],
    pub owner_id: i64,
    pub user_id: i64,
    pub key_id: Option<i64>,
    pub expires_at: DateTime<Utc>,
    pub client_ip: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

/// The account of an id; deleted ones too, so that the caller decides.
pub async fn account(conn: &mut Conn, id: i64) -> Result<Option<Account>, Error> {
    Ok(users::table.find(id).select(Account::as_select()).first(conn).await.optional()?)
}

/// The key of a hash, with its account. The newest, if a key was deleted and made again.
pub async fn by_key_hash(conn: &mut Conn, hash: &[u8]) -> Result<Option<(Account, Credential)>, Error> {
    let query = keys::table
        .inner_join(users::table)
        .filter(keys::hash.eq(hash).and(keys::deleted_at.is_null()))
        .select((Account::as_select(), Credential::as_select()));
    Ok(query.first(conn).await.optional()?)
}

/// Whether a key of this hash was deleted.
pub async fn was_key(conn: &mut Conn, hash: &[u8]) -> Result<bool, Error> {
    let query = keys::table.filter(keys::hash.eq(hash).and(keys::deleted_at.is_not_null()));
    Ok(diesel::select(diesel::dsl::exists(query)).get_result(conn).await?)
}

/// The live login of a token's hash. The key is `None` for a login by ADMIN_TOKEN.
pub async fn by_session_hash(
    conn: &mut Conn,
    hash: &[u8],
) -> Result<Option<(Account, Option<Credential>)>, Error> {
    let query = login_sessions::table
        .inner_join(users::table.on(users::id.eq(login_sessions::user_id)))
        .left_join(keys::table.on(keys::id.nullable().eq(login_sessions::key_id)))
        .filter(login_sessions::token_hash.eq(hash).and(login_sessions::revoked_at.is_null()))
        .filter(login_sessions::expires_at.gt(now))
        .select((Account::as_select(), Option::<Credential>::as_select()));
    Ok(query.first(conn).await.optional()?)
}

/// Adds a login, and takes away what of the same account has long expired.
pub async fn insert_in_tx(conn: &mut Conn, new: New<'_>) -> Result<(), Error> {
    let user = new.user_id;
    let old = login_sessions::table
        .filter(login_sessions::user_id.eq(user).and(login_sessions::expires_at.lt(now)));
    diesel::delete(old).execute(conn).await?;
    diesel::insert_into(login_sessions::table).values(new).execute(conn).await?;
    Ok(())
}

/// Ends a login; nothing happens if there is none.
pub async fn revoke(conn: &mut Conn, hash: &[u8]) -> Result<(), Error> {
    let target = login_sessions::table
        .filter(login_sessions::token_hash.eq(hash).and(login_sessions::revoked_at.is_null()));
    diesel::update(target).set(login_sessions::revoked_at.eq(now)).execute(conn).await?;
    Ok(())
}
