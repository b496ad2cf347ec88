//! Who has a series of his own in a chart of more users than series. To rank them all reads a row for every user and
//! day, which is slow with tens of thousands; so a ranking is kept for a while. The numbers of a chart are those of
//! its moment whatever the ranking is: who is not ranked is in the series of all others.

use crate::rules::period::Period;
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The rankings by owner and period: as many as there are owners who looked within the time of one.
#[derive(Debug, Default)]
pub struct Rankings {
    known: Mutex<HashMap<(i64, Period), Ranking>>,
}

#[derive(Clone, Debug)]
struct Ranking {
    made: Instant,
    /// Where its chart begins: it moves at midnight.
    from: Option<DateTime<Utc>>,
    users: Arc<[i64]>,
}

impl Rankings {
    /// A ranking that is not older than `ttl`.
    pub fn get(
        &self,
        owner: i64,
        period: Period,
        from: Option<DateTime<Utc>>,
        ttl: Duration,
    ) -> Option<Arc<[i64]>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ranking = known.get(&(owner, period))?;
        (ranking.from == from && ranking.made.elapsed() < ttl).then(|| Arc::clone(&ranking.users))
    }

    /// Keeps a ranking, and none that is older than `ttl`.
    pub fn put(
        &self,
        owner: i64,
        period: Period,
        from: Option<DateTime<Utc>>,
        (users, ttl): (Arc<[i64]>, Duration),
    ) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, ranking| ranking.made.elapsed() < ttl);
        known.insert((owner, period), Ranking { made: Instant::now(), from, users });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_is_of_one_owner_period_and_day_and_ends() {
        let (rankings, ttl) = (Rankings::default(), Duration::from_secs(60));
        let day = |day: i64| DateTime::<Utc>::from_timestamp(day * 86_400, 0);
        rankings.put(1, Period::Week, day(3), (Arc::from([7, 8]), ttl));
        let get =
            |owner, period, from, ttl| rankings.get(owner, period, from, ttl).map(|users| users.to_vec());
        for (owner, period, from, ttl, want) in [
            (1, Period::Week, day(3), ttl, Some(vec![7, 8])),
            (2, Period::Week, day(3), ttl, None),
            (1, Period::Month, day(3), ttl, None),
            (1, Period::Week, day(4), ttl, None),
            (1, Period::Week, day(3), Duration::ZERO, None),
        ] {
            assert_eq!(get(owner, period, from, ttl), want, "{owner} {period:?} {from:?} {ttl:?}");
        }
    }
}
