//! Conversations as the ledger saw them, and the requests of one. All statements are scoped by the owner.

use super::schema::{keys, providers, sessions, usage_records, users};
use super::usage::{Names, Record};
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

/// A row.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = sessions, check_for_backend(Pg))]
pub struct Session {
    pub user_id: i64,
    pub session_id: String,
    pub key_id: i64,
    pub provider_id: Option<i64>,
    pub model: String,
    pub dialect: String,
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

/// Whose sessions: all of an owner, or those of one user.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    /// The owner.
    pub owner: i64,
    /// One user of it.
    pub user: Option<i64>,
}

fn of(whose: Whose) -> sessions::BoxedQuery<'static, Pg> {
    let query = sessions::table.filter(sessions::owner_id.eq(whose.owner)).into_boxed();
    match whose.user {
        Some(user) => query.filter(sessions::user_id.eq(user)),
        None => query,
    }
}

/// Those with a request since `instant`, newest first, at most so many.
pub async fn since(
    conn: &mut Conn,
    whose: Whose,
    instant: DateTime<Utc>,
    most: i64,
) -> Result<Vec<Session>, Error> {
    let query = of(whose).filter(sessions::last_seen_at.ge(instant)).order(sessions::last_seen_at.desc());
    Ok(query.limit(most).select(Session::as_select()).load(conn).await?)
}

/// One by its name; where two users chose the same, the one seen last.
pub async fn find(conn: &mut Conn, whose: Whose, id: &str) -> Result<Option<Session>, Error> {
    let query = of(whose).filter(sessions::session_id.eq(id.to_owned())).order(sessions::last_seen_at.desc());
    Ok(query.select(Session::as_select()).first(conn).await.optional()?)
}

/// The requests of one user's session, newest first, at most so many.
pub async fn requests(
    conn: &mut Conn,
    owner: i64,
    session: &Session,
    most: i64,
) -> Result<Vec<Record>, Error> {
    let query = usage_records::table
        .filter(usage_records::owner_id.eq(owner).and(usage_records::user_id.eq(session.user_id)))
        .filter(usage_records::session_id.eq(&session.session_id))
        // Where the session began bounds the partitions that are looked into.
        .filter(usage_records::created_at.ge(session.first_seen_at))
        .order((usage_records::created_at.desc(), usage_records::id.desc()))
        .limit(most);
    Ok(query.select(Record::as_select()).load(conn).await?)
}

/// Names by id, of rows that may be deleted since.
pub async fn names(conn: &mut Conn, owner: i64, ids: [Vec<i64>; 3]) -> Result<Names, Error> {
    let [user_ids, key_ids, provider_ids] = ids;
    macro_rules! named {
        ($table:ident, $ids:expr) => {
            $table::table
                .filter($table::owner_id.eq(owner).and($table::id.eq_any($ids)))
                .select(($table::id, $table::name))
                .load::<(i64, String)>(conn)
                .await?
                .into_iter()
                .collect()
        };
    }
    Ok(Names {
        users: named!(users, user_ids),
        keys: named!(keys, key_ids),
        providers: named!(providers, provider_ids),
    })
}
