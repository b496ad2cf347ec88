//! What was said last in a conversation, sealed, for some minutes. All look-ups are scoped by the owner.

use super::schema::session_messages::{self, dsl};
use super::{Conn, Error};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;

/// A row to write.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = session_messages)]
pub struct New {
    pub owner_id: i64,
    pub user_id: i64,
    pub session_id: String,
    pub seen_at: DateTime<Utc>,
    pub sealed: Vec<u8>,
}

/// What messages are sealed under.
pub fn aad(owner: i64, user: i64, session: &str) -> String {
    format!("messages:{owner}:{user}:{session}")
}

/// The newest of each conversation.
pub async fn upsert(conn: &mut Conn, rows: &[New]) -> Result<(), Error> {
    for row in rows {
        let change = (
            dsl::owner_id.eq(excluded(dsl::owner_id)),
            dsl::seen_at.eq(excluded(dsl::seen_at)),
            dsl::sealed.eq(excluded(dsl::sealed)),
        );
        let insert = diesel::insert_into(session_messages::table).values(row);
        insert.on_conflict((dsl::user_id, dsl::session_id)).do_update().set(change).execute(conn).await?;
    }
    Ok(())
}

/// What one user said in a conversation since `instant`.
pub async fn find(
    conn: &mut Conn,
    owner: i64,
    user: i64,
    session: &str,
    instant: DateTime<Utc>,
) -> Result<Option<Vec<u8>>, Error> {
    let query = dsl::session_messages
        .filter(dsl::owner_id.eq(owner).and(dsl::user_id.eq(user)).and(dsl::session_id.eq(session)))
        .filter(dsl::seen_at.ge(instant));
    Ok(query.select(dsl::sealed).first(conn).await.optional()?)
}

/// Forgets what was said before `instant`.
pub async fn forget_before(conn: &mut Conn, instant: DateTime<Utc>) -> Result<usize, Error> {
    Ok(diesel::delete(dsl::session_messages.filter(dsl::seen_at.lt(instant))).execute(conn).await?)
}
