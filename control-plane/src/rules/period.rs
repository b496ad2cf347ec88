//! What a chart shows: how far back, and where its buckets begin in the configured time zone.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use contract::window;

/// The words that callers use, the first of each kind being the one that is answered.
pub const WORDS: &[&str] = &["today", "7days", "30days", "thisMonth", "hour", "day", "week", "month"];

/// How far back a chart goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// The hours of today.
    Today,
    /// Seven days with today.
    Week,
    /// Thirty days with today.
    Month,
    /// The days of this month until today.
    ThisMonth,
}

/// The buckets of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Where each begins, in order.
    pub starts: Vec<DateTime<Utc>>,
    /// Where the last ends.
    pub until: DateTime<Utc>,
}

impl Period {
    /// Of one of [`WORDS`]; the names of an earlier time mean what was meant by them.
    pub fn of_word(word: &str) -> Self {
        match word {
            "7days" | "week" => Self::Week,
            "30days" | "month" => Self::Month,
            "thisMonth" => Self::ThisMonth,
            _ => Self::Today,
        }
    }

    /// As it is answered.
    pub fn word(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::Week => "7days",
            Self::Month => "30days",
            Self::ThisMonth => "thisMonth",
        }
    }

    /// Whether its buckets are days; otherwise they are hours.
    pub fn is_days(self) -> bool {
        self != Self::Today
    }

    /// The buckets at `now`. A day in which the clocks change has 23 or 25 hours.
    pub fn buckets(self, now: DateTime<Utc>, zone: Tz) -> Buckets {
        let today = now.with_timezone(&zone).date_naive();
        let midnight = |date: NaiveDate| {
            let ms = window::local(date.and_time(NaiveTime::MIN), zone);
            DateTime::from_timestamp_millis(ms).unwrap_or(now)
        };
        let until = midnight(today + Days::new(1));
        let count = match self {
            Self::Today => {
                let hour = |start: &DateTime<Utc>| Some(*start + TimeDelta::hours(1));
                let hours = std::iter::successors(Some(midnight(today)), hour);
                return Buckets { starts: hours.take_while(|start| *start < until).collect(), until };
            }
            Self::Week => 7,
            Self::Month => 30,
            Self::ThisMonth => u64::from(today.day()),
        };
        let mut starts: Vec<_> = (0..count).rev().map(|back| midnight(today - Days::new(back))).collect();
        // A date that a zone jumped over begins where the next one does.
        starts.dedup();
        Buckets { starts, until }
    }
}

/// The same time of the day before, and the midnight before that.
pub fn yesterday(now: DateTime<Utc>, zone: Tz) -> (DateTime<Utc>, DateTime<Utc>) {
    let before = now.with_timezone(&zone).naive_local() - Days::new(1);
    let at = |wall| DateTime::from_timestamp_millis(window::local(wall, zone)).unwrap_or(now);
    (at(before.date().and_time(NaiveTime::MIN)), at(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("time")
    }

    #[test]
    fn buckets_follow_the_clocks() {
        let berlin = chrono_tz::Europe::Berlin;
        let kolkata = chrono_tz::Asia::Kolkata;
        for (period, now, zone, first, count, until) in [
            (
                Period::Today,
                "2026-03-29T10:00:00Z",
                berlin,
                "2026-03-28T23:00:00Z",
                23,
                "2026-03-29T22:00:00Z",
            ),
            (
                Period::Today,
                "2026-10-25T10:00:00Z",
                berlin,
                "2026-10-24T22:00:00Z",
                25,
                "2026-10-25T23:00:00Z",
            ),
            (
                Period::Today,
                "2026-10-25T18:29:00Z",
                kolkata,
                "2026-10-24T18:30:00Z",
                24,
                "2026-10-25T18:30:00Z",
            ),
            (Period::Week, "2026-03-30T10:00:00Z", berlin, "2026-03-23T23:00:00Z", 7, "2026-03-30T22:00:00Z"),
            (
                Period::Month,
                "2026-03-30T10:00:00Z",
                berlin,
                "2026-02-28T23:00:00Z",
                30,
                "2026-03-30T22:00:00Z",
            ),
            (
                Period::ThisMonth,
                "2026-02-28T23:00:00Z",
                berlin,
                "2026-02-28T23:00:00Z",
                1,
                "2026-03-01T23:00:00Z",
            ),
        ] {
            let buckets = period.buckets(at(now), zone);
            assert_eq!((buckets.starts[0], buckets.starts.len()), (at(first), count), "{period:?} {now}");
            assert_eq!(buckets.until, at(until), "{period:?} {now}");
        }
        assert!(WORDS.iter().all(|word| WORDS.contains(&Period::of_word(word).word())));
    }

    #[test]
    fn yesterday_is_by_the_clock() {
        let berlin = chrono_tz::Europe::Berlin;
        for (now, midnight, same) in [
            ("2026-03-30T10:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T10:00:00Z"),
            ("2026-03-29T10:00:00Z", "2026-03-27T23:00:00Z", "2026-03-28T11:00:00Z"),
        ] {
            assert_eq!(yesterday(at(now), berlin), (at(midnight), at(same)), "{now}");
        }
    }
}
