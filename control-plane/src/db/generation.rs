//! The generation: one counter row, bumped in every admin transaction.
//!
//! The update's row lock puts these transactions into one order, so that a reader who sees generation N sees
//! everything up to N. Whoever writes configuration calls [`bump_in_tx`], stamps the number on the rows it
//! writes, and wakes the publisher after the commit.

use super::schema::generation;
use super::{Conn, Error};
use contract::ids::Generation;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

/// The channel on which a commit wakes the reconcilers of all replicas.
pub const CHANNEL: &str = "switchyard_generation";

/// The next generation, and the lock that makes every later writer wait for this transaction. Take it before
/// the rows are written; Postgres sends the wake-up when the transaction commits, and not if it fails.
pub async fn bump_in_tx(conn: &mut Conn) -> Result<Generation, Error> {
    let next = diesel::update(generation::table)
        .set(generation::value.eq(generation::value + 1))
        .returning(generation::value)
        .get_result::<i64>(conn)
        .await?;
    notify_in_tx(conn).await?;
    Ok(Generation(next))
}

/// Wakes all replicas at commit. Several in one transaction are one.
pub async fn notify_in_tx(conn: &mut Conn) -> Result<(), Error> {
    diesel::sql_query("NOTIFY switchyard_generation").execute(conn).await?;
    Ok(())
}

/// The newest committed generation.
pub async fn current(conn: &mut Conn) -> Result<Generation, Error> {
    Ok(Generation(generation::table.select(generation::value).first(conn).await?))
}
