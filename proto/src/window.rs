//! Windows of time over which limits count: where the current one began and when it ends, in one time zone.

use chrono::{
    DateTime, Datelike, Days, Duration, LocalResult, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeZone,
    Utc,
};
use chrono_tz::Tz;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// The current time in Unix milliseconds, the form in which both planes pass instants on.
pub fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

/// A window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// Sliding 60 s.
    Minute,
    /// Rolling 5 h.
    FiveHours,
    /// 5 h that start with the first billed request.
    FiveHoursFixed,
    /// A day that starts at a minute of the day.
    Day {
        /// 0..1440.
        reset_minute: u16,
    },
    /// Rolling 24 h.
    DayRolling,
    /// From Monday 00:00.
    Week,
    /// From day 1, 00:00.
    Month,
    /// Ever.
    Total,
    /// Now.
    Concurrent,
}

/// How a window is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// From `start_ms` until `end_ms` (`None`: for ever).
    Fixed {
        /// Unix milliseconds.
        start_ms: i64,
        /// Unix milliseconds.
        end_ms: Option<i64>,
    },
    /// The last `length_ms`, in buckets of `bucket_ms`.
    Rolling {
        /// Milliseconds.
        length_ms: i64,
        /// Milliseconds; the resolution at which spend leaves the window.
        bucket_ms: i64,
    },
    /// `length_ms` from the first billed request on.
    FromFirst {
        /// Milliseconds.
        length_ms: i64,
    },
}

impl Window {
    /// A short word for counter keys; two windows that count differently never share one.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Minute => "m",
            Self::FiveHours => "5r",
            Self::FiveHoursFixed => "5f",
            Self::Day { .. } => "d",
            Self::DayRolling => "dr",
            Self::Week => "w",
            Self::Month => "mo",
            Self::Total => "t",
            Self::Concurrent => "c",
        }
    }

    /// The span that holds `now_ms` in `zone`.
    pub fn span(self, now_ms: i64, zone: Tz) -> Span {
        let now = DateTime::<Utc>::from_timestamp_millis(now_ms)
            .unwrap_or(DateTime::UNIX_EPOCH)
            .with_timezone(&zone);
        match self {
            Self::Minute | Self::Concurrent => Span::Rolling { length_ms: MINUTE_MS, bucket_ms: 1 },
            Self::FiveHours => Span::Rolling { length_ms: 5 * HOUR_MS, bucket_ms: MINUTE_MS },
            Self::DayRolling => Span::Rolling { length_ms: 24 * HOUR_MS, bucket_ms: 5 * MINUTE_MS },
            Self::FiveHoursFixed => Span::FromFirst { length_ms: 5 * HOUR_MS },
            Self::Total => Span::Fixed { start_ms: 0, end_ms: None },
            Self::Day { reset_minute } => day(now, reset_minute, zone),
            Self::Week => {
                let monday = now.date_naive() - Days::new(u64::from(now.weekday().num_days_from_monday()));
                fixed(midnight(monday), midnight(monday + Days::new(7)), zone)
            }
            Self::Month => {
                let first = now.date_naive().with_day(1).unwrap_or(now.date_naive());
                fixed(midnight(first), midnight(first + Months::new(1)), zone)
            }
        }
    }
}

fn midnight(date: NaiveDate) -> NaiveDateTime {
    date.and_time(NaiveTime::MIN)
}

fn day(now: DateTime<Tz>, reset_minute: u16, zone: Tz) -> Span {
    let offset = Duration::minutes(i64::from(reset_minute.min(1439)));
    let today = now.date_naive();
    let start = midnight(today) + offset;
    // Compare instants, not wall clocks: at the end of daylight saving a wall time occurs twice.
    if local(start, zone) <= now.timestamp_millis() {
        fixed(start, midnight(today + Days::new(1)) + offset, zone)
    } else {
        fixed(midnight(today - Days::new(1)) + offset, start, zone)
    }
}

fn fixed(start: NaiveDateTime, end: NaiveDateTime, zone: Tz) -> Span {
    Span::Fixed { start_ms: local(start, zone), end_ms: Some(local(end, zone)) }
}

/// The instant of a wall-clock time: the earlier one where it occurs twice; where it is skipped by daylight
/// saving, the first instant after the gap.
pub fn local(wall: NaiveDateTime, zone: Tz) -> i64 {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(at) => at.timestamp_millis(),
        LocalResult::Ambiguous(early, _) => early.timestamp_millis(),
        LocalResult::None => {
            // Gaps are at most a few hours; step by quarters, the finest offset in use.
            let after = (1..=16).map(|quarter| wall + Duration::minutes(15 * quarter));
            after
                .filter_map(|later| zone.from_local_datetime(&later).earliest())
                .map(|at| at.timestamp_millis())
                .next()
                .unwrap_or_else(|| wall.and_utc().timestamp_millis())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("time").timestamp_millis()
    }

    #[test]
    fn fixed_windows_in_their_zone() {
        let shanghai = chrono_tz::Asia::Shanghai;
        let berlin = chrono_tz::Europe::Berlin;
        let day = |m| Window::Day { reset_minute: m };
        let cases = [
            (day(0), "2026-01-05T15:59:59Z", shanghai, "2026-01-04T16:00:00Z", "2026-01-05T16:00:00Z"),
            (day(0), "2026-01-05T16:00:00Z", shanghai, "2026-01-05T16:00:00Z", "2026-01-06T16:00:00Z"),
            (day(570), "2026-01-05T01:29:59Z", shanghai, "2026-01-04T01:30:00Z", "2026-01-05T01:30:00Z"),
            // Daylight saving: a day of 23 hours, a day of 25, and a reset time that does not exist.
            (day(0), "2026-03-29T10:00:00Z", berlin, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            (day(0), "2026-10-25T10:00:00Z", berlin, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            (day(150), "2026-03-29T10:00:00Z", berlin, "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
            (Window::Week, "2026-01-04T23:00:00Z", berlin, "2026-01-04T23:00:00Z", "2026-01-11T23:00:00Z"),
            (Window::Month, "2026-12-31T23:30:00Z", berlin, "2026-12-31T23:00:00Z", "2027-01-31T23:00:00Z"),
        ];
        for (window, now, zone, start, end) in cases {
            let want = Span::Fixed { start_ms: ms(start), end_ms: Some(ms(end)) };
            assert_eq!(window.span(ms(now), zone), want, "{window:?} at {now} in {zone}");
        }
    }

    #[test]
    fn every_instant_lies_in_its_window() {
        let zone = chrono_tz::America::New_York;
        for hour in 0..(366 * 24) {
            let now = ms("2026-01-01T00:00:00Z") + hour * HOUR_MS + 17;
            for window in [Window::Day { reset_minute: 130 }, Window::Week, Window::Month] {
                let Span::Fixed { start_ms, end_ms: Some(end) } = window.span(now, zone) else {
                    unreachable!()
                };
                assert!(start_ms <= now && now < end, "{window:?} at {now}");
            }
        }
    }
}
