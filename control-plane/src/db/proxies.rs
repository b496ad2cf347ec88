//! The fleet as the replicas wrote it: what each proxy acts on.

use super::schema::proxies;
use super::{Conn, Error};
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;
use serde_json::Value;

/// One proxy.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = proxies, check_for_backend(Pg))]
pub struct ProxyRow {
    pub proxy_id: String,
    pub boot_id: String,
    pub version: String,
    pub address: String,
    pub generation: i64,
    pub rejected: Value,
    pub connected: bool,
    pub connected_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    pub counter_naming: i16,
    pub reported_ms: Option<i64>,
}

/// Writes what is newer than the stored row: a proxy that moved to another replica is written by both.
pub async fn upsert(conn: &mut Conn, rows: &[ProxyRow]) -> Result<(), Error> {
    use proxies::*;
    for row in rows {
        let upsert = diesel::insert_into(table).values(row).on_conflict(proxy_id).do_update().set((
            boot_id.eq(excluded(boot_id)),
            version.eq(excluded(version)),
            address.eq(excluded(address)),
            generation.eq(excluded(generation)),
            rejected.eq(excluded(rejected)),
            connected.eq(excluded(connected)),
            connected_at.eq(excluded(connected_at)),
            last_seen_at.eq(excluded(last_seen_at)),
            counter_naming.eq(excluded(counter_naming)),
            reported_ms.eq(excluded(reported_ms)),
        ));
        diesel::query_dsl::methods::FilterDsl::filter(upsert, connected_at.le(excluded(connected_at)))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// All that were seen since `instant`, in order of id.
pub async fn seen_since(conn: &mut Conn, instant: DateTime<Utc>) -> Result<Vec<ProxyRow>, Error> {
    let rows = proxies::table
        .filter(proxies::last_seen_at.ge(instant))
        .order(proxies::proxy_id)
        .select(ProxyRow::as_select())
        .load(conn)
        .await?;
    Ok(rows)
}

/// Up to when all proxies have reported, Unix milliseconds. `None`: one of them did not say, or there is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Those that are connected.
    pub connected_ms: Option<i64>,
    /// Also those that are away.
    pub all_ms: Option<i64>,
    /// The connected one that did not say, or is the furthest behind.
    pub last: Option<String>,
}

/// See [`Reported`]. Connected are those that were seen since `fresh`.
pub async fn reported(conn: &mut Conn, fresh: DateTime<Utc>) -> Result<Reported, Error> {
    let rows: Vec<(String, bool, DateTime<Utc>, Option<i64>)> = proxies::table
        .select((proxies::proxy_id, proxies::connected, proxies::last_seen_at, proxies::reported_ms))
        .load(conn)
        .await?;
    // None comes before every instant. A replica that died could not write that its proxies left it.
    let connected = rows.iter().filter(|(_, connected, seen, _)| *connected && *seen >= fresh);
    let last = connected.min_by_key(|(id, .., reported)| (*reported, id));
    Ok(Reported {
        connected_ms: last.and_then(|(.., reported)| *reported),
        all_ms: rows.iter().map(|(.., reported)| *reported).min().flatten(),
        last: last.map(|(id, ..)| id.clone()),
    })
}

/// Removes those that stayed away since before `instant`.
pub async fn forget_before(conn: &mut Conn, instant: DateTime<Utc>) -> Result<usize, Error> {
    Ok(diesel::delete(proxies::table.filter(proxies::last_seen_at.lt(instant))).execute(conn).await?)
}
