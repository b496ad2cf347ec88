//! What the ledger is asked about a counter that the store does not know, and what its answer means. Pure.

use super::{Known, LEDGER_SLACK_MS, Seed, SpentQuery};
use crate::limit::Counter;
use contract::window::Span;

/// How far back the ledger is read to find where the running from-first window began. Windows follow each other
/// from some first request on; a pause as long as a window, which a day nearly always holds, settles where.
const FROM_FIRST_HISTORY_MS: i64 = 24 * 3_600_000;
/// Resolution of that history.
const FROM_FIRST_BUCKET_MS: i64 = 60_000;

/// The question about `counter`.
pub(super) fn query(counter: &Counter, now_ms: i64) -> SpentQuery {
    let since = |start: i64| start.max(counter.limit.since_ms.unwrap_or(start));
    let (since_ms, bucket_ms) = match counter.span {
        Span::Fixed { start_ms, .. } => (since(start_ms), 0),
        Span::Rolling { length_ms, bucket_ms } => {
            let oldest = (now_ms - length_ms).div_euclid(bucket_ms) * bucket_ms;
            (since(oldest), bucket_ms)
        }
        Span::FromFirst { .. } => (since(now_ms - FROM_FIRST_HISTORY_MS), FROM_FIRST_BUCKET_MS),
    };
    SpentQuery { scope: counter.scope, since_ms, bucket_ms, by_end: false, settled: false }
}

/// The same question, to compare a counter that the store knows with the answer. `start_ms`: when the window that
/// runs there began at its first use; `None`: there is nothing to compare.
pub(super) fn settled(counter: &Counter, start_ms: Option<i64>, now_ms: i64) -> Option<SpentQuery> {
    let query = SpentQuery { settled: true, ..query(counter, now_ms) };
    match counter.span {
        Span::Fixed { .. } | Span::Rolling { .. } => Some(query),
        // What was spent before that start is in another window, whatever the ledger makes of it.
        Span::FromFirst { .. } => {
            start_ms.map(|since_ms| SpentQuery { since_ms, bucket_ms: 0, by_end: true, ..query })
        }
    }
}

/// The answer to [`settled`].
pub(super) fn ledgers(
    counter: &Counter,
    start_ms: Option<i64>,
    buckets: &[(i64, i64)],
    now_ms: i64,
) -> Known {
    let sum = || buckets.iter().map(|(_, sum)| (*sum).max(0)).sum();
    match (counter.span, start_ms) {
        (Span::FromFirst { .. }, Some(start_ms)) => Known::Started(Some((start_ms, sum()))),
        _ => known(counter, buckets, now_ms),
    }
}

/// The seed of the counter at `index`, from the ledger's buckets (start in ms, nano-USD).
pub(super) fn seed(index: usize, counter: &Counter, buckets: &[(i64, i64)], now_ms: i64) -> Seed {
    Seed { index, known: Some(known(counter, buckets, now_ms)), behind_ms: LEDGER_SLACK_MS }
}

fn known(counter: &Counter, buckets: &[(i64, i64)], now_ms: i64) -> Known {
    match counter.span {
        Span::Fixed { .. } => Known::Sum(buckets.iter().map(|(_, sum)| (*sum).max(0)).sum()),
        Span::Rolling { bucket_ms, .. } => {
            let number = |start: i64| start.div_euclid(bucket_ms);
            Known::Buckets(buckets.iter().map(|(start, sum)| (number(*start), (*sum).max(0))).collect())
        }
        Span::FromFirst { length_ms } => Known::Started(running(buckets, length_ms, now_ms)),
    }
}

/// Start and sum of the from-first window that runs at `now_ms`.
fn running(buckets: &[(i64, i64)], length_ms: i64, now_ms: i64) -> Option<(i64, i64)> {
    let mut sorted: Vec<(i64, i64)> = buckets.iter().copied().filter(|(_, sum)| *sum > 0).collect();
    sorted.sort_unstable();
    let window = sorted.into_iter().fold(None, |window: Option<(i64, i64)>, (at, sum)| match window {
        Some((start, spent)) if at < start + length_ms => Some((start, spent.saturating_add(sum))),
        _ => Some((at, sum)),
    });
    window.filter(|(start, _)| now_ms < start + length_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (&'static str, &'static [(i64, i64)], i64, Option<(i64, i64)>);

    #[test]
    fn the_running_window_is_found() {
        let cases: [Case; 6] = [
            ("nothing", &[], 100, None),
            ("one", &[(90, 5)], 100, Some((90, 5))),
            ("over", &[(40, 5)], 100, None),
            ("ends exactly now", &[(50, 5)], 100, None),
            ("chain", &[(10, 1), (30, 2), (60, 4), (100, 8)], 105, Some((60, 12))),
            ("unsorted, with an empty bucket", &[(95, 2), (90, 1), (80, 0)], 100, Some((90, 3))),
        ];
        for (name, buckets, now, want) in cases {
            assert_eq!(running(buckets, 50, now), want, "{name}");
        }
    }
}
