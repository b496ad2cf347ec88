//! Who was not asked and why, for the decision trail. Worked out afterwards, where it is worth telling: no choice pays for
//! it. Pure.

use super::{Ground, Nothing, Trail, Wish, eligible, rests};
use crate::health::Gate;
use crate::health::machine::{CREDENTIAL, RATE_LIMITED};
use crate::table::Upstream;
use contract::usage::{Skipped, WhySkipped};

/// Providers of one record.
const MOST: usize = 16;

impl Trail {
    /// Those that were not tried and for which there is a reason, what passes by itself first. One that is switched off is
    /// no candidate. `nothing`: why there is nobody left, if there is nobody.
    pub fn skipped(&self, ground: &Ground<'_>, wish: &Wish<'_>, nothing: Option<Nothing>) -> Vec<Skipped> {
        // What is written down is told where somebody failed or nobody is left: it is the same for every request.
        let is_all = nothing.is_some() || self.tried.len() > 1;
        let others = ground.pool.iter().filter(|up| {
            up.row.enabled && !self.tried.contains(&up.row.id) && (is_all || eligible(up, wish))
        });
        let mut all: Vec<_> =
            others.filter_map(|up| Some((self.why(up, ground, wish, nothing)?, up))).collect();
        all.sort_by_key(|(why, _)| WhySkipped::ALL.iter().position(|one| one == why));
        let line = |(why, up): (WhySkipped, &std::sync::Arc<Upstream>)| Skipped {
            provider_id: up.row.id,
            provider_name: up.row.name.clone(),
            why,
        };
        all.into_iter().take(MOST).map(line).collect()
    }

    fn why(
        &self,
        up: &Upstream,
        ground: &Ground<'_>,
        wish: &Wish<'_>,
        nothing: Option<Nothing>,
    ) -> Option<WhySkipped> {
        let id = up.row.id;
        // What is written down comes first: whatever else there is, it would not have been asked.
        if !up.serves_group(wish.groups) {
            return Some(WhySkipped::OtherGroup);
        }
        if !wish.model.is_none_or(|model| up.allows_model(model)) {
            return Some(WhySkipped::ModelNotServed);
        }
        if !up.serves_client(wish.agent) {
            return Some(WhySkipped::ClientNotServed);
        }
        if !up.active_at(wish.minute) {
            return Some(WhySkipped::OutOfHours);
        }
        if let Gate::Asleep { .. } = ground.health.peek(id, wish.now_ms) {
            return Some(match ground.health.reason(id) {
                // Its trial runs.
                (true, _) => WhySkipped::OnTrial,
                (false, RATE_LIMITED) => WhySkipped::RateLimited,
                (false, CREDENTIAL) => WhySkipped::CredentialRefused,
                (false, _) => WhySkipped::CircuitOpen,
            });
        }
        if self.full.contains(&id) || self.crowded.contains(&id) || nothing == Some(Nothing::AtLimit) {
            return Some(WhySkipped::AtLimit);
        }
        rests(up, wish, ground.health).then_some(WhySkipped::Resting)
    }
}
