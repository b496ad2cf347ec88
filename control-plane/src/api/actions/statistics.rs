//! Usage over time, as charts draw it.

use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::{Caller, LoggedIn};
use crate::api::{Answer, Ask, Failure, State};
use crate::db::usage::{self, Cell, Chart, OTHERS, Series};
use crate::db::{Conn, users};
use crate::rules::form::form;
use crate::rules::period::{Period, WORDS};
use crate::rules::time::iso;
use crate::rules::{Code, amount};
use actix_web::post;
use actix_web::web::Data;
use bigdecimal::BigDecimal;
use chrono::Utc;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// Series of their own; what costs less is one series together, so that the answer stays bounded and its sum exact.
const SERIES: i64 = 100;
/// The name of the series of all others.
const OTHERS_NAME: &str = "__others__";

form! {
    /// Without any field: the hours of today.
    #[schema(example = json!({"timeRange": "7days"}))]
    pub struct GetUserStatistics {
        /// `today` (by hour), `7days`, `30days` or `thisMonth` (by day). `hour` and `day` are `today`, `week` is
        /// `7days`, `month` is `30days`.
        time_range: Option<String> = ["timeRange"] {example = "7days",
            pattern = "^(today|7days|30days|thisMonth|hour|day|week|month)$"},
        /// By key of this user. Admins only; others see their own keys.
        user_id: Option<i64> = ["userId"],
    }
}

/// A chart.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "chartData": [{"date": "2026-11-20T16:00:00.000Z", "user-2_cost": "0.01155", "user-2_calls": 1}],
    "users": [{"id": 2, "name": "Alice", "dataKey": "user-2"}],
    "timeRange": "7days", "resolution": "day", "mode": "users"}))]
pub struct Statistics {
    /// One point per hour or day, empty ones included.
    chart_data: Vec<Point>,
    /// The series: users, or the keys of one user. Of more than 100 the costliest have their own, and one with the
    /// id -1 and the name `__others__` holds the rest.
    users: Vec<SeriesView>,
    /// `today`, `7days`, `30days` or `thisMonth`.
    time_range: &'static str,
    /// `hour` or `day`.
    resolution: &'static str,
    /// `users` or `keys`.
    mode: &'static str,
}

/// A point in time.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Point {
    /// When the hour or day begins.
    #[schema(format = DateTime)]
    date: String,
    /// `<dataKey>_cost` (USD, a decimal text) and `<dataKey>_calls` of every series.
    #[serde(flatten)]
    values: BTreeMap<String, PointValue>,
}

/// A number of a point.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum PointValue {
    /// USD.
    Cost(String),
    /// Requests.
    Calls(i64),
}

// By hand: of a `oneOf` of plain types the generator of Go clients makes models named after the types, and warns.
impl PartialSchema for PointValue {
    fn schema() -> RefOr<Schema> {
        let plain = |of: Type, what| ObjectBuilder::new().schema_type(of).description(Some(what));
        AnyOfBuilder::new()
            .description(Some("A number of a point."))
            .item(plain(Type::String, "USD."))
            .item(
                plain(Type::Integer, "Requests.").format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64))),
            )
            .into()
    }
}

impl ToSchema for PointValue {}

/// A series.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeriesView {
    id: i64,
    name: String,
    /// What the names of its values begin with.
    data_key: String,
}

/// Usage over time
///
/// Admins see one series per user, others one per own key. Days and hours are those of the configured time zone.
#[utoipa::path(tag = "statistics", operation_id = "getUserStatistics", request_body = GetUserStatistics, responses(
    (status = 200, description = "The chart", body = Envelope<Statistics>), Failures))]
#[post("/actions/statistics/getUserStatistics")]
pub async fn get_user_statistics(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetUserStatistics>,
) -> Reply<Statistics> {
    let caller = &caller.0;
    let period = Period::of_word(ask.form.time_range.word(WORDS)?.unwrap_or_default());
    let asked = ask.form.user_id.int(1..=i64::MAX)?.flatten();
    let user = if caller.is_admin { asked } else { Some(caller.id) };
    let buckets = period.buckets(Utc::now(), state.settings.time_zone);
    let chart = Chart {
        owner: caller.owner,
        starts: buckets.starts,
        until: buckets.until,
        is_days: period.is_days(),
    };
    let mut conn = state.pool.read().await?;
    if caller.is_admin
        && let Some(user) = user
        && user != caller.owner
        && !users::existed(&mut conn, caller.owner, user).await?
    {
        return Err(Code::NoUser.into());
    }
    let (cells, series) = match user {
        None => of_owner(&mut conn, &state, caller, period, &chart).await?,
        Some(user) => {
            let cells = usage::of_keys(&mut conn, &chart, user, SERIES).await?;
            named(&mut conn, caller, Some(user), cells).await?
        }
    };
    drop(conn);
    let kind = if user.is_some() { "key" } else { "user" };
    let users: Vec<SeriesView> = series.into_iter().map(|series| SeriesView::new(series, kind)).collect();
    Ok(Answer::read(Statistics {
        chart_data: points(&chart, &users, cells),
        users,
        time_range: period.word(),
        resolution: if period.is_days() { "day" } else { "hour" },
        mode: if kind == "key" { "keys" } else { "users" },
    }))
}

/// One series per user; of many the costliest, as they were ranked lately.
async fn of_owner(
    conn: &mut Conn,
    state: &State,
    caller: &Caller,
    period: Period,
    chart: &Chart,
) -> Result<(Vec<Cell>, Vec<Series>), Failure> {
    let (from, ttl) = (chart.starts.first().copied(), state.settings.ranking_ttl);
    let ranked = state.rankings.get(caller.owner, period, from, ttl);
    // One snapshot: what all others used is a difference.
    let mut snapshot = conn.build_transaction().repeatable_read().read_only();
    let cells = snapshot
        .run(async |conn| -> Result<_, Failure> {
            let users = match ranked {
                Some(users) => users,
                None => {
                    let users: Arc<[i64]> = usage::costliest(conn, chart, SERIES).await?.into();
                    // Fewer are ranked fast, and none of them may be missing.
                    if i64::try_from(users.len()).is_ok_and(|count| count == SERIES) {
                        state.rankings.put(caller.owner, period, from, (Arc::clone(&users), ttl));
                    }
                    users
                }
            };
            Ok(usage::of_users(conn, chart, &users).await?)
        })
        .await?;
    named(conn, caller, None, cells).await
}

/// The cells, and their series in the order of their cost.
async fn named(
    conn: &mut Conn,
    caller: &Caller,
    user: Option<i64>,
    cells: Vec<Cell>,
) -> Result<(Vec<Cell>, Vec<Series>), Failure> {
    let mut costs: HashMap<i64, BigDecimal> = HashMap::new();
    for cell in &cells {
        *costs.entry(cell.id).or_default() += &cell.cost;
    }
    let others = costs.remove(&OTHERS).is_some();
    let used: Vec<i64> = costs.keys().copied().collect();
    let mut series = match user {
        None => usage::user_names(conn, caller.owner, &used, SERIES).await?,
        Some(user) => usage::key_names(conn, caller.owner, user, &used, SERIES).await?,
    };
    let known: HashSet<i64> = series.iter().map(|series| series.id).collect();
    // No sum is lost with a name.
    let nameless = used.iter().filter(|id| !known.contains(id));
    series.extend(nameless.map(|id| Series { id: *id, name: format!("#{id}") }));
    // The costliest first; those that used nothing in the order in which they were made.
    series.sort_by(|a, b| costs.get(&b.id).cmp(&costs.get(&a.id)).then(a.id.cmp(&b.id)));
    if others {
        series.push(Series { id: OTHERS, name: OTHERS_NAME.to_owned() });
    }
    Ok((cells, series))
}

impl SeriesView {
    fn new(series: Series, kind: &str) -> Self {
        Self { id: series.id, name: series.name, data_key: format!("{kind}-{}", series.id) }
    }
}

fn points(chart: &Chart, series: &[SeriesView], cells: Vec<Cell>) -> Vec<Point> {
    let keys: HashMap<i64, &str> =
        series.iter().map(|series| (series.id, series.data_key.as_str())).collect();
    let empty: BTreeMap<String, PointValue> = series
        .iter()
        .flat_map(|series| {
            let key = &series.data_key;
            [
                (format!("{key}_cost"), PointValue::Cost("0".to_owned())),
                (format!("{key}_calls"), PointValue::Calls(0)),
            ]
        })
        .collect();
    let mut points: Vec<Point> =
        chart.starts.iter().map(|start| Point { date: iso(*start), values: empty.clone() }).collect();
    for cell in cells {
        let at = usize::try_from(cell.bucket - 1).ok();
        let (Some(point), Some(key)) = (at.and_then(|at| points.get_mut(at)), keys.get(&cell.id)) else {
            continue;
        };
        point.values.insert(format!("{key}_cost"), PointValue::Cost(amount::plain(&cell.cost)));
        point.values.insert(format!("{key}_calls"), PointValue::Calls(cell.requests));
    }
    points
}
