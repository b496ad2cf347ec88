//! Requests and cost by time and by user, or by one user's keys.

use super::super::{Conn, Error};
use super::filter::NOT_QUIET;
use bigdecimal::{BigDecimal, Zero};
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::pg::Pg;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Numeric, Text, Timestamptz};
use diesel_async::RunQueryDsl;
use std::collections::HashMap;

/// The identity of the series of everybody who has none of his own.
pub const OTHERS: i64 = -1;

/// What is drawn: the starts of its buckets, in order, and the end of the last.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Whose records.
    pub owner: i64,
    /// Where each bucket begins.
    pub starts: Vec<DateTime<Utc>>,
    /// Where the last bucket ends.
    pub until: DateTime<Utc>,
    /// Whether the buckets are days of the zone; otherwise they begin at quarters of an hour.
    pub is_days: bool,
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// One bucket of one series.
#[derive(Clone, Debug, QueryableByName)]
pub struct Cell {
    /// Which bucket, from 1 on.
    #[diesel(sql_type = Integer)]
    pub bucket: i32,
    /// Whose; -1: of everybody who has no series of his own.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Requests.
    #[diesel(sql_type = BigInt)]
    pub requests: i64,
    /// USD.
    #[diesel(sql_type = Numeric)]
    pub cost: BigDecimal,
}

impl Chart {
    fn from(&self) -> DateTime<Utc> {
        self.starts.as_slice().first().copied().unwrap_or(self.until)
    }

    /// Of the sums that it is drawn from.
    fn span(&self) -> i16 {
        if self.is_days { 1440 } else { 15 }
    }

    /// The condition on those sums.
    fn time(&self) -> String {
        format!("owner_id = $1 AND span = {} AND start >= $3 AND start < $4", self.span())
    }
}

/// The users who cost most in a chart's time, the costliest first; at most `series`. What the gateway asked by itself
/// is no user's, and among the others. It reads a row for every user
/// and bucket.
pub async fn costliest(conn: &mut Conn, chart: &Chart, series: i64) -> Result<Vec<i64>, Error> {
    let query = format!(
        "SELECT user_id AS id FROM usage_user_slots WHERE {} AND user_id <> 0 AND $2::timestamptz[] IS NOT NULL GROUP BY 1 \
         ORDER BY sum(cost) DESC, sum(requests) DESC, id LIMIT $5",
        chart.time()
    );
    let users: Vec<Id> = of_owner(conn, chart, &query, series).await?;
    Ok(users.into_iter().map(|user| user.id).collect())
}

/// By user: `users`, and all others together. The others are what is left of the owner's own sums, which are exact,
/// so that only the series that are shown are read.
pub async fn of_users(conn: &mut Conn, chart: &Chart, users: &[i64]) -> Result<Vec<Cell>, Error> {
    let (time, span) = (chart.time(), chart.span());
    let shown = format!(
        "SELECT width_bucket(start, $2::timestamptz[]) AS bucket, user_id AS id, \
             sum(requests)::bigint AS requests, sum(cost) AS cost \
         FROM unnest($5::bigint[]) AS shown (id) CROSS JOIN LATERAL (SELECT user_id, start, requests, cost \
             FROM usage_user_slots WHERE user_id = shown.id AND {time}) AS slots GROUP BY 1, 2"
    );
    let query = diesel::sql_query(shown)
        .bind::<BigInt, _>(chart.owner)
        .bind::<Array<Timestamptz>, _>(&chart.starts)
        .bind::<Timestamptz, _>(chart.from())
        .bind::<Timestamptz, _>(chart.until)
        .bind::<Array<BigInt>, _>(users);
    let mut cells: Vec<Cell> = query.load(conn).await?;
    let all = format!(
        "SELECT width_bucket(start, $2::timestamptz[]) AS bucket, $5::bigint AS id, \
             sum(requests)::bigint AS requests, sum(cost) AS cost \
         FROM usage_margins WHERE owner_id = $1 AND facet = 'all' AND value = '' AND span = {span} \
             AND start >= $3 AND start < $4 AND NOT is_blocked AND NOT is_quiet GROUP BY 1"
    );
    let all: Vec<Cell> = of_owner(conn, chart, &all, OTHERS).await?;
    let mut others: HashMap<i32, Cell> = all.into_iter().map(|cell| (cell.bucket, cell)).collect();
    for cell in &cells {
        if let Some(others) = others.get_mut(&cell.bucket) {
            others.requests -= cell.requests;
            others.cost -= &cell.cost;
        }
    }
    cells.extend(others.into_values().filter(|cell| cell.requests != 0 || !cell.cost.is_zero()));
    Ok(cells)
}

/// A query of `$1` owner, `$2` buckets, `$3` and `$4` the time, and a number `$5`.
async fn of_owner<R>(conn: &mut Conn, chart: &Chart, query: &str, number: i64) -> Result<Vec<R>, Error>
where
    R: QueryableByName<Pg> + Send + 'static,
{
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(chart.owner)
        .bind::<Array<Timestamptz>, _>(&chart.starts)
        .bind::<Timestamptz, _>(chart.from())
        .bind::<Timestamptz, _>(chart.until)
        .bind::<BigInt, _>(number);
    Ok(query.load(conn).await?)
}

/// One user's, by key, in the same way.
pub async fn of_keys(conn: &mut Conn, chart: &Chart, user: i64, series: i64) -> Result<Vec<Cell>, Error> {
    let (start, requests, table, blocked) = match chart.is_days {
        true => ("start", "sum(requests)", "usage_key_days", "NOT is_blocked"),
        false => ("created_at", "count(*)", "usage_records", "blocked_by IS NULL"),
    };
    let cells = format!(
        "SELECT width_bucket({start}, $2::timestamptz[]) AS bucket, key_id AS id, {requests} AS requests, \
             coalesce(sum(cost), 0) AS cost FROM {table} \
         WHERE owner_id = $1 AND {start} >= $3 AND {start} < $4 AND user_id = $6 AND {blocked} AND {NOT_QUIET} \
         GROUP BY 1, 2"
    );
    let query = format!(
        "WITH cells AS MATERIALIZED ({cells}), \
         top AS MATERIALIZED (SELECT id FROM cells GROUP BY 1 \
            ORDER BY sum(cost) DESC, sum(requests) DESC, id LIMIT $5) \
         SELECT bucket, coalesce(top.id, {OTHERS}) AS id, sum(requests)::bigint AS requests, sum(cost) AS cost \
         FROM cells LEFT JOIN top ON top.id = cells.id GROUP BY 1, 2"
    );
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(chart.owner)
        .bind::<Array<Timestamptz>, _>(&chart.starts)
        .bind::<Timestamptz, _>(chart.from())
        .bind::<Timestamptz, _>(chart.until)
        .bind::<BigInt, _>(series)
        .bind::<BigInt, _>(user);
    Ok(query.load(conn).await?)
}

/// A series' name.
#[derive(Clone, Debug, QueryableByName)]
pub struct Named {
    /// Of the user or key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
}

/// The names of some users, and of as many more as make `most`, so that who used nothing is shown too.
pub async fn user_names(conn: &mut Conn, owner: i64, used: &[i64], most: i64) -> Result<Vec<Named>, Error> {
    let from = "users WHERE owner_id = $1 AND (id = ANY($2) OR (deleted_at IS NULL AND id <> $1)) \
        AND $4::bigint IS NULL";
    names(conn, from, (owner, used, most), None).await
}

/// The same of one user's keys.
pub async fn key_names(
    conn: &mut Conn,
    owner: i64,
    user: i64,
    used: &[i64],
    most: i64,
) -> Result<Vec<Named>, Error> {
    let from = "keys WHERE owner_id = $1 AND user_id = $4 AND (id = ANY($2) OR deleted_at IS NULL)";
    names(conn, from, (owner, used, most), Some(user)).await
}

async fn names(
    conn: &mut Conn,
    from: &str,
    (owner, used, most): (i64, &[i64], i64),
    user: Option<i64>,
) -> Result<Vec<Named>, Error> {
    let query = format!("SELECT id, name FROM {from} ORDER BY id = ANY($2) DESC, id LIMIT $3");
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(owner)
        .bind::<Array<BigInt>, _>(used)
        .bind::<BigInt, _>(most)
        .bind::<Nullable<BigInt>, _>(user);
    Ok(query.load(conn).await?)
}
