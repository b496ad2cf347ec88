//! Requests by filter and page, newest first, with exact sums over all of them.

use super::view::{LogPage, LogSummary, LogView};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::{Caller, LoggedIn};
use crate::api::{Answer, Ask, Failure, State};
use crate::db::rollup;
use crate::db::usage::{self, Filter, Part, Place};
use crate::rules::form::form;
use crate::rules::time::Edge;
use crate::rules::{Code, Field, Refusal};
use actix_web::post;
use actix_web::web::Data;
use chrono::{DateTime, Days, Utc};
use chrono_tz::Tz;

/// Rows of a page, if nothing is said.
const PAGE: i64 = 50;
/// Most rows of a page.
const PAGE_MAX: i64 = 200;
/// Microseconds at the end of the year 9999: later instants Postgres may not know.
const CURSOR_MAX: i64 = 253_402_300_799_999_999;

form! {
    /// All filters together; without any: everything that the caller may see.
    #[schema(example = json!({"startDate": "2025-01-01", "endDate": "2025-01-31", "limit": 100}))]
    pub struct GetUsageLogs {
        /// A date (its start, in the configured time zone), an ISO 8601 time, or Unix milliseconds.
        start: Option<String> = ["startDate", "startTime"] {example = "2025-01-01"},
        /// A date (the whole day included), or an ISO 8601 time or Unix milliseconds (that instant excluded).
        end: Option<String> = ["endDate", "endTime"] {example = "2025-01-31"},
        /// Number of the page, from 1 on.
        page: Option<i64> = ["page"] {minimum = 1},
        /// Rows of a page; more than 200 counts as 200. Also accepted as `pageSize`.
        limit: Option<i64> = ["limit", "pageSize"] {minimum = 1, example = 100},
        /// `nextCursor` of the page before; quicker than a high page number.
        cursor: Option<String> = ["cursor"],
        /// Admins only; others see their own.
        user_id: Option<i64> = ["userId"],
        /// A key.
        key_id: Option<i64> = ["keyId"],
        /// A provider. Admins only.
        provider_id: Option<i64> = ["providerId"],
        /// The model that was asked for, or sent upstream.
        model: Option<String> = ["model"],
        /// The path.
        endpoint: Option<String> = ["endpoint"],
        /// Status of the answer.
        status_code: Option<i32> = ["statusCode"],
        /// Without those that went well.
        exclude_status_code_200: Option<bool> = ["excludeStatusCode200"],
        /// With at least so many further attempts.
        min_retry_count: Option<i32> = ["minRetryCount"],
        /// A conversation.
        session_id: Option<String> = ["sessionId"],
    }
}

impl GetUsageLogs {
    fn filter(&self, caller: &Caller, zone: Tz) -> Result<Filter, Refusal> {
        let id = |field: &Field| field.int(1..=i64::MAX).map(Option::flatten);
        let text = |field: &Field| -> Result<Option<String>, Refusal> {
            Ok(field.text(512)?.flatten().filter(|text| !text.is_empty()))
        };
        let small = |field: &Field| -> Result<Option<i16>, Refusal> {
            let number = field.int(0..=i64::from(i16::MAX))?.flatten();
            Ok(number.and_then(|number| i16::try_from(number).ok()))
        };
        let (asked, provider) = (id(&self.user_id)?, id(&self.provider_id)?);
        if provider.is_some() && !caller.is_admin {
            // Which upstreams there are is no affair of theirs.
            return Err(Code::PermissionDenied.into());
        }
        Ok(Filter {
            owner: caller.owner,
            user: if caller.is_admin { asked } else { Some(caller.id) },
            key: id(&self.key_id)?,
            provider,
            model: text(&self.model)?,
            endpoint: text(&self.endpoint)?,
            status: small(&self.status_code)?,
            exclude_200: self.exclude_status_code_200.flag(false)?.unwrap_or(false),
            min_retries: small(&self.min_retry_count)?,
            session: text(&self.session_id)?,
            from: self.start.time(zone, Edge::Start)?.flatten(),
            until: self.end.time(zone, Edge::Next)?.flatten(),
            ..Filter::default()
        })
    }
}

/// List requests
///
/// Admins see all of their owner's, others their own.
#[utoipa::path(tag = "usage-logs", operation_id = "getUsageLogs", request_body = GetUsageLogs, responses(
    (status = 200, description = "A page of requests and the sums over all pages", body = Envelope<LogPage>), Failures))]
#[post("/actions/usage-logs/getUsageLogs")]
pub async fn get_usage_logs(caller: LoggedIn, state: Data<State>, ask: Ask<GetUsageLogs>) -> Reply<LogPage> {
    let zone = state.settings.time_zone;
    let mut filter = ask.form.filter(&caller.0, zone)?;
    filter.from = filter.from.max(kept_since(state.settings.retention_days, zone));
    let page = ask.form.page.int(1..=1_000_000_000)?.flatten().unwrap_or(1);
    let limit = ask.form.limit.int(1..=1_000_000_000)?.flatten().unwrap_or(PAGE).min(PAGE_MAX);
    let after = cursor(&ask.form.cursor)?;
    let offset = if after.is_some() { 0 } else { (page - 1).saturating_mul(limit) };
    let part = Part { after, offset, limit };
    let mut conn = state.pool.read().await?;
    // One snapshot, so that the rows are those that were counted.
    let mut snapshot = conn.build_transaction().repeatable_read().read_only();
    let (sums, records, names) = snapshot
        .run(async |conn| -> Result<_, Failure> {
            let counted = usage::counted(conn, &filter, zone).await?;
            let records = match counted.sums.requests > offset {
                true => usage::page(conn, &filter, &counted, zone, part).await?,
                false => Vec::new(),
            };
            let names = usage::names(conn, filter.owner, &records).await?;
            Ok((counted.sums, records, names))
        })
        .await?;
    drop(conn);
    let is_full = i64::try_from(records.len()).is_ok_and(|count| count == limit);
    let next_cursor = records
        .last()
        .filter(|_| is_full)
        .map(|record| format!("{}_{}", record.created_at.timestamp_micros(), record.id.simple()));
    let is_admin = caller.0.is_admin;
    let logs = records.into_iter().map(|record| LogView::new(record, &names, is_admin)).collect();
    let total = sums.requests;
    Ok(Answer::read(LogPage {
        logs,
        total,
        page,
        page_size: limit,
        next_cursor,
        summary: LogSummary::from(sums),
    }))
}

/// Sums outlive the records that `RETENTION_DAYS` removes; the log ends where the removal may have come to.
fn kept_since(retention_days: u32, zone: Tz) -> Option<DateTime<Utc>> {
    let days = Days::new(u64::from(retention_days));
    let last = Utc::now().checked_sub_days(days).filter(|_| retention_days > 0)?;
    Some(rollup::day_after(rollup::day_of(last, zone), zone))
}

fn cursor(field: &Field) -> Result<Option<Place>, Refusal> {
    let Some(text) = field.text(64)?.flatten().filter(|text| !text.is_empty()) else { return Ok(None) };
    let place = |text: &str| -> Option<Place> {
        let (micros, id) = text.split_once('_')?;
        let micros = micros.parse::<i64>().ok().filter(|micros| (0..=CURSOR_MAX).contains(micros))?;
        let created_at = DateTime::<Utc>::from_timestamp_micros(micros)?;
        Some(Place { created_at, id: id.parse().ok()? })
    };
    place(&text).map(Some).ok_or_else(|| field.refuse(Code::Cursor))
}
