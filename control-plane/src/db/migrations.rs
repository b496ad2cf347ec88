//! The migrations, embedded; and the check whether the schema is current.

use super::{Conn, Error};
use diesel_async::{AsyncMigrationHarness, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

/// All of `migrations/`, in order.
pub const ALL: EmbeddedMigrations = embed_migrations!("../migrations");

/// Any number: one advisory lock lets one replica migrate at a time.
const LOCK: i64 = 0x5357_5954;

/// Runs what has not run yet and says how many that were. Needs a direct connection: an advisory lock does
/// not pass a transaction pooler. The lock is released when the connection ends.
pub async fn run_pending(mut conn: Conn) -> Result<usize, Error> {
    // A migration may take longer than a query may.
    diesel::sql_query("SET statement_timeout = 0").execute(&mut conn).await?;
    diesel::sql_query("SET lock_timeout = 0").execute(&mut conn).await?;
    diesel::sql_query(format!("SELECT pg_advisory_lock({LOCK})")).execute(&mut conn).await?;
    let ran = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(conn);
        harness.run_pending_migrations(ALL).map(|versions| versions.len())
    });
    match ran.await {
        Ok(Ok(count)) => Ok(count),
        Ok(Err(error)) => Err(Error::Migration(error)),
        Err(panic) => Err(Error::Migration(Box::new(panic))),
    }
}
