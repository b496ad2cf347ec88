//! The choice, case by case: order, weights, groups, health, sessions, the last resort.

use super::*;
use crate::health::Verdict;
use crate::table::Secret;
use crate::table::fixtures::provider;
use contract::ids::UserId;
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
        let kind = EndpointKind::Messages;
        Wish { groups: &self.groups, kind, model: Some("m"), agent: "", bound: None, minute: 0, now_ms: NOW }
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
        let choice = trail.next(&self.ground(pool), wish)?;
        Ok((choice.upstream.row.id.0, choice.by))
    }

    fn sleep(&self, up: &Upstream, seconds: u64) {
        let retry_after = Some(Duration::from_secs(seconds));
        self.health.record(up, Pass::default(), (&Verdict::RateLimited { retry_after }, UserId(1)), NOW);
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

impl Scene {
    /// The line as it stands, left again.
    fn line(&self, pool: &[Arc<Upstream>], trail: &Trail, wish: &Wish<'_>) -> Vec<(i64, bool)> {
        let line = trail.line(&self.ground(pool), wish).expect("a line");
        line.spots().map(|(up, reusable)| (up.row.id.0, reusable)).collect()
    }

    /// What the line gives if its number `at` has room.
    fn take(&self, pool: &[Arc<Upstream>], trail: &mut Trail, at: usize) -> Option<(i64, SelectedBy)> {
        let line = trail.line(&self.ground(pool), &self.wish()).ok()?;
        let choice = trail.taken(line, at, &self.ground(pool), &self.wish())?;
        Some((choice.upstream.row.id.0, choice.by))
    }
}

#[test]
fn the_line_has_the_bound_one_first_and_the_sleepers_last() {
    let scene = Scene::new();
    let unbound = Provider { disable_session_reuse: true, ..provider(5) };
    let pool =
        pool(vec![provider(1), Provider { priority: 1, ..provider(2) }, provider(3), provider(4), unbound]);
    scene.sleep(&pool[0], 60);
    scene.sleep(&pool[2], 30);
    let mut trail = Trail::default();
    let bound = |id| Wish { bound: Some(ProviderId(id)), ..scene.wish() };
    let want = [(2, true), (4, true), (5, false), (3, false), (1, false)];
    assert_eq!(scene.line(&pool, &trail, &bound(2)), want, "the bound one, whatever its priority");
    let want = [(4, true), (5, false), (2, true), (3, false), (1, false)];
    for id in [1, 5, 99] {
        assert_eq!(
            scene.line(&pool, &trail, &bound(id)),
            want,
            "{id} is asleep, not to be reused, or unknown"
        );
    }
    assert_eq!(scene.take(&pool, &mut trail, 3), Some((3, SelectedBy::LastResort)));
    assert_eq!(
        scene.line(&pool, &trail, &scene.wish()),
        [(4, true), (5, false), (2, true)],
        "one last resort"
    );
}

#[test]
fn a_line_is_cut_and_goes_on_without_those_that_are_full() {
    let scene = Scene::new();
    let pool = pool((1..=10).map(provider).collect());
    let mut trail = Trail::default();
    let line = trail.line(&scene.ground(&pool), &scene.wish()).expect("a line");
    assert!(!line.complete && line.spots().count() == line::MOST && !line.has(ProviderId(9)));
    trail.pass(&line);
    drop(line);
    assert_eq!(scene.line(&pool, &trail, &scene.wish()), [(9, true), (10, true)]);
    let line = trail.line(&scene.ground(&pool), &scene.wish()).expect("a line");
    assert!(line.complete);
    trail.pass(&line);
    drop(line);
    let nothing = trail.line(&scene.ground(&pool), &scene.wish()).err();
    assert_eq!(nothing, Some(Nothing::AtLimit));
    assert_eq!(trail.len(), 0, "nobody was tried");
}

#[test]
fn requests_that_ask_at_the_same_time_ask_others_first() {
    let scene = Scene::new();
    let pool = pool(vec![provider(1), provider(2)]);
    let trail = Trail::default();
    let first = |line: &line::Line<'_>| line.spots().next().map(|(up, _)| up.row.id.0);
    let lines: Vec<_> =
        (0..4).map(|_| trail.line(&scene.ground(&pool), &scene.wish()).expect("a line")).collect();
    assert_eq!(lines.iter().map(first).collect::<Vec<_>>(), [Some(1), Some(2), Some(1), Some(2)]);
    drop(lines);
    assert_eq!(
        scene.next(&pool, &mut Trail::default()),
        Ok((1, SelectedBy::Initial)),
        "as if nobody had asked"
    );
}

proptest! {
    #[test]
    fn a_line_is_the_order_of_the_choices(
        weights in prop::collection::vec((1u32..9, 0i32..3, any::<bool>()), 1..8),
        before in 0usize..20,
        bound in prop::option::of(0i64..8),
    ) {
        let (lined, plain) = (Scene::new(), Scene::new());
        let rows = weights.iter().enumerate();
        let row = |(at, (weight, priority, _)): (usize, &(u32, i32, bool))| {
            Provider { weight: *weight, priority: *priority, ..provider(at as i64) }
        };
        let pool = pool(rows.map(row).collect());
        for (up, (_, _, asleep)) in pool.iter().zip(&weights) {
            if *asleep {
                lined.sleep(up, 5);
                plain.sleep(up, 5);
            }
        }
        for _ in 0..before {
            let taken = lined.take(&pool, &mut Trail::default(), 0);
            prop_assert_eq!(taken.ok_or(()), plain.next(&pool, &mut Trail::default()).map_err(drop));
        }
        let wish = Wish { bound: bound.map(ProviderId), ..lined.wish() };
        let line = lined.line(&pool, &Trail::default(), &wish);
        let mut trail = Trail::default();
        let mut chosen = Vec::new();
        while let Ok((id, by)) = plain.next_with(&pool, &mut trail, &wish) {
            chosen.push(id);
            if by == SelectedBy::LastResort {
                break;
            }
        }
        let line: Vec<i64> = line.into_iter().map(|(id, _)| id).collect();
        prop_assert_eq!(&line[..chosen.len()], &chosen[..]);
    }

    /// Whoever is full is left out; his turns go to the others by their weights.
    #[test]
    fn weights_hold_among_those_with_room(weights in prop::collection::vec(1u32..9, 2..6), full in 0usize..6) {
        let scene = Scene::new();
        let rows = weights.iter().enumerate();
        let pool = pool(rows.map(|(at, weight)| Provider { weight: *weight, ..provider(at as i64) }).collect());
        let full = full % weights.len();
        let mut hits = vec![0; weights.len()];
        let rest: u32 = weights.iter().sum::<u32>() - weights[full];
        for _ in 0..rest * 20 {
            let line = scene.line(&pool, &Trail::default(), &scene.wish());
            let at = line.iter().position(|(id, _)| *id != full as i64).expect("another");
            let (id, _) = scene.take(&pool, &mut Trail::default(), at).expect("room");
            hits[id as usize] += 1;
        }
        for (at, (hits, weight)) in hits.iter().zip(&weights).enumerate() {
            // Until it is the full one's turn for the first time, the others have theirs among all.
            let want = if at == full { 0 } else { i64::from(weight * 20) };
            prop_assert!((i64::from(*hits as u32) - want).abs() <= 2, "{at}: {hits} of {want}");
        }
    }
}

#[test]
fn who_refused_such_a_call_comes_after_all_others_and_before_nobody() {
    let scene = Scene::new();
    let pool = pool(vec![provider(1), Provider { priority: 9, ..provider(2) }]);
    let rest = |id| scene.health.rest(ProviderId(id), (EndpointKind::Messages, "m"), NOW, NOW + 60_000);
    let first = |wish: &Wish<'_>| scene.next_with(&pool, &mut Trail::default(), wish).map(|(id, _)| id);
    rest(1);
    let wish = scene.wish();
    assert_eq!(first(&wish), Ok(2));
    assert_eq!(first(&Wish { bound: Some(ProviderId(1)), ..wish }), Ok(2));
    for other in [
        Wish { model: Some("n"), ..wish },
        Wish { kind: EndpointKind::CountTokens, ..wish },
        Wish { now_ms: NOW + 60_000, ..wish },
    ] {
        assert_eq!(first(&other), Ok(1));
    }
    rest(2);
    let mut trail = Trail::default();
    assert_eq!(scene.next(&pool, &mut trail), Ok((1, SelectedBy::Initial)), "as if nobody rested");
    assert_eq!(scene.next(&pool, &mut trail), Ok((2, SelectedBy::Initial)));
    assert_eq!(scene.next(&pool, &mut trail), Err(Nothing::Tried));
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
