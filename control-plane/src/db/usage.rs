//! What was used: the ledger by filter and page, exact sums, and what the charts show.
//!
//! Pages are read through the ledger's indexes; sums come from the tables beside it, and from the ledger only
//! what lies between their edges.

mod chart;
mod facts;
mod filter;
mod limits;
mod rank;
mod seek;
mod sums;
mod today;

pub use chart::{Cell, Chart, Named as Series, OTHERS, costliest, key_names, of_keys, of_users, user_names};
pub use facts::{active_sessions, billed_minutes, models, requests_since, sessions_of, statuses};
pub use filter::Filter;
pub use limits::{LimitRow, limits};
pub use rank::{Rank, leaderboard};
pub use sums::{Counted, Summary, counted, summary};
pub use today::{
    KeyModel, Last, ProviderDay, last_of_keys, last_of_providers, of_keys_since, of_providers_since,
};

use super::schema::{keys, providers, usage_records, users};
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use filter::{Named, Sql, Value as Bound};
use seek::{Grain, Start, narrow, seek};
use serde_json::Value;
use std::collections::HashMap;
use sums::Bucket;
use usage_records::dsl;
use uuid::Uuid;

/// A record, as far as the log shows it.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = usage_records, check_for_backend(Pg))]
pub struct Record {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub user_id: i64,
    pub key_id: i64,
    pub provider_id: Option<i64>,
    pub session_id: Option<String>,
    pub dialect: String,
    pub endpoint: String,
    pub model: String,
    pub upstream_model: Option<String>,
    pub response_model: Option<String>,
    pub billed_model: Option<String>,
    pub streamed: bool,
    pub outcome: String,
    pub status: i16,
    pub error: Option<String>,
    pub blocked_by: Option<String>,
    pub blocked_reason: Option<String>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub reasoning_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_5m_tokens: i64,
    pub cache_write_1h_tokens: i64,
    pub usage_source: String,
    pub cost: Option<BigDecimal>,
    pub unpriced: Option<String>,
    pub held_cost: Option<BigDecimal>,
    pub cost_parts: Value,
    pub cost_multiplier: BigDecimal,
    pub duration_ms: i32,
    pub ttft_ms: Option<i32>,
    pub attempts: Value,
    pub user_agent: Option<String>,
    pub client_ip: Option<String>,
    pub messages_count: i32,
}

/// A place in the list, newest first: what follows is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the last record seen.
    pub created_at: DateTime<Utc>,
    /// Of the last record seen.
    pub id: Uuid,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
}

/// Rows that are skipped one by one; further on the sums say where.
const STEPS: i64 = 500;

/// Which part of the list: after a place, or so many rows further on.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The last record seen.
    pub after: Option<Place>,
    /// Rows to skip.
    pub offset: i64,
    /// Rows at most.
    pub limit: i64,
}

/// Records, newest first; `counted` is of the same filter. Their identities come from the indexes alone, then the rows.
pub async fn page(
    conn: &mut Conn,
    filter: &Filter,
    counted: &Counted,
    zone: Tz,
    part: Part,
) -> Result<Vec<Record>, Error> {
    let days = counted.days.as_deref();
    let start = match part.offset > STEPS && part.after.is_none() {
        true => seek(conn, filter, zone, part.offset, (days, Grain::Quarter)).await?,
        false => Some(Start::at_end(filter, part.offset)),
    };
    let Some(start) = start else { return Ok(Vec::new()) };
    let found = identified(conn, start, days, zone, part).await?;
    let times = || found.iter().map(|found| found.created_at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
    let ids: Vec<Uuid> = found.iter().map(|found| found.id).collect();
    let query = dsl::usage_records
        .filter(dsl::owner_id.eq(filter.owner).and(dsl::id.eq_any(ids)))
        .filter(dsl::created_at.ge(first).and(dsl::created_at.le(last)))
        .order((dsl::created_at.desc(), dsl::id.desc()));
    Ok(query.select(Record::as_select()).load(conn).await?)
}

async fn identified(
    conn: &mut Conn,
    start: Start,
    days: Option<&[Bucket]>,
    zone: Tz,
    part: Part,
) -> Result<Vec<Found>, Error> {
    if let Some(days) = days {
        let after = part.after.map(|place| place.created_at);
        let near = narrow(conn, &start, zone, (after, part.limit), days).await?;
        let found: Vec<Found> = identities(&near.start, part).query().load(conn).await?;
        // Records of the very time of a place may count although they are not after it.
        if near.is_all || i64::try_from(found.len()).is_ok_and(|count| count == part.limit) {
            return Ok(found);
        }
    }
    Ok(identities(&start, part).query().load(conn).await?)
}

/// Each branch comes in order from one index; a model may be named in two columns.
fn identities(start: &Start, part: Part) -> Sql {
    let branches: &[Named] = match start.filter.model {
        Some(_) => &[Named::Asked, Named::Upstream],
        None => &[Named::Any],
    };
    let order = "ORDER BY created_at DESC, id DESC";
    let mut sql = Sql::default();
    sql.push("SELECT id, created_at FROM (");
    for (at, named) in branches.iter().enumerate() {
        sql.push(if at == 0 { "(" } else { " UNION ALL (" });
        sql.push("SELECT id, created_at FROM usage_records WHERE");
        start.filter.on_ledger(&mut sql, *named);
        if let Some(place) = part.after {
            let (time, id) = (sql.place(Bound::Time(place.created_at)), sql.place(Bound::Uuid(place.id)));
            sql.push(&format!(" AND (created_at, id) < ({time}, {id})"));
        }
        sql.push(&format!(" {order} LIMIT {})", start.skip.saturating_add(part.limit)));
    }
    sql.push(&format!(") AS found {order} OFFSET {} LIMIT {}", start.skip, part.limit));
    sql
}

/// Names by id, of rows that may be deleted since.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Users.
    pub users: HashMap<i64, String>,
    /// Keys.
    pub keys: HashMap<i64, String>,
    /// Providers.
    pub providers: HashMap<i64, String>,
}

/// The names in some records.
pub async fn names(conn: &mut Conn, owner: i64, records: &[Record]) -> Result<Names, Error> {
    let ids = |id: &dyn Fn(&Record) -> Option<i64>| -> Vec<i64> {
        let mut ids: Vec<i64> = records.iter().filter_map(id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let user_ids = ids(&|record| Some(record.user_id));
    let key_ids = ids(&|record| Some(record.key_id));
    let provider_ids = ids(&|record| record.provider_id);
    let of_users = users::table.filter(users::owner_id.eq(owner).and(users::id.eq_any(user_ids)));
    let of_keys = keys::table.filter(keys::owner_id.eq(owner).and(keys::id.eq_any(key_ids)));
    Ok(Names {
        users: of_users.select((users::id, users::name)).load(conn).await?.into_iter().collect(),
        keys: of_keys.select((keys::id, keys::name)).load(conn).await?.into_iter().collect(),
        providers: provider_names(conn, owner, &provider_ids).await?,
    })
}

/// The names of some providers.
pub async fn provider_names(conn: &mut Conn, owner: i64, ids: &[i64]) -> Result<HashMap<i64, String>, Error> {
    let query = providers::table.filter(providers::owner_id.eq(owner).and(providers::id.eq_any(ids)));
    Ok(query.select((providers::id, providers::name)).load(conn).await?.into_iter().collect())
}
