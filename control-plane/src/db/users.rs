//! Accounts. All statements are scoped by the owner.

use super::schema::users::{self, dsl};
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

type Time = Option<DateTime<Utc>>;

/// A row.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(Pg))]
pub struct User {
    pub id: i64,
    pub owner_id: i64,
    pub dna: String,
    pub role: String,
    pub name: String,
    pub note: String,
    pub enabled: bool,
    pub expires_at: Time,
    pub groups: Vec<String>,
    pub tags: Vec<String>,
    pub rpm: Option<i32>,
    pub limit_5h_usd: Option<BigDecimal>,
    pub limit_5h_reset_mode: String,
    pub limit_daily_usd: Option<BigDecimal>,
    pub daily_reset_mode: String,
    pub daily_reset_time: String,
    pub limit_weekly_usd: Option<BigDecimal>,
    pub limit_monthly_usd: Option<BigDecimal>,
    pub limit_total_usd: Option<BigDecimal>,
    pub limit_concurrent_sessions: Option<i32>,
    pub cost_reset_at: Time,
    pub allowed_clients: Vec<String>,
    pub blocked_clients: Vec<String>,
    pub allowed_models: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl User {
    /// The `dna` of an account right below this one.
    pub fn dna_of_children(&self) -> String {
        let head = if self.dna.is_empty() { "." } else { &self.dna };
        format!("{head}{}.", self.id)
    }

    /// The account that owns all others of its tree.
    pub fn is_owner(&self) -> bool {
        self.id == self.owner_id
    }
}

/// What a row begins with; everything else comes by [`Change`] in the same transaction.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = users)]
pub struct New {
    pub owner_id: i64,
    pub parent_id: Option<i64>,
    pub dna: String,
    pub name: String,
    pub generation: i64,
}

/// `None` leaves a column as it is.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Default, AsChangeset)]
#[diesel(table_name = users)]
pub struct Change {
    pub role: Option<&'static str>,
    pub name: Option<String>,
    pub note: Option<String>,
    pub enabled: Option<bool>,
    pub expires_at: Option<Time>,
    pub groups: Option<Vec<String>>,
    pub tags: Option<Vec<String>>,
    pub rpm: Option<Option<i32>>,
    pub limit_5h_usd: Option<Option<BigDecimal>>,
    pub limit_5h_reset_mode: Option<&'static str>,
    pub limit_daily_usd: Option<Option<BigDecimal>>,
    pub daily_reset_mode: Option<&'static str>,
    pub daily_reset_time: Option<String>,
    pub limit_weekly_usd: Option<Option<BigDecimal>>,
    pub limit_monthly_usd: Option<Option<BigDecimal>>,
    pub limit_total_usd: Option<Option<BigDecimal>>,
    pub limit_concurrent_sessions: Option<Option<i32>>,
    pub allowed_clients: Option<Vec<String>>,
    pub blocked_clients: Option<Vec<String>>,
    pub allowed_models: Option<Vec<String>>,
    /// Stamped by whoever writes; always set.
    pub generation: Option<i64>,
}

/// Which part of the list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Part of the name, note or tags, without regard to case.
    pub search: Option<String>,
    /// Only ids above this one.
    pub after: Option<i64>,
    /// Rows to skip.
    pub offset: i64,
    /// At most so many; `None`: all.
    pub limit: Option<i64>,
}

/// The accounts of an owner, itself left out: it is not one of its own users.
pub async fn list(conn: &mut Conn, owner: i64, page: &Page) -> Result<Vec<User>, Error> {
    let mut query = dsl::users
        .filter(dsl::owner_id.eq(owner).and(dsl::id.ne(owner)).and(dsl::deleted_at.is_null()))
        .order(dsl::id)
        .offset(page.offset)
        .select(User::as_select())
        .into_boxed();
    if let Some(search) = &page.search {
        let pattern = super::sql::contains(search);
        let tags = diesel::dsl::sql::<diesel::sql_types::Text>("array_to_string(tags, ',')");
        let named = dsl::name.ilike(pattern.clone()).or(dsl::note.ilike(pattern.clone()));
        query = query.filter(named.or(tags.ilike(pattern)));
    }
    if let Some(after) = page.after {
        query = query.filter(dsl::id.gt(after));
    }
    if let Some(limit) = page.limit {
        query = query.limit(limit);
    }
    Ok(query.load(conn).await?)
}

/// One account that is not deleted.
pub async fn find(conn: &mut Conn, owner: i64, id: i64) -> Result<Option<User>, Error> {
    let query = dsl::users.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    Ok(query.select(User::as_select()).first(conn).await.optional()?)
}

/// Whether there is or was such a user: what a removed one used stays in the ledger.
pub async fn existed(conn: &mut Conn, owner: i64, id: i64) -> Result<bool, Error> {
    let query = dsl::users.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)));
    Ok(diesel::select(diesel::dsl::exists(query)).get_result(conn).await?)
}

/// A new row.
pub async fn insert_in_tx(conn: &mut Conn, new: New) -> Result<User, Error> {
    Ok(diesel::insert_into(users::table).values(new).returning(User::as_returning()).get_result(conn).await?)
}

/// Changes a row; `None` if there is none.
pub async fn update_in_tx(
    conn: &mut Conn,
    owner: i64,
    id: i64,
    change: &Change,
) -> Result<Option<User>, Error> {
    let target =
        dsl::users.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    let change = (change, dsl::updated_at.eq(now));
    Ok(diesel::update(target)
        .set(change)
        .returning(User::as_returning())
        .get_result(conn)
        .await
        .optional()?)
}

/// Deletes softly: the history keeps the row.
pub async fn remove_in_tx(conn: &mut Conn, owner: i64, id: i64, generation: i64) -> Result<(), Error> {
    let target =
        dsl::users.filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    let change = (dsl::deleted_at.eq(now), dsl::generation.eq(generation));
    diesel::update(target).set(change).execute(conn).await?;
    Ok(())
}
