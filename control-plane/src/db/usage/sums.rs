//! Exact sums over the records of a filter, and where in time a page lies: whole days from the sums by day, what
//! is left of a day from quarters of an hour, and only what is left of a quarter from the ledger.

use super::super::{Conn, Error, rollup};
use super::filter::{Filter, Named, Sql};
use bigdecimal::BigDecimal;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use chrono_tz::Tz;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Numeric, Timestamptz};
use diesel_async::RunQueryDsl;

const QUARTER: TimeDelta = TimeDelta::minutes(15);

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Days,
    Quarters,
    Ledger,
}

/// A part of the time, and where its sums stand.
#[derive(Clone, Debug)]
struct Piece {
    source: Source,
    filter: Filter,
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
    fn between(&self, source: Source, from: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Piece {
        Piece { source, filter: Self { from, until, ..self.clone() } }
    }

    /// Whether the sums are kept per caller.
    fn is_of_caller(&self) -> bool {
        self.user.is_some() || self.key.is_some()
    }

    /// The parts of the filter's time, newest first.
    fn pieces(&self, zone: Tz) -> Vec<Piece> {
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
    fn place(&self, sql: &mut Sql) {
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
    fn weight(&self) -> &'static str {
        match self.source {
            Source::Ledger => "count(*)",
            Source::Days | Source::Quarters => "sum(requests)::bigint",
        }
    }
}

const TOKENS: [&str; 5] =
    ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"];

/// The statement behind [`summary`]; `None` where there is nothing to add up.
fn statement(filter: &Filter, zone: Tz) -> Option<Sql> {
    let pieces = filter.pieces(zone);
    if pieces.is_empty() {
        return None;
    }
    let mut sql = Sql::default();
    let total = |column: &str| format!("coalesce(sum({column}), 0)::bigint AS {column}");
    let totals = ["requests", "failed", "duration_ms"].into_iter().chain(TOKENS).map(total);
    sql.push("SELECT coalesce(sum(cost), 0) AS cost, ");
    sql.push(&totals.collect::<Vec<_>>().join(", "));
    sql.push(" FROM (");
    for (at, piece) in pieces.iter().enumerate() {
        let (weight, failed) = (piece.weight(), piece.failed());
        sql.push(if at == 0 { "SELECT " } else { " UNION ALL SELECT " });
        sql.push(&format!("sum(cost) AS cost, {weight} AS requests, {failed} AS failed"));
        for column in ["duration_ms"].into_iter().chain(TOKENS) {
            sql.push(&format!(", sum({column}) AS {column}"));
        }
        piece.place(&mut sql);
    }
    sql.push(") AS pieces");
    Some(sql)
}

/// The sums.
pub async fn summary(conn: &mut Conn, filter: &Filter, zone: Tz) -> Result<Summary, Error> {
    match statement(filter, zone) {
        None => Ok(Summary::default()),
        Some(sql) => Ok(sql.query().get_result(conn).await?),
    }
}

#[derive(QueryableByName)]
struct Bucket {
    #[diesel(sql_type = Timestamptz)]
    start: DateTime<Utc>,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Where a page begins: before an instant, and so many rows further on.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The filter, ending at that instant.
    pub(super) filter: Filter,
    /// Rows to skip from there.
    pub(super) skip: i64,
    /// Where the row that comes then begins at the earliest.
    pub(super) floor: Option<DateTime<Utc>>,
}

/// Skips whole days and quarters by their counts, so that a high page number reads no more than its own quarter
/// of an hour; with a caller in the filter, its own day. `None`: beyond the last record.
pub(super) async fn seek(
    conn: &mut Conn,
    filter: &Filter,
    zone: Tz,
    offset: i64,
) -> Result<Option<Start>, Error> {
    let mut left = offset;
    let mut pieces = filter.pieces(zone);
    pieces.reverse();
    while let Some(piece) = pieces.pop() {
        let mut sql = Sql::default();
        let start = match piece.source {
            Source::Ledger => "date_bin('15 minutes', created_at, 'epoch')",
            _ => "start",
        };
        sql.push(&format!("SELECT {start} AS start, {} AS count", piece.weight()));
        piece.place(&mut sql);
        sql.push(" GROUP BY 1 ORDER BY 1 DESC");
        let buckets: Vec<Bucket> = sql.query().load(conn).await?;
        let Some(bucket) = buckets.into_iter().find(|bucket| match bucket.count > left {
            true => true,
            false => {
                left -= bucket.count;
                false
            }
        }) else {
            continue;
        };
        let end = match piece.source {
            Source::Days => rollup::day_after(bucket.start, zone),
            _ => bucket.start + QUARTER,
        };
        let until = Some(piece.filter.until.map_or(end, |until| until.min(end)));
        if piece.source == Source::Days && !filter.is_of_caller() {
            // Within the day by quarters; they are whole, as every midnight is one of them.
            pieces.push(piece.filter.between(Source::Quarters, Some(bucket.start), until));
            continue;
        }
        let floor = Some(piece.filter.from.map_or(bucket.start, |from| from.max(bucket.start)));
        return Ok(Some(Start { filter: Filter { until, ..filter.clone() }, skip: left, floor }));
    }
    Ok(None)
}
