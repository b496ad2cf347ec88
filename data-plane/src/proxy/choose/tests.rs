//! The choice, case by case: order, weights, groups, health, sessions, the last resort.

use super::*;
use crate::health::Verdict;
use crate::table::Secret;
use crate::table::fixtures::provider;
use contract::table::Provider;
use proptest::prelude::*;
use std::time::Duration;

const NOW: i64 = 1_800_000_000_000;

fn pool(rows: Vec<Provider>) -> Vec<Arc<Upstream>> {
    let one = |row| Arc::new(Upstream::new(row, Secret::new("s")).expect("provider"));
    rows.into_iter().map(one).collect()
}

struct Scene {
    health: Book,
    rotation: Rotation,
    groups: Vec<Arc<str>>,
}

impl Scene {
    fn new() -> Self {
        Self { health: Book::default(), rotation: Rotation::default(), groups: vec![Arc::from("default")] }
    }

    fn wish(&self) -> Wish<'_> {
        Wish { groups: &self.groups, model: Some("m"), agent: "", bound: None, minute: 0, now_ms: NOW }
    }

    fn ground<'a>(&'a self, pool: &'a [Arc<Upstream>]) -> Ground<'a> {
        Ground { pool, health: &self.health, rotation: &self.rotation }
    }

    fn next(&self, pool: &[Arc<Upstream>], trail: &mut Trail) -> Result<(i64, SelectedBy), Nothing> {
        self.next_with(pool, trail, &self.wish())
    }

    fn next_with(
        &self,
        pool: &[Arc<Upstream>],
        trail: &mut Trail,
        wish: &Wish<'_>,
    ) -> Result<(i64, SelectedBy), Nothing> {
        let choice = trail.next(&self.ground(pool), wish, |_| false)?;
        Ok((choice.upstream.row.id.0, choice.by))
    }

    fn sleep(&self, up: &Upstream, seconds: u64) {
        let retry_after = Some(Duration::from_secs(seconds));
        self.health.record(up, &Verdict::RateLimited { retry_after }, NOW);
    }
}

#[test]
fn lower_priority_numbers_come_first_then_the_others_in_turn() {
    let scene = Scene::new();
    let pool = pool(vec![Provider { priority: 1, ..provider(1) }, provider(2)]);
    let mut trail = Trail::default();
    assert_eq!(scene.next(&pool, &mut trail), Ok((2, SelectedBy::Initial)));
    assert_eq!(scene.next(&pool, &mut trail), Ok((1, SelectedBy::Initial)));
    assert_eq!(scene.next(&pool, &mut trail), Err(Nothing::Tried));
}

#[test]
fn groups_are_strict() {
    let mut scene = Scene::new();
    let tagged = Provider { groups: vec![Arc::from("g1"), Arc::from("g2")], ..provider(1) };
    let pool = pool(vec![tagged, provider(2)]);
    for (groups, want) in [
        (&["g1"][..], Ok((1, SelectedBy::Initial))),
        (&["g3"][..], Err(Nothing::NoProvider)),
        (&["default"][..], Ok((2, SelectedBy::Initial))),
    ] {
        scene.groups = groups.iter().copied().map(Arc::from).collect();
        assert_eq!(scene.next(&pool, &mut Trail::default()), want, "{groups:?}");
    }
}

#[test]
fn programs_that_a_provider_does_not_serve_go_to_another() {
    let scene = Scene::new();
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let only = Provider { allowed_clients: list(&["Claude-CLI"]), ..provider(1) };
    let but = Provider { blocked_clients: list(&["codex"]), priority: 1, ..provider(2) };
    let pool = pool(vec![only, but]);
    for (agent, want) in [
        ("claude-cli/2.0 (external)", Ok((1, SelectedBy::Initial))),
        ("curl/8", Ok((2, SelectedBy::Initial))),
        ("", Ok((2, SelectedBy::Initial))),
        ("CODEX_cli/1", Err(Nothing::NoProvider)),
    ] {
        // Not even a conversation that is bound to it.
        for bound in [None, Some(ProviderId(1))] {
            let wish = Wish { agent, bound, ..scene.wish() };
            let want = want.map(|(id, by)| match (id, bound) {
                (1, Some(_)) => (1, SelectedBy::SessionReuse),
                _ => (id, by),
            });
            assert_eq!(scene.next_with(&pool, &mut Trail::default(), &wish), want, "{agent}");
        }
    }
}

#[test]
fn a_bound_session_stays_while_its_provider_can_serve() {
    let scene = Scene::new();
    let pool = pool(vec![provider(1), Provider { priority: 9, ..provider(2) }]);
    let wish = Wish { bound: Some(ProviderId(2)), ..scene.wish() };
    assert_eq!(scene.next_with(&pool, &mut Trail::default(), &wish), Ok((2, SelectedBy::SessionReuse)));
    scene.sleep(&pool[1], 30);
    assert_eq!(scene.next_with(&pool, &mut Trail::default(), &wish), Ok((1, SelectedBy::Initial)));
}

#[test]
fn when_all_sleep_the_first_to_wake_is_tried_once() {
    let scene = Scene::new();
    let pool = pool(vec![provider(1), provider(2)]);
    scene.sleep(&pool[0], 60);
    scene.sleep(&pool[1], 30);
    let mut trail = Trail::default();
    assert_eq!(scene.next(&pool, &mut trail), Ok((2, SelectedBy::LastResort)));
    assert_eq!(scene.next(&pool, &mut trail), Err(Nothing::Asleep { until_ms: Some(NOW + 60_000) }));
}

#[test]
fn a_provider_at_its_limit_is_skipped() {
    let scene = Scene::new();
    let pool = pool(vec![provider(1), provider(2)]);
    let over = |up: &Upstream| up.row.id.0 == 1;
    let next = |trail: &mut Trail, over: &dyn Fn(&Upstream) -> bool| {
        trail.next(&scene.ground(&pool), &scene.wish(), over).map(|choice| choice.upstream.row.id.0)
    };
    assert_eq!(next(&mut Trail::default(), &over), Ok(2));
    assert_eq!(next(&mut Trail::default(), &|_| true), Err(Nothing::AtLimit));
}

proptest! {
    #[test]
    fn weights_hold_exactly(weights in prop::collection::vec(1u32..20, 1..6)) {
        let scene = Scene::new();
        let rows = weights.iter().enumerate();
        let pool = pool(rows.map(|(at, weight)| Provider { weight: *weight, ..provider(at as i64) }).collect());
        let total: u32 = weights.iter().sum();
        let mut hits = vec![0; weights.len()];
        for _ in 0..total * 3 {
            let (id, _) = scene.next(&pool, &mut Trail::default()).expect("a choice");
            hits[id as usize] += 1;
        }
        let want: Vec<u32> = weights.iter().map(|weight| weight * 3).collect();
        prop_assert_eq!(hits, want);
    }

    #[test]
    fn no_provider_is_tried_twice(count in 1i64..8, asleep in prop::collection::vec(any::<bool>(), 8)) {
        let scene = Scene::new();
        let pool = pool((0..count).map(provider).collect());
        pool.iter().zip(&asleep).filter(|(_, asleep)| **asleep).for_each(|(up, _)| scene.sleep(up, 5));
        let mut trail = Trail::default();
        let mut seen = Vec::new();
        while let Ok((id, _)) = scene.next(&pool, &mut trail) {
            prop_assert!(!seen.contains(&id));
            seen.push(id);
        }
        prop_assert!(!seen.is_empty());
    }
}
