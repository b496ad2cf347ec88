//! Small questions: which models and statuses there are, and what goes on now.

use super::super::{Conn, Error};
use super::filter::{Filter, NOT_QUIET, Named, Sql};
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz};
use diesel_async::RunQueryDsl;

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// The values of one dimension since an instant, of an owner or of one user, as a query named `name`.
fn values(user: Option<i64>, facet: &str, of_user: &str) -> String {
    match user {
        None => format!(
            "SELECT DISTINCT value AS name FROM usage_margins WHERE owner_id = $1 AND facet = '{facet}' \
             AND span = 1440 AND $2::bigint IS NULL AND start >= $3"
        ),
        Some(_) => format!(
            "SELECT DISTINCT names.name FROM usage_key_days CROSS JOIN LATERAL (VALUES {of_user}) AS names (name) \
             WHERE owner_id = $1 AND user_id = $2 AND start >= $3"
        ),
    }
}

async fn names(
    conn: &mut Conn,
    query: String,
    (owner, user): (i64, Option<i64>),
    since: DateTime<Utc>,
) -> Result<Vec<String>, Error> {
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(owner)
        .bind::<Nullable<BigInt>, _>(user)
        .bind::<Timestamptz, _>(since);
    Ok(query.load::<Name>(conn).await?.into_iter().map(|row| row.name).collect())
}

/// The models that were asked for or sent upstream since an instant, in order.
pub async fn models(
    conn: &mut Conn,
    owner: i64,
    user: Option<i64>,
    since: DateTime<Utc>,
) -> Result<Vec<String>, Error> {
    let values = values(user, "model", "(model), (upstream_model)");
    let query = format!("SELECT name FROM ({values}) AS found WHERE name <> '' ORDER BY name");
    names(conn, query, (owner, user), since).await
}

/// The statuses that were answered since an instant, in order.
pub async fn statuses(
    conn: &mut Conn,
    owner: i64,
    user: Option<i64>,
    since: DateTime<Utc>,
) -> Result<Vec<i16>, Error> {
    let values = values(user, "status", "(status::text)");
    let query = format!("SELECT name FROM ({values}) AS found WHERE name <> '0'");
    let names = names(conn, query, (owner, user), since).await?;
    let mut statuses: Vec<i16> = names.iter().filter_map(|name| name.parse().ok()).collect();
    statuses.sort_unstable();
    Ok(statuses)
}

/// Requests that began since an instant: an owner's, or one user's.
pub async fn requests_since(
    conn: &mut Conn,
    owner: i64,
    user: Option<i64>,
    since: DateTime<Utc>,
) -> Result<i64, Error> {
    let scope = match user {
        None => "$2::bigint IS NULL",
        Some(_) => "user_id = $2",
    };
    let query = format!(
        "SELECT count(*) AS count FROM usage_records WHERE owner_id = $1 AND {scope} AND created_at >= $3 \
         AND blocked_by IS NULL AND {NOT_QUIET}"
    );
    let query = diesel::sql_query(query)
        .bind::<BigInt, _>(owner)
        .bind::<Nullable<BigInt>, _>(user)
        .bind::<Timestamptz, _>(since);
    Ok(query.get_result::<Count>(conn).await?.count)
}

/// Conversations of an owner that were seen since an instant.
pub async fn active_sessions(conn: &mut Conn, owner: i64, since: DateTime<Utc>) -> Result<i64, Error> {
    let query = "SELECT count(*) AS count FROM sessions WHERE owner_id = $1 AND last_seen_at >= $2";
    let query = diesel::sql_query(query).bind::<BigInt, _>(owner).bind::<Timestamptz, _>(since);
    Ok(query.get_result::<Count>(conn).await?.count)
}

/// Conversations of a filter's records.
pub async fn sessions_of(conn: &mut Conn, filter: &Filter) -> Result<i64, Error> {
    let mut sql = Sql::default();
    sql.push("SELECT count(DISTINCT (user_id, session_id)) AS count FROM usage_records WHERE session_id IS NOT NULL AND");
    filter.on_ledger(&mut sql, Named::Any);
    Ok(sql.query().get_result::<Count>(conn).await?.count)
}

#[derive(QueryableByName)]
struct Cost {
    #[diesel(sql_type = Timestamptz)]
    minute: DateTime<Utc>,
}

/// The minutes in which a filter's records cost something, or hold what they may have cost, in order.
pub async fn billed_minutes(conn: &mut Conn, filter: &Filter) -> Result<Vec<DateTime<Utc>>, Error> {
    let mut sql = Sql::default();
    sql.push(
        "SELECT DISTINCT date_trunc('minute', created_at) AS minute FROM usage_records \
         WHERE coalesce(cost, held_cost) > 0 AND",
    );
    filter.on_ledger(&mut sql, Named::Any);
    sql.push(" ORDER BY 1");
    Ok(sql.query().load::<Cost>(conn).await?.into_iter().map(|row| row.minute).collect())
}
