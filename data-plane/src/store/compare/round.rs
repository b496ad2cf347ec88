//! One round looks at the counters, waits, asks the ledger, waits again, and raises those that are below its sums
//! even now: in the second wait, whatever the ledger knew arrives here if it arrives at all. The sums are of what ended
//! before the moment up to which the ledger is complete, and a settlement of that time that comes after a raise is
//! known to be counted: so nothing counts twice, however late a proxy tells what it could not tell Redis. Where nobody
//! knows how complete the ledger is, nothing is raised. What was spent since may hide a part of what is missing until
//! the next round.
//!
//! A fixed window that was above is lowered, but only once the ledger has every record that ended before it was looked
//! at: of all proxies, also of those that are away; and only if nobody has corrected it since. Other windows forget by
//! themselves.

use super::super::limiter::Core;
use super::super::redis::RedisStore;
use super::super::{COUNTERS_CORRECTED, Complete, Known, SpentQuery, StoreError, seeding};
use super::{Excess, Look, Touched};
use crate::clock::now_ms;
use bytes::Bytes;
use contract::window::Span;
use std::sync::atomic::Ordering;

/// Waits for the ledger are so many times those of a request.
const PATIENCE: u32 = 10;
/// The ledger rounds a sum, counters round each cost: a difference below this part of the sum says nothing.
const ROUNDING: i64 = 100_000;

/// What a counter is raised to, or lowered by.
#[derive(Default)]
pub(in crate::store) struct Sum {
    pub(in crate::store) known: Option<Known>,
    pub(in crate::store) lower: i64,
    /// The [`Look::mark`] that it had then.
    pub(in crate::store) mark: Bytes,
}

impl Core {
    /// One round. Whatever fails in it is done again later, with fewer counters.
    pub(in crate::store) async fn compare(&self) {
        let result = self.compare_round().await;
        let compare = &self.shared.compare;
        compare.busy.store(false, Ordering::Release);
        if let Err(error) = result {
            compare.answered(false);
            tracing::debug!(error, "counters were not compared with the ledger; they are again later");
        }
    }

    async fn compare_round(&self) -> Result<(), String> {
        let compare = &self.shared.compare;
        let Some(redis) = self.usable() else { return Ok(()) };
        for home in compare.noting() {
            // Where one owner's notes cannot be read, its counters are compared from time to time all the same.
            for (key, need_ms) in ours(redis.notes(home).await)?.unwrap_or_default() {
                compare.read(&key, need_ms);
            }
        }
        if self.shared.ledger.is_none() {
            return Ok(());
        }
        let batch = compare.batch();
        if batch.is_empty() {
            return Ok(());
        }
        for (what, _) in batch.iter().filter(|(_, unnoted)| *unnoted) {
            if ours(redis.note(what, now_ms()).await)?.is_some() {
                compare.noted(&what.key);
            }
        }
        let looked_ms = now_ms();
        let only_look: Vec<Sum> = batch.iter().map(|_| Sum::default()).collect();
        let list: Vec<Touched> = batch.into_iter().map(|(what, _)| what).collect();
        let looks = self.compare_in(redis, &list, &only_look, 0).await.map_err(text)?;
        let (list, looks): (Vec<Touched>, Vec<Look>) =
            list.into_iter().zip(looks).filter_map(|(what, look)| Some((what, look?))).unzip();
        tokio::time::sleep(self.shared.options.compare_pause).await;
        let (known, complete) = self.ask_ledger(&list, &looks).await?;
        tokio::time::sleep(self.shared.options.compare_pause).await;
        let mut sums = Vec::with_capacity(list.len());
        let mut found = Vec::with_capacity(list.len());
        for ((what, look), known) in list.iter().zip(&looks).zip(known) {
            let seen = compare.looked(&what.key, looked_ms, look);
            let excess = excess(what, &seen, known.as_ref(), complete);
            let lower = if let Excess::Of(lower) = excess { lower } else { 0 };
            sums.push(Sum { known, lower, mark: seen.1.mark });
            found.push(excess);
        }
        let behind_ms = complete.connected_ms.map_or(i64::MAX / 4, |at| (now_ms() - at).max(0));
        let after = self.compare_in(redis, &list, &sums, behind_ms).await.map_err(text)?;
        for (at, (what, excess)) in list.iter().zip(found).enumerate() {
            let Some(after) = &after[at] else { continue };
            if let Some(change) = after.change {
                metrics::counter!(COUNTERS_CORRECTED, "change" => change).increment(1);
                tracing::info!(counter = %String::from_utf8_lossy(&what.key), change, "a counter did not fit the ledger");
            }
            // One that was seeded meanwhile was not looked at.
            let is_compared = looks[at].count >= 0 || after.count < 0;
            if is_compared && let Some(need_ms) = compare.compared(&what.key, complete, excess) {
                ours(redis.forget_note(what, need_ms).await)?;
            }
        }
        compare.answered(true);
        Ok(())
    }

    /// See [`RedisStore::compare`]. A key that Redis cannot count with fails all that are asked with it: then each is
    /// asked alone, and `None` are those whose own keys are to blame; they wait for the next regular round. What was
    /// done before the failure is not done again.
    async fn compare_in(
        &self,
        redis: &RedisStore,
        list: &[Touched],
        sums: &[Sum],
        behind_ms: i64,
    ) -> Result<Vec<Option<Look>>, StoreError> {
        match redis.compare(list, sums, behind_ms).await {
            Ok(looks) => return Ok(looks.into_iter().map(Some).collect()),
            Err(error) if error.is_everybodys() => return Err(error),
            Err(_) => {}
        }
        let mut looks = Vec::with_capacity(list.len());
        for (what, sum) in list.iter().zip(sums) {
            let one = redis.compare(std::slice::from_ref(what), std::slice::from_ref(sum), behind_ms).await;
            looks.push(match one {
                Err(error) if error.is_everybodys() => return Err(error),
                Err(error) => {
                    self.shared.compare.park(&what.key);
                    let counter = String::from_utf8_lossy(&what.key);
                    self.shared.degraded.unusable(&counter, &error);
                    None
                }
                Ok(look) => look.into_iter().next(),
            });
        }
        Ok(looks)
    }

    /// What the ledger has of each, where that can be compared, and how complete it is.
    async fn ask_ledger(
        &self,
        list: &[Touched],
        looks: &[Look],
    ) -> Result<(Vec<Option<Known>>, Complete), String> {
        let Some(ledger) = self.shared.ledger.as_ref() else { return Err("there is none".to_owned()) };
        let now = now_ms();
        let query = |(at, what): (usize, &Touched)| {
            let look = looks.get(at).filter(|look| look.count >= 0)?;
            Some((at, seeding::settled(&what.counter, look.start_ms, now)?))
        };
        let (places, queries): (Vec<usize>, Vec<SpentQuery>) =
            list.iter().enumerate().filter_map(query).unzip();
        let patience = self.shared.options.ledger_timeout * PATIENCE;
        let spent = tokio::time::timeout(patience, ledger.spent(&queries)).await;
        let spent =
            spent.map_err(|_| "the ledger did not answer in time")?.map_err(|error| error.to_string())?;
        if spent.sums.len() != queries.len() {
            return Err("the ledger answered another number of questions".to_owned());
        }
        let mut known = vec![None; list.len()];
        if spent.complete.connected_ms.is_some() {
            for (at, buckets) in places.into_iter().zip(&spent.sums) {
                let start_ms = looks[at].start_ms;
                known[at] = Some(seeding::ledgers(&list[at].counter, start_ms, buckets, now));
            }
        }
        Ok((known, spent.complete))
    }
}

fn text(error: StoreError) -> String {
    error.to_string()
}

/// `None`: something is wrong with these keys alone.
fn ours<T>(result: Result<T, StoreError>) -> Result<Option<T>, String> {
    match result {
        Err(error) if error.is_everybodys() => Err(text(error)),
        other => Ok(other.ok()),
    }
}

/// Whether the counter was above the ledger when it was looked at.
fn excess(what: &Touched, (at_ms, look): &(i64, Look), known: Option<&Known>, complete: Complete) -> Excess {
    let (Span::Fixed { .. }, Some(Known::Sum(sum))) = (what.counter.span, known) else { return Excess::None };
    let over = look.count - sum;
    if over <= sum / ROUNDING {
        return Excess::None;
    }
    let knows_all = complete.all_ms.is_some_and(|all| all >= *at_ms);
    if knows_all { Excess::Of(over) } else { Excess::Perhaps }
}
