//! Which provider next: a pure choice over table, health and what was tried before.
//!
//! The session's bound provider first, else the lowest priority number, then smooth weighted round robin.
//! Never waits, never does I/O.

use crate::health::{Book, Gate, Pass};
use crate::table::Upstream;
use contract::ids::ProviderId;
use contract::usage::SelectedBy;
use llm::EndpointKind;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Candidate sets whose rotation is remembered. Beyond it the memory is emptied and rotation starts anew,
/// which costs evenness for one round and nothing else.
const MAX_ROTATIONS: usize = 4096;

/// What a choice depends on besides the table.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// The caller's groups, as resolved.
    pub groups: &'a [Arc<str>],
    /// What is called.
    pub kind: EndpointKind,
    /// The model that the caller asked for, before any redirect; `None` where a path names none.
    pub model: Option<&'a str>,
    /// The caller's program, as its User-Agent says.
    pub agent: &'a str,
    /// The session's bound provider.
    pub bound: Option<ProviderId>,
    /// Minute of the day in the owner's zone.
    pub minute: u16,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// What a choice is made from.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The owner's providers of the caller's dialect.
    pub pool: &'a [Arc<Upstream>],
    /// Who is awake.
    pub health: &'a Book,
    /// Whose turn it is.
    pub rotation: &'a Rotation,
}

/// A provider to try.
pub struct Choice {
    /// Which.
    pub upstream: Arc<Upstream>,
    /// Why.
    pub by: SelectedBy,
    /// What its health gave along; what comes of the attempt is told with it.
    pub pass: Pass,
}

/// Why there is nothing (more) to try, in the words of the reason class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// No provider of the caller's groups speaks this dialect and serves this model.
    NoProvider,
    /// All of them are asleep.
    Asleep {
        /// Unix milliseconds at which the first one wakes, if any does by itself.
        until_ms: Option<i64>,
    },
    /// All of them are at a limit of their own.
    AtLimit,
    /// Every one that could be tried was tried.
    Tried,
}

type Able<'a> = SmallVec<[&'a Arc<Upstream>; 16]>;

/// The progress of one request through its candidates.
#[derive(Default)]
pub struct Trail {
    tried: SmallVec<[ProviderId; 8]>,
    /// At limits of their own, so they were not tried.
    full: SmallVec<[ProviderId; 8]>,
    last_resort_used: bool,
    /// Others were asked before them for room that they did not have.
    crowded: SmallVec<[ProviderId; 8]>,
    /// Somebody who could serve was left out, for a while.
    left_out: bool,
    /// The caller's limits did not count the request's session before.
    pub brought_session: bool,
}

impl Trail {
    /// Whether it is worth telling who was not asked: somebody was left out for a while, or failed.
    pub fn is_telling(&self) -> bool {
        self.left_out || self.tried.len() > 1
    }

    /// Providers tried so far.
    pub fn len(&self) -> usize {
        self.tried.len()
    }

    /// Whether nothing was tried yet.
    pub fn is_empty(&self) -> bool {
        self.tried.is_empty()
    }

    /// What is left to try.
    fn able<'a>(&self, ground: &Ground<'a>, wish: &Wish<'_>) -> Result<Able<'a>, Nothing> {
        let left = |up: &&Arc<Upstream>| {
            let id = up.row.id;
            eligible(up, wish) && !self.tried.contains(&id) && !self.full.contains(&id)
        };
        let able: Able<'a> = ground.pool.iter().filter(left).collect();
        if able.is_empty() { Err(self.nothing()) } else { Ok(able) }
    }

    /// Why there is nothing left.
    pub fn nothing(&self) -> Nothing {
        match (self.tried.is_empty(), self.full.is_empty()) {
            (false, _) => Nothing::Tried,
            (true, false) => Nothing::AtLimit,
            (true, true) => Nothing::NoProvider,
        }
    }

    /// The next provider to try, where none has limits of its own; else see [`line`](mod@line).
    pub fn next(&mut self, ground: &Ground<'_>, wish: &Wish<'_>) -> Result<Choice, Nothing> {
        let Ground { health, rotation, .. } = *ground;
        let able = self.able(ground, wish)?;
        if let Some(choice) = self.bound(&able, wish, health) {
            return Ok(choice);
        }
        let mut awake = able.clone();
        awake.retain(|up| !matches!(health.peek(up.row.id, wish.now_ms), Gate::Asleep { .. }));
        let mut ready = awake.clone();
        ready.retain(|up| !rests(up, wish, health));
        self.left_out |= ready.len() < able.len();
        // Those that refused such a call a moment ago come after all others, and before nobody.
        for mut tier in [ready, awake] {
            while let Some(up) = best(&tier, wish, rotation) {
                let (gate, pass) = health.gate(up, wish.now_ms);
                if !matches!(gate, Gate::Asleep { .. }) {
                    return Ok(self.take(up, SelectedBy::Initial, pass));
                }
                // Another request took the one trial between the look and the step.
                tier.retain(|other| other.row.id != up.row.id);
            }
        }
        self.last_resort(&able, wish, health)
    }

    fn bound(&mut self, able: &[&Arc<Upstream>], wish: &Wish<'_>, health: &Book) -> Option<Choice> {
        let bound = wish.bound?;
        let up = able.iter().find(|up| up.row.id == bound && !up.row.disable_session_reuse)?;
        if rests(up, wish, health) {
            return None;
        }
        let (gate, pass) = health.gate(up, wish.now_ms);
        let asleep = matches!(gate, Gate::Asleep { .. });
        (!asleep).then(|| self.take(up, SelectedBy::SessionReuse, pass))
    }

    /// Everything is asleep: the one that wakes first is tried once rather than refusing.
    fn last_resort(
        &mut self,
        able: &[&Arc<Upstream>],
        wish: &Wish<'_>,
        health: &Book,
    ) -> Result<Choice, Nothing> {
        let first = able
            .iter()
            .filter_map(|up| match health.peek(up.row.id, wish.now_ms) {
                Gate::Asleep { until_ms } => until_ms.map(|until| (until, *up)),
                _ => None,
            })
            .min_by_key(|(until, up)| (*until, up.row.id));
        match first {
            Some((_, up)) if !self.last_resort_used => {
                self.last_resort_used = true;
                Ok(self.take(up, SelectedBy::LastResort, health.pass(up.row.id)))
            }
            first => Err(Nothing::Asleep { until_ms: first.map(|(until, _)| until) }),
        }
    }

    fn take(&mut self, up: &Arc<Upstream>, by: SelectedBy, pass: Pass) -> Choice {
        self.tried.push(up.row.id);
        Choice { upstream: Arc::clone(up), by, pass }
    }
}

/// Whether it refused such a call for this model a moment ago.
fn rests(up: &Upstream, wish: &Wish<'_>, health: &Book) -> bool {
    health.rests(up.row.id, (wish.kind, wish.model.unwrap_or_default()), wish.now_ms)
}

/// Everything about a provider that does not change within one request.
pub fn eligible(up: &Upstream, wish: &Wish<'_>) -> bool {
    up.row.enabled
        && up.serves_group(wish.groups)
        && wish.model.is_none_or(|model| up.allows_model(model))
        && up.serves_client(wish.agent)
        && up.active_at(wish.minute)
}

/// Those of the lowest priority number.
fn tier<'a>(awake: &[&'a Arc<Upstream>], wish: &Wish<'_>) -> Able<'a> {
    let top = awake.iter().map(|up| up.priority_for(wish.groups)).min();
    awake.iter().copied().filter(|up| Some(up.priority_for(wish.groups)) == top).collect()
}

fn best<'a>(awake: &[&'a Arc<Upstream>], wish: &Wish<'_>, rotation: &Rotation) -> Option<&'a Arc<Upstream>> {
    match tier(awake, wish).as_slice() {
        [only] => Some(only),
        tier => rotation.turn(tier),
    }
}

/// Smooth weighted round robin, remembered per set of candidates and shared by all threads, so that equal
/// weights alternate exactly and unequal ones hold their ratio without randomness.
#[derive(Default)]
pub struct Rotation(Mutex<HashMap<u64, Vec<i64>>>);

impl Rotation {
    /// Works on what is remembered of a set of candidates.
    fn with<T>(&self, tier: &[&Arc<Upstream>], work: impl FnOnce(&mut [i64]) -> T) -> T {
        let mut hasher = DefaultHasher::new();
        tier.iter().for_each(|up| (up.row.id, up.row.weight).hash(&mut hasher));
        // The lock is held for a few additions; nothing in between can panic or wait.
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= MAX_ROTATIONS {
            sets.clear();
        }
        let current = sets.entry(hasher.finish()).or_default();
        current.resize(tier.len(), 0);
        work(current)
    }

    /// Takes the turn of the one that is due.
    fn turn<'a>(&self, tier: &[&'a Arc<Upstream>]) -> Option<&'a Arc<Upstream>> {
        self.with(tier, |current| {
            let at = due(tier, current);
            add(tier, current, at, 1);
            tier.get(at).copied()
        })
    }

    /// Who is due; nobody's turn is taken.
    fn peek<'a>(&self, tier: &[&'a Arc<Upstream>]) -> Option<&'a Arc<Upstream>> {
        self.with(tier, |current| tier.get(due(tier, current)).copied())
    }

    /// Takes the turn of this one, due or not; or, with `times` -1, gives it back, as if it had never been taken.
    fn take(&self, tier: &[&Arc<Upstream>], id: ProviderId, times: i64) {
        if let Some(at) = tier.iter().position(|up| up.row.id == id) {
            self.with(tier, |current| add(tier, current, at, times));
        }
    }
}

fn due(tier: &[&Arc<Upstream>], current: &[i64]) -> usize {
    let after = |at: usize| current[at] + i64::from(tier[at].row.weight);
    (1..tier.len()).fold(0, |best, at| if after(at) > after(best) { at } else { best })
}

fn add(tier: &[&Arc<Upstream>], current: &mut [i64], chosen: usize, times: i64) {
    let mut total = 0;
    for (up, current) in tier.iter().zip(current.iter_mut()) {
        let weight = i64::from(up.row.weight);
        *current += times * weight;
        total += weight;
    }
    if let Some(current) = current.get_mut(chosen) {
        *current -= times * total;
    }
}

pub mod line;
mod skipped;
#[cfg(test)]
mod tests;
