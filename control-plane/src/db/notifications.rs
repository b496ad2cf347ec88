//! What is to be told: written once per cause, claimed by one replica at a time.

use super::schema::{notification_checks, notifications, providers};
use super::{Conn, Error};
use chrono::{DateTime, TimeDelta, Utc};
use contract::ids::Generation;
use contract::table::Health;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Timestamptz};
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

/// How long a provider that goes on failing is not told of again.
const BREAKER_QUIET: TimeDelta = TimeDelta::minutes(5);
/// Longest kept error.
const ERROR_MAX: usize = 300;

/// A claimed row.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = notifications, check_for_backend(Pg))]
pub struct Due {
    pub id: i64,
    pub owner_id: i64,
    pub topic: String,
    pub payload: Value,
    pub attempts: i32,
}

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver took it.
    Delivered,
    /// It was switched off when its time came.
    Skipped,
    /// Given up.
    Failed,
}

impl Outcome {
    /// The word of the column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// Adds what is to be told, unless the cause was told before. Says whether it is new.
pub async fn add(
    conn: &mut Conn,
    owner: i64,
    topic: &str,
    cause: &str,
    payload: &Value,
) -> Result<bool, Error> {
    let row = (
        notifications::owner_id.eq(owner),
        notifications::topic.eq(topic),
        notifications::cause.eq(cause),
        notifications::payload.eq(payload),
    );
    let insert = diesel::insert_into(notifications::table).values(row).on_conflict_do_nothing();
    Ok(insert.execute(conn).await? > 0)
}

/// Whether a cause was told before.
pub async fn is_told(conn: &mut Conn, owner: i64, cause: &str) -> Result<bool, Error> {
    let row =
        notifications::table.filter(notifications::owner_id.eq(owner).and(notifications::cause.eq(cause)));
    Ok(diesel::select(diesel::dsl::exists(row)).get_result(conn).await?)
}

/// A provider stopped serving. The caller holds the generation's lock, so two reports of it come one by one.
pub async fn add_breaker_in_tx(
    conn: &mut Conn,
    owner: i64,
    health: &Health,
    generation: Generation,
) -> Result<(), Error> {
    let id = health.provider_id.0;
    let prefix = format!("breaker:{id}:");
    let told = notifications::table.filter(
        notifications::owner_id
            .eq(owner)
            .and(notifications::created_at.gt(Utc::now() - BREAKER_QUIET))
            .and(notifications::cause.like(format!("{prefix}%"))),
    );
    if diesel::select(diesel::dsl::exists(told)).get_result::<bool>(conn).await? {
        return Ok(());
    }
    let name: Option<String> =
        providers::table.find(id).select(providers::name).first(conn).await.optional()?;
    let until = health.until_ms.and_then(DateTime::from_timestamp_millis);
    let payload = json!({"providerId": id, "providerName": name, "reason": health.reason,
        "failures": health.failures, "until": until.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))});
    add(conn, owner, "circuit-breaker", &format!("{prefix}{}", generation.0), &payload).await?;
    Ok(())
}

/// Takes rows that are due; they are not due again for `lease`, whatever becomes of this replica.
pub async fn claim(conn: &mut Conn, most: i64, lease: TimeDelta) -> Result<Vec<Due>, Error> {
    let query = diesel::sql_query(
        "UPDATE notifications SET due_at = $1, attempts = attempts + 1 WHERE id IN (\
           SELECT id FROM notifications WHERE ended_at IS NULL AND due_at <= now() \
           ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED) \
         RETURNING id, owner_id, topic, payload, attempts",
    );
    let rows = query.bind::<Timestamptz, _>(Utc::now() + lease).bind::<BigInt, _>(most).load(conn).await?;
    Ok(rows)
}

/// Ends a row.
pub async fn end(conn: &mut Conn, id: i64, outcome: Outcome, error: Option<&str>) -> Result<(), Error> {
    let change = (
        notifications::ended_at.eq(diesel::dsl::now),
        notifications::outcome.eq(outcome.as_str()),
        notifications::last_error.eq(error.map(short)),
    );
    diesel::update(notifications::table.find(id)).set(change).execute(conn).await?;
    Ok(())
}

/// Puts a row off after a failed attempt.
pub async fn put_off(conn: &mut Conn, id: i64, until: DateTime<Utc>, error: &str) -> Result<(), Error> {
    let change = (notifications::due_at.eq(until), notifications::last_error.eq(short(error)));
    diesel::update(notifications::table.find(id)).set(change).execute(conn).await?;
    Ok(())
}

fn short(error: &str) -> String {
    error.chars().filter(|c| *c != '\0').take(ERROR_MAX).collect()
}

#[derive(Insertable)]
#[diesel(table_name = notification_checks)]
struct Check<'a> {
    owner_id: i64,
    topic: &'a str,
    checked_at: DateTime<Utc>,
}

/// Lets the first interval of a topic begin now, unless one began before.
pub async fn begin_checks(conn: &mut Conn, owner: i64, topic: &str, now: DateTime<Utc>) -> Result<(), Error> {
    let row = Check { owner_id: owner, topic, checked_at: now };
    diesel::insert_into(notification_checks::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether a topic of an owner is due to be looked at; if so, no other replica is told so for `interval`.
pub async fn take_check(
    conn: &mut Conn,
    owner: i64,
    topic: &str,
    now: DateTime<Utc>,
    interval: TimeDelta,
) -> Result<bool, Error> {
    let row = Check { owner_id: owner, topic, checked_at: now };
    let upsert = diesel::insert_into(notification_checks::table)
        .values(row)
        .on_conflict((notification_checks::owner_id, notification_checks::topic))
        .do_update()
        .set(notification_checks::checked_at.eq(excluded(notification_checks::checked_at)));
    let upsert = diesel::query_dsl::methods::FilterDsl::filter(
        upsert,
        notification_checks::checked_at.le(now - interval),
    );
    Ok(upsert.execute(conn).await? > 0)
}

/// Gives a taken check back, as of an earlier one.
pub async fn release_check(
    conn: &mut Conn,
    owner: i64,
    topic: &str,
    checked_at: DateTime<Utc>,
) -> Result<(), Error> {
    let row = notification_checks::table
        .filter(notification_checks::owner_id.eq(owner).and(notification_checks::topic.eq(topic)));
    diesel::update(row).set(notification_checks::checked_at.eq(checked_at)).execute(conn).await?;
    Ok(())
}

/// Forgets what ended before `instant`; its causes may be told again.
pub async fn forget_before(conn: &mut Conn, instant: DateTime<Utc>) -> Result<usize, Error> {
    let old = notifications::table
        .filter(notifications::created_at.lt(instant).and(notifications::ended_at.is_not_null()));
    Ok(diesel::delete(old).execute(conn).await?)
}
