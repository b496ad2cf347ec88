//! Exact sums over the records of a filter: whole days from the sums by day, what is left of a day from quarters of
//! an hour, and only what is left of a quarter from the ledger.

use super::super::{Conn, Error, rollup};
use super::filter::{Filter, Named, Sql};
use bigdecimal::BigDecimal;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use chrono_tz::Tz;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Numeric, Timestamptz};
use diesel_async::RunQueryDsl;
use std::cmp::Reverse;
use std::ops::AddAssign;

pub(super) const QUARTER: TimeDelta = TimeDelta::minutes(15);

/// Sums over all records of a filter, exact.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, Default, QueryableByName)]
pub struct Summary {
    #[diesel(sql_type = BigInt)]
    pub requests: i64,
    /// With a status of 400 or more.
    #[diesel(sql_type = BigInt)]
    pub failed: i64,
    #[diesel(sql_type = BigInt)]
    pub input_tokens: i64,
    #[diesel(sql_type = BigInt)]
    pub output_tokens: i64,
    #[diesel(sql_type = BigInt)]
    pub cache_read_tokens: i64,
    #[diesel(sql_type = BigInt)]
    pub cache_write_5m_tokens: i64,
    #[diesel(sql_type = BigInt)]
    pub cache_write_1h_tokens: i64,
    #[diesel(sql_type = BigInt)]
    pub duration_ms: i64,
    #[diesel(sql_type = Numeric)]
    pub cost: BigDecimal,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        let Self {
            requests,
            failed,
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_5m_tokens,
            cache_write_1h_tokens,
            duration_ms,
            cost,
        } = other;
        self.requests += requests;
        self.failed += failed;
        self.input_tokens += input_tokens;
        self.output_tokens += output_tokens;
        self.cache_read_tokens += cache_read_tokens;
        self.cache_write_5m_tokens += cache_write_5m_tokens;
        self.cache_write_1h_tokens += cache_write_1h_tokens;
        self.duration_ms += duration_ms;
        self.cost += cost;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Days,
    Quarters,
    Ledger,
}

/// A part of the time, and where its sums stand.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) source: Source,
    pub(super) filter: Filter,
}

fn floor(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(QUARTER).unwrap_or(at)
}

fn ceil(at: DateTime<Utc>) -> DateTime<Utc> {
    match floor(at) {
        floor if floor == at => at,
        floor => floor + QUARTER,
    }
}

impl Filter {
    pub(super) fn between(
        &self,
        source: Source,
        from: Option<DateTime<Utc>>,
        until: Option<DateTime<Utc>>,
    ) -> Piece {
        Piece { source, filter: Self { from, until, ..self.clone() } }
    }

    /// Whether the sums are kept per caller.
    pub(super) fn is_of_caller(&self) -> bool {
        self.user.is_some() || self.key.is_some()
    }

    /// The parts of the filter's time, newest first.
    pub(super) fn pieces(&self, zone: Tz) -> Vec<Piece> {
        if self.session.is_some() {
            return vec![self.between(Source::Ledger, self.from, self.until)];
        }
        if self.from.zip(self.until).is_some_and(|(from, until)| from >= until) {
            return Vec::new();
        }
        let first = self.from.map(|from| match rollup::day_of(from, zone) {
            day if day == from => day,
            day => rollup::day_after(day, zone),
        });
        let end = self.until.map(|until| rollup::day_of(until, zone));
        if first.zip(end).is_some_and(|(first, end)| first >= end) {
            return self.fine(self.from, self.until);
        }
        let mut pieces = self.fine(end, self.until);
        pieces.push(self.between(Source::Days, first, end));
        pieces.extend(self.fine(self.from, first));
        pieces
    }

    /// The parts of less than a day or two; nothing where an end is open, for then there is a whole day.
    fn fine(&self, from: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Vec<Piece> {
        let Some((from, until)) = from.zip(until).filter(|(from, until)| from < until) else {
            return Vec::new();
        };
        let (first, end) = (ceil(from), floor(until));
        if self.is_of_caller() || first >= end {
            return vec![self.between(Source::Ledger, Some(from), Some(until))];
        }
        let parts =
            [(Source::Ledger, end, until), (Source::Quarters, first, end), (Source::Ledger, from, first)];
        let some = parts.into_iter().filter(|(_, from, until)| from < until);
        some.map(|(source, from, until)| self.between(source, Some(from), Some(until))).collect()
    }
}

impl Piece {
    /// ` FROM .. WHERE ..`.
    pub(super) fn place(&self, sql: &mut Sql) {
        match (self.source, self.filter.is_of_caller()) {
            (Source::Ledger, _) => {
                sql.push(" FROM usage_records WHERE");
                self.filter.on_ledger(sql, Named::Any);
            }
            (_, true) => {
                sql.push(" FROM usage_key_days WHERE");
                self.filter.on_sums(sql);
            }
            (source, false) => {
                let span = if source == Source::Days { 1440 } else { 15 };
                if let Some(facet) = self.filter.facet() {
                    sql.push(&format!(" FROM usage_margins WHERE span = {span} AND"));
                    self.filter.on_margins(sql, facet);
                } else {
                    sql.push(&format!(" FROM usage_facets WHERE span = {span} AND"));
                    self.filter.on_sums(sql);
                }
            }
        }
    }

    /// How many of its records failed.
    fn failed(&self) -> &'static str {
        let has_margin = !self.filter.is_of_caller() && self.filter.facet().is_some();
        match self.source {
            Source::Ledger => "count(*) FILTER (WHERE status >= 400)",
            Source::Days | Source::Quarters if has_margin => "sum(failed)",
            Source::Days | Source::Quarters => "sum(requests) FILTER (WHERE status >= 400)",
        }
    }

    /// How many records a row stands for.
    pub(super) fn weight(&self) -> &'static str {
        match self.source {
            Source::Ledger => "count(*)",
            Source::Days | Source::Quarters => "sum(requests)::bigint",
        }
    }
}

const TOKENS: [&str; 5] =
    ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"];

/// The statement behind [`summary`]; `None` where there is nothing to add up. `by_day`: a row per day, and one more
/// for what lies before and after whole days.
fn statement(filter: &Filter, zone: Tz, by_day: bool) -> Option<Sql> {
    let pieces = filter.pieces(zone);
    if pieces.is_empty() {
        return None;
    }
    let mut sql = Sql::default();
    let total = |column: &str| format!("coalesce(sum({column}), 0)::bigint AS {column}");
    let totals = ["requests", "failed", "duration_ms"].into_iter().chain(TOKENS).map(total);
    sql.push(if by_day { "SELECT start, " } else { "SELECT NULL::timestamptz AS start, " });
    sql.push("coalesce(sum(cost), 0) AS cost, ");
    sql.push(&totals.collect::<Vec<_>>().join(", "));
    sql.push(" FROM (");
    for (at, piece) in pieces.iter().enumerate() {
        let (weight, failed) = (piece.weight(), piece.failed());
        let is_split = by_day && piece.source == Source::Days;
        sql.push(if at == 0 { "SELECT " } else { " UNION ALL SELECT " });
        sql.push(if is_split { "start" } else { "NULL::timestamptz AS start" });
        sql.push(&format!(", sum(cost) AS cost, {weight} AS requests, {failed} AS failed"));
        for column in ["duration_ms"].into_iter().chain(TOKENS) {
            sql.push(&format!(", sum({column}) AS {column}"));
        }
        piece.place(&mut sql);
        sql.push(if is_split { " GROUP BY start" } else { "" });
    }
    sql.push(") AS pieces");
    sql.push(if by_day { " GROUP BY start" } else { "" });
    Some(sql)
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    start: Option<DateTime<Utc>>,
    #[diesel(embed)]
    sums: Summary,
}

/// A stretch of time and how many of a filter's records began in it.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub(super) struct Bucket {
    #[diesel(sql_type = Timestamptz)]
    pub(super) start: DateTime<Utc>,
    #[diesel(sql_type = BigInt)]
    pub(super) count: i64,
}

/// A filter's sums, with what a page of its records is found by.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Over all records.
    pub sums: Summary,
    /// The whole days that have any, newest first, of a filter that no single index leads along.
    pub(super) days: Option<Vec<Bucket>>,
}

/// The sums, and for [`super::page`] the days they came from.
pub async fn counted(conn: &mut Conn, filter: &Filter, zone: Tz) -> Result<Counted, Error> {
    let by_day = filter.is_mixed();
    let rows: Vec<Row> = match statement(filter, zone, by_day) {
        None => Vec::new(),
        Some(sql) => sql.query().load(conn).await?,
    };
    let mut days: Vec<Bucket> = rows
        .iter()
        .filter_map(|row| row.start.map(|start| Bucket { start, count: row.sums.requests }))
        .collect();
    days.sort_unstable_by_key(|day| Reverse(day.start));
    let mut sums = Summary::default();
    rows.into_iter().for_each(|row| sums += row.sums);
    Ok(Counted { sums, days: by_day.then_some(days) })
}

/// The sums.
pub async fn summary(conn: &mut Conn, filter: &Filter, zone: Tz) -> Result<Summary, Error> {
    Ok(counted(conn, filter, zone).await?.sums)
}
