//! Provider health as the proxies reported it. The highest epoch wins, and of one epoch the more careful state, so
//! that two proxies that saw the same thing, and a report that was delayed, do no harm. It stands beside what people
//! set and never changes `providers.enabled`.

use super::generation::bump_in_tx;
use super::schema::{provider_health, providers};
use super::{Conn, Error, notifications};
use chrono::{DateTime, Utc};
use contract::ids::Generation;
use contract::table::{CircuitState, Health};
use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;
use std::collections::HashMap;

/// The reason under which a provider is kept out of use while its credential is refused.
pub const CREDENTIAL: &str = "credential";
/// The reason under which a proxy opens a circuit after failures in a row.
const FAILURES: &str = "failures";
/// Longest stored reason.
const MAX_REASON: usize = 200;

#[derive(Insertable)]
#[diesel(table_name = provider_health)]
struct Row {
    provider_id: i64,
    owner_id: i64,
    state: &'static str,
    until: Option<DateTime<Utc>>,
    reason: String,
    failures: i32,
    last_failure_at: Option<DateTime<Utc>>,
    epoch: i64,
    generation: i64,
}

/// The word of the column.
pub fn word(state: CircuitState) -> &'static str {
    match state {
        CircuitState::Closed => "closed",
        CircuitState::Open => "open",
        CircuitState::HalfOpen => "half-open",
        CircuitState::Disabled => "disabled",
    }
}

/// The state that a word of the column names.
fn state_of(word: &str) -> CircuitState {
    match word {
        "open" => CircuitState::Open,
        "half-open" => CircuitState::HalfOpen,
        "disabled" => CircuitState::Disabled,
        _ => CircuitState::Closed,
    }
}

/// The stored epoch, state and end of one provider; all empty where nothing is stored.
type Stored = (Option<i64>, Option<String>, Option<DateTime<Utc>>);

/// [`Health::order`] of what is stored.
fn order((epoch, state, until): &Stored) -> Option<(i64, u8, i64)> {
    let until_ms = until.map(|until| until.timestamp_millis());
    let (care, until_ms) = state_of(state.as_deref().unwrap_or_default()).care(until_ms);
    epoch.map(|epoch| (epoch, care, until_ms))
}

/// [`Health::order`] in SQL, for what is stored and what is to be stored.
const IS_NEWER: &str = "(provider_health.epoch, \
    array_position(ARRAY['closed', 'half-open', 'open', 'disabled'], provider_health.state), \
    coalesce(provider_health.until, '-infinity')) \
  < (excluded.epoch, array_position(ARRAY['closed', 'half-open', 'open', 'disabled'], excluded.state), \
    coalesce(excluded.until, '-infinity'))";

/// Those of `reports` that are newer than what is stored, for providers that exist.
pub async fn newer(conn: &mut Conn, reports: &[Health]) -> Result<Vec<Health>, Error> {
    let ids: Vec<i64> = reports.iter().map(|health| health.provider_id.0).collect();
    let known: Vec<(i64, Stored)> = providers::table
        .left_join(provider_health::table.on(provider_health::provider_id.eq(providers::id)))
        .filter(providers::id.eq_any(&ids))
        .filter(providers::deleted_at.is_null())
        .select((
            providers::id,
            (
                provider_health::epoch.nullable(),
                provider_health::state.nullable(),
                provider_health::until.nullable(),
            ),
        ))
        .load(conn)
        .await?;
    let known: HashMap<i64, Stored> = known.into_iter().collect();
    let is_newer = |health: &&Health| {
        let known = known.get(&health.provider_id.0);
        known.is_some_and(|stored| order(stored).is_none_or(|stored| stored < health.order()))
    };
    Ok(reports.iter().filter(is_newer).cloned().collect())
}

/// Stores reports under a new generation. A provider whose credential was refused shows that as the reason why it is
/// out of use, until it comes back; whether it is enabled is for people to say.
pub async fn store_in_tx(conn: &mut Conn, reports: &[Health]) -> Result<usize, Error> {
    let generation = bump_in_tx(conn).await?;
    let ids: Vec<i64> = reports.iter().map(|health| health.provider_id.0).collect();
    let owners: HashMap<i64, i64> = providers::table
        .filter(providers::id.eq_any(&ids))
        .filter(providers::deleted_at.is_null())
        .select((providers::id, providers::owner_id))
        .load::<(i64, i64)>(conn)
        .await?
        .into_iter()
        .collect();
    let mut stored = 0;
    for health in reports {
        let Some(owner_id) = owners.get(&health.provider_id.0) else { continue };
        let changed = upsert_in_tx(conn, health, *owner_id, generation).await?;
        if changed {
            explain_in_tx(conn, health.provider_id.0, is_refused(health).then_some(CREDENTIAL)).await?;
        }
        if changed && is_news(health) {
            notifications::add_breaker_in_tx(conn, *owner_id, health, generation).await?;
        }
        stored += usize::from(changed);
    }
    Ok(stored)
}

/// Whether people want to hear of it: a provider that only waits for its rate limit is no news.
fn is_news(health: &Health) -> bool {
    match health.state {
        CircuitState::Open => health.reason == FAILURES || health.reason == CREDENTIAL,
        CircuitState::Disabled => true,
        CircuitState::Closed | CircuitState::HalfOpen => false,
    }
}

/// Whether its credential is refused; the last provider of its kind is only rested for that, not taken away.
fn is_refused(health: &Health) -> bool {
    health.state == CircuitState::Disabled
        || (health.state == CircuitState::Open && health.reason == CREDENTIAL)
}

async fn upsert_in_tx(
    conn: &mut Conn,
    health: &Health,
    owner_id: i64,
    generation: Generation,
) -> Result<bool, Error> {
    let is_failure = matches!(health.state, CircuitState::Open | CircuitState::Disabled);
    let row = Row {
        provider_id: health.provider_id.0,
        owner_id,
        state: word(health.state),
        until: health.until_ms.and_then(DateTime::from_timestamp_millis),
        reason: health.reason.chars().take(MAX_REASON).collect(),
        failures: i32::try_from(health.failures).unwrap_or(i32::MAX),
        last_failure_at: is_failure.then(Utc::now),
        epoch: health.epoch,
        generation: generation.0,
    };
    use provider_health::{epoch, failures, last_failure_at, reason, state, until};
    let last_failure =
        diesel::dsl::case_when(excluded(last_failure_at).is_not_null(), excluded(last_failure_at))
            .otherwise(last_failure_at);
    let upsert = diesel::insert_into(provider_health::table)
        .values(&row)
        .on_conflict(provider_health::provider_id)
        .do_update()
        .set((
            state.eq(excluded(state)),
            until.eq(excluded(until)),
            reason.eq(excluded(reason)),
            failures.eq(excluded(failures)),
            last_failure_at.eq(last_failure),
            epoch.eq(excluded(epoch)),
            provider_health::generation.eq(excluded(provider_health::generation)),
        ));
    let is_newer = diesel::dsl::sql::<diesel::sql_types::Bool>(IS_NEWER);
    let changed = diesel::query_dsl::methods::FilterDsl::filter(upsert, is_newer).execute(conn).await?;
    Ok(changed > 0)
}

/// Says on the provider why it is out of use. The table of the proxies does not hold it, so it has no generation.
async fn explain_in_tx(conn: &mut Conn, id: i64, why: Option<&str>) -> Result<(), Error> {
    let other = providers::id.eq(id).and(providers::disabled_reason.is_distinct_from(why));
    diesel::update(providers::table.filter(other))
        .set(providers::disabled_reason.eq(why))
        .execute(conn)
        .await?;
    Ok(())
}

/// How far a person's reset goes ahead: reports that are under way when it is made stay behind it.
const RESET_STEP: i64 = 1_000;

/// Closes a provider's circuit under the caller's generation: a person reset it or gave it a new credential. Proxies
/// take it because its epoch is higher than that of every report before, and forget what they counted.
pub async fn reset_in_tx(
    conn: &mut Conn,
    owner_id: i64,
    provider_id: i64,
    generation: Generation,
) -> Result<(), Error> {
    let row = Row {
        provider_id,
        owner_id,
        state: word(CircuitState::Closed),
        until: None,
        reason: "manual".to_owned(),
        failures: 0,
        last_failure_at: None,
        epoch: RESET_STEP,
        generation: generation.0,
    };
    diesel::insert_into(provider_health::table)
        .values(&row)
        .on_conflict(provider_health::provider_id)
        .do_update()
        .set((
            provider_health::state.eq(word(CircuitState::Closed)),
            provider_health::until.eq(None::<DateTime<Utc>>),
            provider_health::reason.eq("manual"),
            provider_health::failures.eq(0),
            provider_health::epoch.eq(provider_health::epoch + RESET_STEP),
            provider_health::generation.eq(generation.0),
        ))
        .execute(conn)
        .await?;
    explain_in_tx(conn, provider_id, None).await
}

/// What is known of one provider.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable)]
pub struct Known {
    pub provider_id: i64,
    pub state: Option<String>,
    pub until: Option<DateTime<Utc>>,
    pub reason: Option<String>,
    pub failures: Option<i32>,
    pub last_failure_at: Option<DateTime<Utc>>,
    pub epoch: Option<i64>,
}

/// Every provider of an owner, with what was reported of it.
pub async fn of_owner(conn: &mut Conn, owner: i64) -> Result<Vec<Known>, Error> {
    let query = providers::table
        .left_join(provider_health::table.on(provider_health::provider_id.eq(providers::id)))
        .filter(providers::owner_id.eq(owner).and(providers::deleted_at.is_null()))
        .order(providers::id)
        .select((
            providers::id,
            provider_health::state.nullable(),
            provider_health::until.nullable(),
            provider_health::reason.nullable(),
            provider_health::failures.nullable(),
            provider_health::last_failure_at.nullable(),
            provider_health::epoch.nullable(),
        ));
    Ok(query.load(conn).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing;
    use contract::ids::ProviderId;
    use diesel_async::AsyncConnection;

    fn report(id: i64, state: CircuitState, epoch: i64) -> Health {
        let reason = "failures".to_owned();
        let until_ms = (state == CircuitState::Open).then_some(9);
        Health { provider_id: ProviderId(id), state, until_ms, reason, failures: 5, epoch }
    }

    async fn store(conn: &mut Conn, reports: &[Health]) -> usize {
        conn.transaction(async |conn| store_in_tx(conn, reports).await).await.expect("store")
    }

    async fn stored(conn: &mut Conn) -> (String, i64, bool) {
        let columns = (provider_health::state, provider_health::epoch, providers::enabled);
        let join = provider_health::table
            .inner_join(providers::table.on(providers::id.eq(provider_health::provider_id)));
        join.select(columns).first(conn).await.expect("row")
    }

    async fn reason(conn: &mut Conn) -> Option<String> {
        providers::table.select(providers::disabled_reason).first(conn).await.expect("row")
    }

    #[tokio::test]
    async fn the_newest_report_wins_and_of_one_number_the_more_careful() {
        let pool = testing::database().await;
        let mut conn = pool.write().await.expect("connection");
        let conn = &mut *conn;
        let insert = "INSERT INTO providers (id, owner_id, name, base_url, kind, credential, credential_mask, generation) \
            VALUES (3, 1, 'p', 'https://x', 'claude', '', '', 1)";
        diesel::sql_query(insert).execute(conn).await.expect("provider");
        let unknown = report(4, CircuitState::Open, 1);
        assert_eq!(store(conn, &[report(3, CircuitState::Open, 2), unknown.clone()]).await, 1);
        assert_eq!(stored(conn).await, ("open".to_owned(), 2, true));

        // Late, the same again, and of a provider that is not there: nothing to do, so no generation is spent.
        let late = [report(3, CircuitState::Closed, 1), report(3, CircuitState::Closed, 2), unknown];
        assert_eq!(newer(conn, &late).await.expect("look"), []);
        assert_eq!(store(conn, &late).await, 0);
        assert_eq!(stored(conn).await, ("open".to_owned(), 2, true));

        assert_eq!(store(conn, &[report(3, CircuitState::Disabled, 3)]).await, 1);
        assert_eq!(stored(conn).await, ("disabled".to_owned(), 3, true), "beside what a person set");
        assert_eq!(reason(conn).await.as_deref(), Some(CREDENTIAL));
        reset_in_tx(conn, 1, 3, Generation(9)).await.expect("reset");
        assert_eq!(stored(conn).await, ("closed".to_owned(), 1003, true));
        assert_eq!(reason(conn).await, None);
        assert_eq!(store(conn, &[report(3, CircuitState::Open, 4)]).await, 0, "it was under way");

        // Two proxies at the same moment: the same number, different states, in either order of arrival.
        let until = |until_ms| Health { until_ms, ..report(3, CircuitState::Open, 2000) };
        for (health, takes) in [
            (report(3, CircuitState::HalfOpen, 2000), true),
            (until(Some(9)), true),
            (until(Some(5)), false),
            (until(Some(60_000)), true),
            (report(3, CircuitState::HalfOpen, 2000), false),
            (report(3, CircuitState::Disabled, 2000), true),
            (until(Some(90_000)), false),
            (report(3, CircuitState::Closed, 2000), false),
            (report(3, CircuitState::Closed, 2001), true),
        ] {
            let newer = newer(conn, std::slice::from_ref(&health)).await.expect("look");
            assert_eq!(newer.len(), usize::from(takes), "{health:?}");
            assert_eq!(store(conn, std::slice::from_ref(&health)).await, usize::from(takes), "{health:?}");
        }
        assert_eq!(reason(conn).await, None, "it came back");
    }
}
