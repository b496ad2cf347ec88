//! The order in which providers are asked for room, where one of them has limits of its own: worked out before
//! anything is taken. Whose turn it is changes only for the one that is used.

use super::{Able, Choice, Ground, Nothing, Rotation, Trail, Wish, tier};
use crate::health::Gate;
use crate::table::Upstream;
use contract::ids::ProviderId;
use contract::usage::SelectedBy;
use smallvec::SmallVec;
use std::sync::Arc;

/// Providers of one line.
pub const MOST: usize = 8;

/// One of a line.
struct Spot {
    upstream: Arc<Upstream>,
    by: SelectedBy,
    /// Among whom it was its turn.
    among: SmallVec<[Arc<Upstream>; 8]>,
}

/// Who is asked, in this order. Dropped without [`Trail::taken`], it leaves the rotation as it was.
pub struct Line<'a> {
    spots: SmallVec<[Spot; MOST]>,
    /// Whether there are no others.
    pub complete: bool,
    /// Whether some of them sleep or rest.
    left_out: bool,
    rotation: &'a Rotation,
    /// Whose turn is taken already, so that requests that ask at the same time ask others first.
    turn: Option<usize>,
}

impl<'a> Line<'a> {
    fn new(rotation: &'a Rotation) -> Self {
        Self { spots: SmallVec::new(), complete: true, left_out: false, rotation, turn: None }
    }

    fn push(&mut self, upstream: &Arc<Upstream>, by: SelectedBy, among: &[&Arc<Upstream>]) {
        if self.spots.len() >= MOST {
            self.complete = false;
            return;
        }
        let among =
            if among.len() > 1 { among.iter().map(|up| Arc::clone(up)).collect() } else { SmallVec::new() };
        self.spots.push(Spot { upstream: Arc::clone(upstream), by, among });
    }

    /// In order: who, and whether a session that is bound to it goes there first.
    pub fn spots(&self) -> impl Iterator<Item = (&Arc<Upstream>, bool)> {
        self.spots.iter().map(|spot| {
            let awake = spot.by != SelectedBy::LastResort;
            (&spot.upstream, awake && !spot.upstream.row.disable_session_reuse)
        })
    }

    /// Whether it is among them.
    pub fn has(&self, id: ProviderId) -> bool {
        self.spots.iter().any(|spot| spot.upstream.row.id == id)
    }

    fn rotate(&self, at: usize, times: i64) {
        if let Some(spot) = self.spots.get(at).filter(|spot| !spot.among.is_empty()) {
            let among: Able<'_> = spot.among.iter().collect();
            self.rotation.take(&among, spot.upstream.row.id, times);
        }
    }

    fn give_back(&mut self) {
        if let Some(at) = self.turn.take() {
            self.rotate(at, -1);
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Trail {
    /// Who is asked for room next, the best first.
    pub fn line<'a>(&self, ground: &Ground<'a>, wish: &Wish<'_>) -> Result<Line<'a>, Nothing> {
        let Ground { health, rotation, .. } = *ground;
        let able = self.able(ground, wish)?;
        let mut line = Line::new(rotation);
        let (mut awake, mut asleep) = (Able::new(), SmallVec::<[(Option<i64>, &Arc<Upstream>); 16]>::new());
        for up in able {
            match health.peek(up.row.id, wish.now_ms) {
                Gate::Asleep { until_ms } => asleep.push((until_ms, up)),
                _ => awake.push(up),
            }
        }
        let is_bound = |up: &&Arc<Upstream>| Some(up.row.id) == wish.bound && !up.row.disable_session_reuse;
        let is_ready = |up: &&Arc<Upstream>| is_bound(up) && !super::rests(up, wish, health);
        if let Some(up) = awake.iter().copied().find(is_ready) {
            line.push(up, SelectedBy::SessionReuse, &[]);
            awake.retain(|other| other.row.id != up.row.id);
        }
        // Those that refused such a call a moment ago come after all others.
        let mut resting = awake.clone();
        resting.retain(|up| super::rests(up, wish, health));
        awake.retain(|up| !resting.iter().any(|other| other.row.id == up.row.id));
        line.left_out = !resting.is_empty() || !asleep.is_empty();
        for mut ready in [awake, resting] {
            while !ready.is_empty() && line.complete {
                let tier = tier(&ready, wish);
                let Some(up) = rotation.peek(&tier) else { break };
                line.push(up, SelectedBy::Initial, &tier);
                ready.retain(|other| other.row.id != up.row.id);
            }
        }
        asleep.retain(|(until, _)| until.is_some());
        asleep.sort_by_key(|(until, up)| (*until, up.row.id));
        if !self.last_resort_used {
            asleep.iter().for_each(|(_, up)| line.push(up, SelectedBy::LastResort, &[]));
        }
        if line.spots.is_empty() {
            return Err(Nothing::Asleep { until_ms: asleep.first().and_then(|(until, _)| *until) });
        }
        if line.spots[0].by == SelectedBy::Initial {
            line.rotate(0, 1);
            line.turn = Some(0);
        }
        Ok(line)
    }

    /// Nobody of the line has room.
    pub fn pass(&mut self, line: &Line<'_>) {
        self.full.extend(line.spots.iter().map(|spot| spot.upstream.row.id));
        self.left_out = true;
    }

    /// The line's number `at` has room, and is the one to which the session is bound, or not. `None`: it has fallen
    /// asleep, or another request is its trial; it counts as tried.
    pub fn taken(
        &mut self,
        mut line: Line<'_>,
        at: usize,
        ground: &Ground<'_>,
        wish: &Wish<'_>,
    ) -> Option<Choice> {
        let spot = line.spots.get(at)?;
        self.left_out |= line.left_out || at > 0;
        self.crowded.extend(line.spots[..at].iter().map(|spot| spot.upstream.row.id));
        let (upstream, mut by) = (Arc::clone(&spot.upstream), spot.by);
        if by == SelectedBy::Initial
            && Some(upstream.row.id) == wish.bound
            && !upstream.row.disable_session_reuse
        {
            by = SelectedBy::SessionReuse;
        }
        let pass = if by == SelectedBy::LastResort {
            ground.health.pass(upstream.row.id)
        } else {
            let (gate, pass) = ground.health.gate(&upstream, wish.now_ms);
            if matches!(gate, Gate::Asleep { .. }) {
                self.tried.push(upstream.row.id);
                return None;
            }
            pass
        };
        match by {
            SelectedBy::Initial if line.turn == Some(at) => line.turn = None,
            SelectedBy::Initial => line.rotate(at, 1),
            SelectedBy::LastResort => self.last_resort_used = true,
            _ => {}
        }
        self.tried.push(upstream.row.id);
        Some(Choice { upstream, by, pass })
    }
}
