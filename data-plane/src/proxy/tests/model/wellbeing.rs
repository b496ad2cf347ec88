//! What the health of a provider ought to be: the rules as a person would tell them, written without a look at
//! `health/machine.rs`.
//!
//! So many failures in a row send it to rest for the breaker's time; then one request tries it, and so many successes
//! bring it back, one failure sends it to rest again. A 429 sends it to rest for as long as it asks, and says nothing
//! else. What a caller does wrong says nothing. Failures of one account alone send it nowhere, unless nobody else has asked
//! for anything for ten minutes. One that refuses a model, its credential or an empty account comes after the others for
//! a minute, and is neither better nor worse for it.

use super::steps::{Fault, House};

/// How long failures send a provider to rest, in ms.
pub const REST_MS: i64 = 1_800_000;
/// How long one that refused comes after the others, in ms.
const BEHIND_MS: i64 = 60_000;

/// One provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wellbeing {
    /// In a row.
    pub failures: u32,
    rest: Option<Rest>,
    /// Whose requests failed since it last succeeded or was sent to rest: nobody's, one account's, anybody's.
    witnesses: Option<Option<i64>>,
    /// Until when it comes after the others, because it refused a caller.
    behind_ms: i64,
    /// Successes so far of the trial that it is on, or will be on when it wakes.
    trial: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    until_ms: i64,
    /// Sent there by a 429.
    limited: bool,
}

impl Wellbeing {
    pub fn is_awake(&self, now_ms: i64) -> bool {
        self.wakes_ms().is_none_or(|until| until <= now_ms)
    }

    /// When it wakes, or woke without having been asked since.
    pub fn wakes_ms(&self) -> Option<i64> {
        self.rest.map(|rest| rest.until_ms)
    }

    /// Whether it comes after the others that are awake.
    pub fn is_behind(&self, now_ms: i64) -> bool {
        self.behind_ms > now_ms
    }

    /// Moments at which it changes by itself.
    pub fn edges(&self) -> impl Iterator<Item = i64> {
        self.wakes_ms().into_iter().chain((self.behind_ms > 0).then_some(self.behind_ms))
    }

    /// Whether it serves like any other, and has nothing behind it.
    pub fn is_well(&self) -> bool {
        *self == Self::default()
    }

    /// It was asked, and this came of it at `now_ms`. `resting`: it was asked in its sleep, as the last resort. `account`: who
    /// asked, unless there is nobody else.
    pub fn learns(
        &mut self,
        fault: Fault,
        resting: bool,
        house: House,
        (account, now_ms): (Option<i64>, i64),
    ) {
        if !resting {
            self.rest = None;
        }
        match fault {
            Fault::None => self.succeeded(house),
            Fault::Broken | Fault::HangsUp | Fault::CutEarly | Fault::CutLate | Fault::Closed => {
                self.failures += 1;
                let same = self.witnesses.is_none_or(|before| before == account);
                self.witnesses = Some(account.filter(|_| same));
                // One that fails its trial sleeps again, whoever asked.
                let opens =
                    self.trial.is_some() || self.failures >= house.threshold && self.witnesses == Some(None);
                // Failing in its sleep does not make it sleep longer.
                if opens && !resting {
                    self.rest = Some(Rest { until_ms: now_ms + REST_MS, limited: false });
                    self.trial = Some(0);
                    self.witnesses = None;
                }
            }
            Fault::Limited(seconds) => {
                let until_ms = now_ms + seconds * 1000;
                let rest = self.rest.get_or_insert(Rest { until_ms, limited: true });
                rest.until_ms = rest.until_ms.max(until_ms);
            }
            Fault::Forbidden | Fault::Unauthorised | Fault::Empty => self.behind_ms = now_ms + BEHIND_MS,
            Fault::Refused | Fault::Silent | Fault::Unknown => {}
        }
    }

    fn succeeded(&mut self, house: House) {
        // An answer in its sleep is no reason to disbelieve the 429 that sent it there.
        if self.rest.is_some_and(|rest| rest.limited) {
            return;
        }
        self.failures = 0;
        self.witnesses = None;
        self.rest = None;
        self.trial = self.trial.map(|successes| successes + 1).filter(|successes| *successes < house.trials);
    }
}
