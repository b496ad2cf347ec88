//! The sums beside the ledger, by days of the configured time zone and by quarters of an hour: written with the
//! records, so that they are exact at every moment, and counted again when the time zone changes.
//!
//! Four tables, because a sum must not read as many rows as there are records: `usage_margins` has one dimension at
//! a time, `usage_facets` all but the callers, `usage_key_days` nothing finer than days, `usage_user_slots` nothing
//! but users. Days are those of the zone,
//! since nearly every question begins and ends at midnight; quarters fit every zone in use, so what lies
//! between midnight and an odd instant is read from them, and only the broken quarter from the ledger.

use super::{Conn, Error};
use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use contract::window;
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bool, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, RunQueryDsl};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Shared by ingest, exclusive for counting again. Any number.
const LOCK: i64 = 0x5357_525a;
const TABLES: [&str; 4] = ["usage_facets", "usage_key_days", "usage_user_slots", "usage_margins"];
const ADD: [&str; 4] = [
    include_str!("rollup/facets.sql"),
    include_str!("rollup/key_days.sql"),
    include_str!("rollup/user_slots.sql"),
    include_str!("rollup/margins.sql"),
];

#[derive(QueryableByName)]
struct Zone {
    #[diesel(sql_type = Text)]
    zone: String,
}

#[derive(QueryableByName)]
struct Date {
    #[diesel(sql_type = Timestamptz)]
    day: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Flag {
    #[diesel(sql_type = Bool)]
    is_set: bool,
}

/// The midnight that begins the day of an instant.
pub fn day_of(at: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let date = at.with_timezone(&zone).date_naive();
    let midnight = |date: chrono::NaiveDate| instant(window::local(date.and_time(NaiveTime::MIN), zone));
    // Where a zone jumped over a whole date, midnight may come out later than the instant.
    let (today, before) = (midnight(date), date.checked_sub_days(Days::new(1)).map_or(at, midnight));
    if today <= at { today } else { before.min(at) }
}

/// The midnight that ends the day that begins at `day`.
pub fn day_after(day: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let date = day.with_timezone(&zone).date_naive();
    let later = (1..=3).filter_map(|count| date.checked_add_days(Days::new(count)));
    let midnights = later.map(|date| instant(window::local(date.and_time(NaiveTime::MIN), zone)));
    midnights.into_iter().find(|next| *next > day).unwrap_or(day + TimeDelta::days(1))
}

fn instant(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Adds records that this transaction has just inserted: when each began, by id.
pub async fn add_in_tx(conn: &mut Conn, records: &[(Uuid, DateTime<Utc>)]) -> Result<(), Error> {
    let times = || records.iter().map(|(_, at)| *at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(()) };
    diesel::sql_query(format!("SELECT pg_advisory_xact_lock_shared({LOCK})")).execute(conn).await?;
    let zone: Zone = diesel::sql_query("SELECT zone FROM usage_zone").get_result(conn).await?;
    // The name comes from a Tz. Before the first start of all it is UTC's.
    let zone: Tz = zone.zone.parse().unwrap_or(Tz::UTC);
    let days: BTreeSet<DateTime<Utc>> = times().map(|at| day_of(at, zone)).collect();
    let days: Vec<DateTime<Utc>> = days.into_iter().collect();
    let ids: Vec<Uuid> = records.iter().map(|(id, _)| *id).collect();
    for add in ADD {
        let add = add.replace("{which}", "id = ANY($2) AND created_at >= $3 AND created_at <= $4");
        diesel::sql_query(add)
            .bind::<Array<Timestamptz>, _>(&days)
            .bind::<Array<SqlUuid>, _>(&ids)
            .bind::<Timestamptz, _>(first)
            .bind::<Timestamptz, _>(last)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Counts the days again if they were counted in another zone; says whether that was so. What the ledger no
/// longer has keeps the days in which it was counted.
pub async fn follow_zone(conn: &mut Conn, zone: Tz) -> Result<bool, Error> {
    let known: Zone = diesel::sql_query("SELECT zone FROM usage_zone").get_result(conn).await?;
    if known.zone == zone.name() {
        return Ok(false);
    }
    conn.transaction(async |conn| {
        // A big ledger takes minutes. Ingest waits for the lock within its own limits; proxies keep their records.
        diesel::sql_query("SET LOCAL statement_timeout = 0").execute(conn).await?;
        // Another replica may be counting.
        diesel::sql_query("SET LOCAL lock_timeout = 0").execute(conn).await?;
        diesel::sql_query(format!("SELECT pg_advisory_xact_lock({LOCK})")).execute(conn).await?;
        let known: Zone = diesel::sql_query("SELECT zone FROM usage_zone").get_result(conn).await?;
        if known.zone == zone.name() {
            return Ok(false);
        }
        recount_in_tx(conn, zone).await?;
        diesel::sql_query("UPDATE usage_zone SET zone = $1")
            .bind::<Text, _>(zone.name())
            .execute(conn)
            .await?;
        Ok(true)
    })
    .await
}

async fn recount_in_tx(conn: &mut Conn, zone: Tz) -> Result<(), Error> {
    let dates = "SELECT DISTINCT date_trunc('day', created_at, 'UTC') AS day FROM usage_records";
    let dates: Vec<Date> = diesel::sql_query(dates).load(conn).await?;
    // A day of the zone lies in two of UTC's, or three.
    let ends = |date: Date| [date.day, date.day + TimeDelta::days(1) - TimeDelta::microseconds(1)];
    let days: BTreeSet<DateTime<Utc>> = dates.into_iter().flat_map(ends).map(|at| day_of(at, zone)).collect();
    let days: Vec<DateTime<Utc>> = days.into_iter().collect();
    let [first, rest @ ..] = days.as_slice() else { return Ok(()) };
    let older = "SELECT EXISTS (SELECT FROM usage_facets WHERE start < $1 - interval '2 days') AS is_set";
    let older = diesel::sql_query(older).bind::<Timestamptz, _>(*first).get_result::<Flag>(conn).await?;
    let from = match (older.is_set, rest.first()) {
        (true, Some(second)) => *second,
        _ => DateTime::UNIX_EPOCH,
    };
    for (table, add) in TABLES.into_iter().zip(ADD) {
        diesel::sql_query(format!("DELETE FROM {table} WHERE start >= $1"))
            .bind::<Timestamptz, _>(from)
            .execute(conn)
            .await?;
        diesel::sql_query(add.replace("{which}", "created_at >= $2"))
            .bind::<Array<Timestamptz>, _>(&days)
            .bind::<Timestamptz, _>(from)
            .execute(conn)
            .await?;
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// The owners whose sums of `[from, until)` differ from the records, by requests or cost. Both are midnights.
pub async fn mismatches(conn: &mut Conn, from: DateTime<Utc>, until: DateTime<Utc>) -> Result<i64, Error> {
    let kept = [
        "usage_facets WHERE span = 15 AND",
        "usage_facets WHERE span = 1440 AND",
        "usage_margins WHERE facet = 'all' AND span = 15 AND",
        "usage_margins WHERE facet = 'all' AND span = 1440 AND",
        "usage_key_days WHERE",
    ];
    let sums = "SELECT owner_id, sum(requests) AS requests, sum(cost) AS cost FROM";
    let (mut joins, mut differences) = (String::new(), Vec::new());
    for (at, kept) in kept.iter().enumerate() {
        joins.push_str(&format!(
            " FULL JOIN ({sums} {kept} start >= $1 AND start < $2 GROUP BY 1) AS kept_{at} USING (owner_id)"
        ));
        differences.push(format!(
            "(truth.requests, truth.cost) IS DISTINCT FROM (kept_{at}.requests, kept_{at}.cost)"
        ));
    }
    let query = format!(
        "SELECT count(*) AS count FROM (SELECT owner_id, count(*) AS requests, coalesce(sum(cost), 0) AS cost \
            FROM usage_records WHERE created_at >= $1 AND created_at < $2 GROUP BY 1) AS truth{joins} WHERE {}",
        differences.join(" OR "),
    );
    let query = diesel::sql_query(query).bind::<Timestamptz, _>(from).bind::<Timestamptz, _>(until);
    Ok(query.get_result::<Count>(conn).await?.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_the_clocks() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("time");
        let berlin = chrono_tz::Europe::Berlin;
        // 23 hours in spring, 25 in autumn; a midnight that does not exist; one that is there twice.
        for (zone, instant, want, hours) in [
            (berlin, "2026-03-29T10:00:00Z", "2026-03-28T23:00:00Z", 23),
            (berlin, "2026-10-25T22:59:59Z", "2026-10-24T22:00:00Z", 25),
            (chrono_tz::Asia::Kolkata, "2026-10-25T18:29:59Z", "2026-10-24T18:30:00Z", 24),
            (chrono_tz::Africa::Cairo, "2026-04-24T10:00:00Z", "2026-04-23T22:00:00Z", 23),
            (chrono_tz::Atlantic::Azores, "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", 25),
            (chrono_tz::Atlantic::Azores, "2026-10-25T01:30:00Z", "2026-10-25T00:00:00Z", 25),
            (chrono_tz::Pacific::Apia, "2011-12-30T12:00:00Z", "2011-12-30T10:00:00Z", 24),
        ] {
            let day = day_of(at(instant), zone);
            assert_eq!(day, at(want), "{instant} in {zone}");
            assert_eq!((day_after(day, zone) - day).num_hours(), hours, "{instant} in {zone}");
        }
    }
}
