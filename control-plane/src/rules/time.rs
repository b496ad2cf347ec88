//! Dates and times as callers write them: with a zone, without one, or as a date alone.

use super::form::{Field, Patch};
use super::refusal::{Code, Refusal};
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use contract::window;

/// Where a date alone points to within its day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// 00:00.
    Start,
    /// 23:59:59, as an expiry.
    LastSecond,
    /// 00:00 of the next day, as an excluded end.
    Next,
}

/// Years beyond an accepted expiry.
const EXPIRY_YEARS: u32 = 10;

/// An instant. A date alone and a time without a zone are in `zone`; a whole number is Unix milliseconds.
pub fn parse(text: &str, zone: Tz, edge: Edge) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let at = if let Ok(millis) = text.parse::<i64>() {
        DateTime::from_timestamp_millis(millis)?
    } else if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        day(date, zone, edge)?
    } else if let Some(at) = zoned(&text.replacen(' ', "T", 1)) {
        at
    } else {
        let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"];
        let wall = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
        in_range(wall.date())?;
        DateTime::from_timestamp_millis(window::local(wall, zone))?
    };
    in_range(at.date_naive())?;
    Some(at)
}

/// With its own zone; seconds may be missing.
fn zoned(text: &str) -> Option<DateTime<Utc>> {
    let at =
        DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M%#z"));
    at.ok().map(|at| at.with_timezone(&Utc))
}

/// Years that Postgres, JavaScript and people can all handle.
fn in_range(date: NaiveDate) -> Option<()> {
    (1970..=9999).contains(&date.year()).then_some(())
}

fn day(date: NaiveDate, zone: Tz, edge: Edge) -> Option<DateTime<Utc>> {
    in_range(date)?;
    let wall = match edge {
        Edge::Start => date.and_time(NaiveTime::MIN),
        Edge::LastSecond => date.and_hms_opt(23, 59, 59)?,
        Edge::Next => date.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN),
    };
    DateTime::from_timestamp_millis(window::local(wall, zone))
}

/// As every answer writes an instant: `2025-12-31T23:59:59.000Z`.
pub fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The start of the day that holds `now`.
pub fn today(now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    day(now.with_timezone(&zone).date_naive(), zone, Edge::Start).unwrap_or(now)
}

/// A new user's expiry must lie ahead.
pub fn must_be_future(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Result<(), Refusal> {
    match at {
        Some(at) if at <= now => Err(Refusal::field(Code::ExpiryPast, "expiresAt")),
        _ => Ok(()),
    }
}

/// And not so far that it looks like a slip of the pen.
pub fn must_be_near(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Result<(), Refusal> {
    let last = now.checked_add_months(Months::new(12 * EXPIRY_YEARS)).unwrap_or(now);
    match at {
        Some(at) if at > last => Err(Refusal::field(Code::ExpiryFar, "expiresAt")),
        _ => Ok(()),
    }
}

impl Field {
    /// An instant; an empty text clears like null.
    pub fn time(&self, zone: Tz, edge: Edge) -> Result<Patch<DateTime<Utc>>, Refusal> {
        let Some(json) = self.json() else { return Ok(None) };
        let Some(json) = json else { return Ok(Some(None)) };
        let text = match json.starts_with('"') {
            true => serde_json::from_str::<String>(json).map_err(|_| self.refuse(Code::Time))?,
            false => json.to_owned(),
        };
        if text.trim().is_empty() {
            return Ok(Some(None));
        }
        parse(&text, zone, edge).map(|at| Some(Some(at))).ok_or_else(|| self.refuse(Code::Time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants() {
        let shanghai = chrono_tz::Asia::Shanghai;
        let cases = [
            ("2025-12-31T23:59:59Z", Edge::LastSecond, Some("2025-12-31T23:59:59.000Z")),
            ("2025-12-31", Edge::LastSecond, Some("2025-12-31T15:59:59.000Z")),
            ("2025-01-01", Edge::Start, Some("2024-12-31T16:00:00.000Z")),
            ("2025-01-31", Edge::Next, Some("2025-01-31T16:00:00.000Z")),
            ("2025-12-31T23:59:59", Edge::Start, Some("2025-12-31T15:59:59.000Z")),
            ("2025-12-31 23:59", Edge::Start, Some("2025-12-31T15:59:00.000Z")),
            ("2025-12-31T23:59:59.5+02:00", Edge::Start, Some("2025-12-31T21:59:59.500Z")),
            ("2025-12-31T23:59Z", Edge::Start, Some("2025-12-31T23:59:00.000Z")),
            ("2025-12-31 23:59+02:00", Edge::Start, Some("2025-12-31T21:59:00.000Z")),
            ("1735689600000", Edge::Start, Some("2025-01-01T00:00:00.000Z")),
            ("2025-02-30", Edge::Start, None),
            ("tomorrow", Edge::Start, None),
            ("99999-01-01", Edge::Start, None),
            ("9223372036854775807", Edge::Start, None),
            ("", Edge::Start, None),
        ];
        for (text, edge, want) in cases {
            assert_eq!(parse(text, shanghai, edge).map(iso).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn expiry_bounds() {
        let at = |text| parse(text, Tz::UTC, Edge::Start);
        let now = at("2026-01-01").unwrap();
        assert!(must_be_future(Some(now), now).is_err());
        assert!(must_be_future(at("2026-01-02"), now).is_ok());
        assert!(must_be_future(None, now).is_ok());
        assert!(must_be_near(at("2036-01-01"), now).is_ok());
        assert!(must_be_near(at("2036-01-02"), now).is_err());
    }
}
