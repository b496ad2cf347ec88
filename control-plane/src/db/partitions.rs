//! Monthly partitions of the ledger: made ahead of time, dropped when their month is over and old enough.
//! A month whose records already lie in the default partition gets them when it is made.

use super::{Conn, Error};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime, Utc};
use diesel::sql_types::{Bool, Date, Text, Timestamptz};
use diesel_async::{AsyncConnection, RunQueryDsl};

/// Any number: one replica at a time.
const LOCK: i64 = 0x5357_5054;
const PREFIX: &str = "usage_records_";

/// A calendar month, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(NaiveDate);

impl Month {
    /// The month of an instant.
    pub fn of(at: DateTime<Utc>) -> Self {
        Self::of_date(at.date_naive())
    }

    fn of_date(date: NaiveDate) -> Self {
        Self(date.with_day(1).unwrap_or(date))
    }

    /// `count` months later.
    #[must_use]
    pub fn plus(self, count: u32) -> Self {
        Self(self.0 + Months::new(count))
    }

    fn table(self) -> String {
        format!("{PREFIX}{:04}_{:02}", self.0.year(), self.0.month())
    }

    fn parse(table: &str) -> Option<Self> {
        let (year, month) = table.strip_prefix(PREFIX)?.split_once('_')?;
        NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, 1).map(Self)
    }

    /// The first instant after it.
    pub fn end(self) -> NaiveDate {
        self.plus(1).0
    }
}

#[derive(diesel::QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(diesel::QueryableByName)]
struct Day {
    #[diesel(sql_type = Date)]
    day: NaiveDate,
}

#[derive(diesel::QueryableByName)]
struct Flag {
    #[diesel(sql_type = Bool)]
    is_set: bool,
}

/// The months that have a partition, in order.
pub async fn existing(conn: &mut Conn) -> Result<Vec<Month>, Error> {
    let query = "SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
        WHERE i.inhparent = 'usage_records'::regclass";
    let names: Vec<Name> = diesel::sql_query(query).load(conn).await?;
    let mut months: Vec<Month> = names.iter().filter_map(|row| Month::parse(&row.name)).collect();
    months.sort_unstable();
    Ok(months)
}

/// The months of the records in the default partition, within `[from, until)`.
pub async fn in_default(conn: &mut Conn, from: Month, until: Month) -> Result<Vec<Month>, Error> {
    let query = "SELECT DISTINCT date_trunc('month', created_at AT TIME ZONE 'UTC')::date AS day \
        FROM usage_records_default WHERE created_at >= $1 AND created_at < $2";
    let days: Vec<Day> =
        diesel::sql_query(query).bind::<Date, _>(from.0).bind::<Date, _>(until.0).load(conn).await?;
    Ok(days.into_iter().map(|row| Month::of_date(row.day)).collect())
}

/// Makes the partition of a month unless it is there; says whether it was made.
pub async fn make(conn: &mut Conn, month: Month) -> Result<bool, Error> {
    let (table, from, until) = (month.table(), month.0, month.end());
    conn.transaction(async |conn| {
        // A lock that ingest waits for must not itself wait long behind a long query.
        diesel::sql_query("SET LOCAL lock_timeout = '2s'").execute(conn).await?;
        diesel::sql_query(format!("SELECT pg_advisory_xact_lock({LOCK})")).execute(conn).await?;
        let known = diesel::sql_query("SELECT to_regclass($1) IS NOT NULL AS is_set").bind::<Text, _>(&table);
        if known.get_result::<Flag>(conn).await?.is_set {
            return Ok(false);
        }
        let steps = [
            format!("CREATE TABLE {table} (LIKE usage_records INCLUDING ALL)"),
            // From here on no record of the month slips into the default partition.
            "LOCK TABLE usage_records_default IN ACCESS EXCLUSIVE MODE".to_owned(),
            format!(
                "WITH moved AS (DELETE FROM usage_records_default \
                 WHERE created_at >= '{from}Z' AND created_at < '{until}Z' RETURNING *) \
                 INSERT INTO {table} SELECT * FROM moved"
            ),
            format!(
                "ALTER TABLE usage_records ATTACH PARTITION {table} FOR VALUES FROM ('{from}Z') TO ('{until}Z')"
            ),
        ];
        for step in steps {
            diesel::sql_query(step).execute(conn).await?;
        }
        Ok(true)
    })
    .await
}

/// Drops the partitions of months that ended before `day`; says how many that were.
pub async fn drop_before(conn: &mut Conn, day: NaiveDate) -> Result<usize, Error> {
    let old: Vec<Month> = existing(conn).await?.into_iter().filter(|month| month.end() <= day).collect();
    for month in &old {
        let table = month.table();
        conn.transaction(async |conn| {
            diesel::sql_query("SET LOCAL lock_timeout = '2s'").execute(conn).await?;
            diesel::sql_query(format!("DROP TABLE IF EXISTS {table}")).execute(conn).await?;
            Ok::<_, Error>(())
        })
        .await?;
    }
    Ok(old.len())
}

/// Removes at most `most` records from before `day`, of the month that holds it or of the default partition; says
/// how many that were.
pub async fn remove_before(conn: &mut Conn, day: NaiveDate, most: usize) -> Result<usize, Error> {
    let month = Month::of_date(day);
    let known = existing(conn).await?.contains(&month).then(|| month.table());
    for table in known.into_iter().chain([format!("{PREFIX}default")]) {
        // Old records lie at the beginning of their table, so few others are read before them.
        let delete = format!(
            "DELETE FROM {table} WHERE ctid = ANY (ARRAY( \
             SELECT ctid FROM {table} WHERE created_at < $1 LIMIT {most}))"
        );
        // Midnight in UTC, whatever zone the session has.
        let removed = diesel::sql_query(delete)
            .bind::<Timestamptz, _>(day.and_time(NaiveTime::MIN).and_utc())
            .execute(conn)
            .await?;
        if removed > 0 {
            return Ok(removed);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing;

    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }

    async fn count(conn: &mut Conn, table: &str) -> i64 {
        let query = diesel::sql_query(format!("SELECT count(*) AS count FROM {table}"));
        query.get_result::<Count>(conn).await.expect("count").count
    }

    #[tokio::test]
    async fn a_month_takes_its_records_out_of_the_default() {
        let pool = testing::database().await;
        let mut conn = pool.write().await.expect("connection");
        let conn = &mut *conn;
        for (id, day) in
            [(1, "2026-02-28 23:59:59.999Z"), (2, "2026-03-01 00:00Z"), (3, "2026-03-31 23:59:59Z")]
        {
            let insert = format!(
                "INSERT INTO usage_records (id, created_at, owner_id, user_id, key_id, proxy_id, dialect, endpoint, \
                 model, streamed, outcome, status, input_tokens, output_tokens, reasoning_tokens, cache_read_tokens, \
                 cache_write_5m_tokens, cache_write_1h_tokens, usage_source, cost_multiplier, generation, duration_ms, \
                 request_bytes, response_bytes, messages_count) VALUES ('00000000-0000-0000-0000-00000000000{id}', \
                 '{day}', 1, 1, 1, 'p', 'openai', '/', 'm', false, 'completed', 200, 0, 0, 0, 0, 0, 0, 'none', 1, 1, 1, 0, 0, 0)"
            );
            diesel::sql_query(insert).execute(conn).await.expect("insert");
        }
        let month = |month| Month(NaiveDate::from_ymd_opt(2026, month, 1).expect("date"));
        assert_eq!(in_default(conn, month(3), month(12)).await.expect("months"), [month(3)]);
        assert!(make(conn, month(3)).await.expect("make"));
        assert!(!make(conn, month(3)).await.expect("make again"));
        assert!(make(conn, month(4)).await.expect("make the next"));
        assert_eq!(count(conn, "usage_records_2026_03").await, 2);
        assert_eq!(count(conn, "usage_records_default").await, 1);
        assert_eq!(existing(conn).await.expect("list"), [month(3), month(4)]);

        let day = NaiveDate::from_ymd_opt(2026, 4, 20).expect("date");
        assert_eq!(drop_before(conn, day).await.expect("drop"), 1);
        assert_eq!(existing(conn).await.expect("list"), [month(4)]);
        // What is left of before that day goes in batches, whatever zone the session has; the day itself stays.
        diesel::sql_query("SET TIME ZONE 'Asia/Shanghai'").execute(conn).await.expect("zone");
        for (id, at) in
            [(7, "2026-04-01T00:00:00Z"), (8, "2026-04-19T23:59:59Z"), (9, "2026-04-20T00:00:00Z")]
        {
            let copy = format!(
                "INSERT INTO usage_records SELECT (jsonb_populate_record(r, jsonb_build_object( \
                 'id', '00000000-0000-0000-0000-00000000000{id}', 'created_at', '{at}'))).* FROM usage_records AS r LIMIT 1"
            );
            diesel::sql_query(copy).execute(conn).await.expect("insert");
        }
        let mut batches = Vec::new();
        while let count @ 1.. = remove_before(conn, day, 2).await.expect("remove") {
            batches.push(count);
        }
        assert_eq!((batches.iter().sum::<usize>(), count(conn, "usage_records").await), (3, 1));
        assert!(batches.iter().all(|count| *count <= 2));
    }
}
