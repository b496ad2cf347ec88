//! What each proxy said last of its open requests.

use super::schema::live;
use super::{Conn, Error};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;

/// What one proxy said.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = live)]
pub struct Said {
    pub proxy_id: String,
    pub seen_at: DateTime<Utc>,
    pub payload: Vec<u8>,
}

/// Writes what is newer: a proxy that moved to another replica is written by both.
pub async fn upsert(conn: &mut Conn, rows: &[Said]) -> Result<(), Error> {
    let upsert = diesel::insert_into(live::table)
        .values(rows)
        .on_conflict(live::proxy_id)
        .do_update()
        .set((live::seen_at.eq(excluded(live::seen_at)), live::payload.eq(excluded(live::payload))));
    diesel::query_dsl::methods::FilterDsl::filter(upsert, live::seen_at.le(excluded(live::seen_at)))
        .execute(conn)
        .await?;
    Ok(())
}

/// What was said since `instant`.
pub async fn since(conn: &mut Conn, instant: DateTime<Utc>) -> Result<Vec<Vec<u8>>, Error> {
    let query = live::table.filter(live::seen_at.ge(instant)).order(live::proxy_id);
    Ok(query.select(live::payload).load(conn).await?)
}
