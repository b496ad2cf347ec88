//! Where in time a page lies, from the counts of days and quarters of an hour: so that neither a high page number nor
//! a filter that few records pass reads more of the ledger than the page itself.

use super::super::{Conn, Error, rollup};
use super::filter::{Filter, Sql};
use super::sums::{Bucket, QUARTER, Source};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use diesel_async::RunQueryDsl;

/// Where a page begins: before an instant, and so many rows further on.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The filter, ending at that instant.
    pub(super) filter: Filter,
    /// Rows to skip from there.
    pub(super) skip: i64,
    /// Where the row that comes then begins at the earliest.
    floor: Option<DateTime<Utc>>,
}

impl Start {
    /// At the filter's own end.
    pub(super) fn at_end(filter: &Filter, skip: i64) -> Self {
        Self { filter: filter.clone(), skip, floor: None }
    }
}

/// How exact an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// A quarter of an hour.
    Quarter,
    /// A day will do where several days are read anyway.
    Day,
}

/// Skips whole days and quarters by their counts, so that a high page number reads no more than its own quarter
/// of an hour; with a caller in the filter, its own day. `days`: the filter's days, if they were counted before,
/// perhaps with a later end. `None`: beyond the last record.
pub(super) async fn seek(
    conn: &mut Conn,
    filter: &Filter,
    zone: Tz,
    offset: i64,
    (days, grain): (Option<&[Bucket]>, Grain),
) -> Result<Option<Start>, Error> {
    let mut left = offset;
    let mut pieces = filter.pieces(zone);
    pieces.reverse();
    while let Some(piece) = pieces.pop() {
        let buckets: Vec<Bucket> = match days.filter(|_| piece.source == Source::Days) {
            Some(days) => {
                let (from, until) = (piece.filter.from, piece.filter.until);
                let is_in = |day: &&Bucket| {
                    from.is_none_or(|from| day.start >= from) && until.is_none_or(|until| day.start < until)
                };
                days.iter().filter(is_in).copied().collect()
            }
            None => {
                let mut sql = Sql::default();
                let start = match piece.source {
                    Source::Ledger => "date_bin('15 minutes', created_at, 'epoch')",
                    _ => "start",
                };
                sql.push(&format!("SELECT {start} AS start, {} AS count", piece.weight()));
                piece.place(&mut sql);
                sql.push(" GROUP BY 1 ORDER BY 1 DESC");
                sql.query().load(conn).await?
            }
        };
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
        let is_newest = left == offset;
        if piece.source == Source::Days && !filter.is_of_caller() && (grain == Grain::Quarter || is_newest) {
            // Within the day by quarters; they are whole, as every midnight is one of them.
            pieces.push(piece.filter.between(Source::Quarters, Some(bucket.start), until));
            continue;
        }
        let floor = Some(piece.filter.from.map_or(bucket.start, |from| from.max(bucket.start)));
        return Ok(Some(Start { filter: Filter { until, ..filter.clone() }, skip: left, floor }));
    }
    Ok(None)
}

/// The time in which the rows of a page lie.
#[derive(Debug)]
pub(super) struct Narrow {
    /// From the oldest row that is needed on.
    pub(super) start: Start,
    /// Whether there is nothing before it in any case.
    pub(super) is_all: bool,
}

/// Of several filters together no index has the order, and Postgres reads all that one of them passes: the days say
/// how far back a page goes. `after`: when the last record before the page began.
pub(super) async fn narrow(
    conn: &mut Conn,
    start: &Start,
    zone: Tz,
    (after, rows): (Option<DateTime<Utc>>, i64),
    days: &[Bucket],
) -> Result<Narrow, Error> {
    let until = after.map(|at| at + TimeDelta::microseconds(1));
    let until = [start.filter.until, until].into_iter().flatten().min();
    let newer = Filter { until, ..start.filter.clone() };
    // The record of the place itself is counted with those before it.
    let last = start.skip.saturating_add(rows) - i64::from(after.is_none());
    let found = seek(conn, &newer, zone, last, (Some(days), Grain::Day)).await?;
    let is_all = found.is_none();
    let floor = match found {
        Some(found) => found.floor,
        // Fewer than a page: back to the first day that has any.
        None => oldest(&newer, zone, days),
    };
    let from = newer.from.max(floor);
    let until = [start.filter.until, newest(&newer, zone, days)].into_iter().flatten().min();
    Ok(Narrow { start: Start { filter: Filter { from, until, ..newer }, ..*start }, is_all })
}

/// Every record of the filter began before; `None` where only its own end says so.
fn newest(filter: &Filter, zone: Tz, days: &[Bucket]) -> Option<DateTime<Utc>> {
    let pieces = filter.pieces(zone);
    pieces.as_slice().first().filter(|piece| piece.source == Source::Days)?;
    days.first().map(|day| rollup::day_after(day.start, zone))
}

/// No record of the filter began before; `None` where only its own beginning says so.
fn oldest(filter: &Filter, zone: Tz, days: &[Bucket]) -> Option<DateTime<Utc>> {
    let pieces = filter.pieces(zone);
    let first = pieces.last().filter(|piece| piece.source == Source::Days)?;
    days.last().map(|day| day.start).or(first.filter.until)
}
