//! One money counter: fixed, rolling or from the first charge on. Pure; time is an argument.

use super::Terms;
use crate::store::Known;
use contract::window::Span;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Money {
    /// When it was seeded, and in which epoch.
    pub(super) base: Option<(i64, u64)>,
    /// What ended before is in the ledger's sums that it was seeded with.
    pub(super) known_ms: i64,
    /// Up to when its limit had been absent when it was seeded.
    pub(super) caught_up_ms: Option<i64>,
    /// A provisional seed holds until then.
    pub(super) until_ms: Option<i64>,
    spent: i64,
    /// Rolling: sums by bucket number.
    buckets: BTreeMap<i64, i64>,
    /// From first: when the window began.
    start_ms: Option<i64>,
}

impl Money {
    pub(super) fn seeded(&self, now_ms: i64, terms: Terms) -> bool {
        self.base.is_some_and(|(_, epoch)| epoch == terms.epoch)
            && self.until_ms.is_none_or(|until| until > now_ms)
    }

    /// Whether it was not seeded since its limit came back: what was spent while there was none was not charged.
    pub(super) fn lacks(&self, absent_until_ms: Option<i64>) -> bool {
        self.base.is_some() && self.caught_up_ms < absent_until_ms
    }

    /// Spent, the reset and the wait, where they are known.
    pub(super) fn spent(&mut self, span: Span, now_ms: i64) -> (i64, Option<i64>, Option<i64>) {
        match span {
            Span::Fixed { .. } => (self.spent, None, None),
            Span::Rolling { length_ms, bucket_ms } => {
                self.roll(length_ms, bucket_ms, now_ms);
                let oldest = self.buckets.keys().next();
                (self.spent, None, oldest.map(|oldest| (oldest + 1) * bucket_ms + length_ms - now_ms))
            }
            Span::FromFirst { length_ms } => match self.start_ms.map(|start| start + length_ms) {
                Some(end) if end > now_ms => (self.spent, Some(end), Some(end - now_ms)),
                _ => (0, None, None),
            },
        }
    }

    fn roll(&mut self, length_ms: i64, bucket_ms: i64, now_ms: i64) {
        while let Some(first) = self.buckets.first_entry() {
            if (first.key() + 1) * bucket_ms > now_ms - length_ms {
                break;
            }
            self.spent -= first.remove();
        }
    }

    /// `late_ms`: how long ago it ended.
    pub(super) fn charge(&mut self, span: Span, (ended_ms, late_ms): (i64, i64), amount: i64) {
        // After the clock was set back nobody can tell what is known, and what may be new is charged.
        let knows = ended_ms < self.known_ms && self.known_ms <= ended_ms.saturating_add(late_ms);
        if self.until_ms.is_none() && self.base.is_some() && knows {
            return;
        }
        match span {
            Span::Fixed { .. } => {}
            Span::Rolling { bucket_ms, .. } => {
                *self.buckets.entry(ended_ms.div_euclid(bucket_ms)).or_default() += amount;
            }
            Span::FromFirst { length_ms } => {
                if self.start_ms.is_none_or(|start| ended_ms >= start + length_ms) {
                    self.start_ms = Some(ended_ms);
                    self.spent = 0;
                }
            }
        }
        self.spent = self.spent.saturating_add(amount);
    }

    /// What was charged here before the seeding may or may not be in the ledger: the larger sum holds. Of a `stale`
    /// counter it is there, perhaps in another bucket.
    pub(super) fn fill(&mut self, known: &Known, span: Span, now_ms: i64, stale: bool) {
        if stale {
            self.buckets.clear();
        }
        match known {
            Known::Sum(sum) => self.spent = self.spent.max(*sum),
            Known::Buckets(buckets) => {
                for (number, sum) in buckets {
                    let have = self.buckets.entry(*number).or_default();
                    *have = (*have).max(*sum);
                }
                self.spent = self.buckets.values().sum();
            }
            Known::Started(None) => {}
            Known::Started(Some((start, sum))) => {
                let Span::FromFirst { length_ms } = span else { return };
                if self.start_ms.is_some_and(|have| now_ms < have + length_ms) {
                    self.spent = self.spent.max(*sum);
                } else {
                    (self.start_ms, self.spent) = (Some(*start), *sum);
                }
            }
        }
    }
}
