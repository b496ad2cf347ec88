//! The generation: one counter row, bumped in every admin transaction.
//!
//! The update's row lock puts these transactions into one order, so that a reader who sees generation N sees
//! everything up to N. Whoever writes configuration calls [`bump_in_tx`], stamps the number on the rows it
//! writes, and wakes the publisher after the commit.

use super::schema::{generation, proxies};
use super::{Conn, Error};
use chrono::{DateTime, TimeDelta, Utc};
use contract::ids::Generation;
use contract::table::CounterNaming;
use diesel::dsl::{exists, not};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};

/// The channel on which a commit wakes the reconcilers of all replicas.
pub const CHANNEL: &str = "switchyard_generation";

/// How long a proxy that went away has a say in how counters are called: longer than all need to come back to a
/// control plane that was restarted.
pub const REMEMBERED: TimeDelta = TimeDelta::minutes(10);

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

/// How the counters of limits are called.
pub async fn counter_naming(conn: &mut Conn) -> Result<CounterNaming, Error> {
    let number: i16 = generation::table.select(generation::counter_naming).first(conn).await?;
    Ok(CounterNaming::from_number(u32::try_from(number).unwrap_or_default()))
}

/// Raises the naming of counters to the newest that this build knows, unless a proxy that was seen since `instant`
/// does not know it. Says whether it is the newest now.
pub async fn raise_counter_naming(conn: &mut Conn, instant: DateTime<Utc>) -> Result<bool, Error> {
    let newest = i16::try_from(CounterNaming::NEWEST.number()).unwrap_or(i16::MAX);
    conn.transaction(async |conn| {
        let older = proxies::table
            .filter(proxies::last_seen_at.ge(instant))
            .filter(proxies::counter_naming.lt(newest));
        let raised = diesel::update(generation::table)
            .filter(generation::counter_naming.lt(newest))
            .filter(not(exists(older)))
            .set((generation::counter_naming.eq(newest), generation::value.eq(generation::value + 1)))
            .execute(conn)
            .await?;
        if raised > 0 {
            notify_in_tx(conn).await?;
        }
        let now: i16 = generation::table.select(generation::counter_naming).first(conn).await?;
        Ok(now >= newest)
    })
    .await
}
