//! What every store promises about providers that have limits of their own: asked in line, taken with the caller's
//! counters or not at all, given back when a request moves on.

use super::redis_server::{RedisServer, every_key_expires, options};
use super::*;
use crate::limit::Counters;
use crate::store::memory::MemoryStore;
use futures_util::future::join_all;

cases! {
    the_first_with_room_takes nothing_is_taken_where_nobody_has_room a_refused_caller_takes_nothing_anywhere
    the_bound_provider_goes_first a_full_provider_keeps_its_sessions a_switch_gives_back_and_takes
    a_session_that_was_there_before_stays unsent_requests_do_not_count money_is_reserved_at_the_provider
    a_settlement_charges_both a_line_that_goes_on_admits giving_back_what_may_have_been_taken
    a_failed_provider_keeps_no_new_session parallel_requests_fill_each_to_its_limit
}

fn limited(provider: i64, measure: Measure, window: Window, amount: i64) -> Candidate {
    let scope = Scope::Provider(ProviderId(provider));
    Candidate {
        provider: ProviderId(provider),
        counters: Counters::from_iter([counter(scope, measure, window, amount, NOW)]),
        estimate: NanoUsd(0),
        reusable: true,
    }
}

fn at_most(provider: i64, requests: i64) -> Candidate {
    limited(provider, Measure::Requests, Window::Minute, requests)
}

fn seats(provider: i64, sessions: i64) -> Candidate {
    limited(provider, Measure::Sessions, Window::Concurrent, sessions)
}

fn unlimited(provider: i64) -> Candidate {
    Candidate {
        provider: ProviderId(provider),
        counters: Counters::default(),
        estimate: NanoUsd(0),
        reusable: true,
    }
}

fn line(candidates: &[Candidate]) -> Line<'_> {
    Line { candidates, complete: true }
}

/// Asks with a line; which of it took.
async fn place<S: Store>(store: &S, one: &Reserve<'_>) -> Option<usize> {
    taken(&reserve(store, one).await).and_then(|taken| taken.at)
}

/// How much a candidate's only counter has counted.
async fn counted<S: Store>(store: &S, one: &Candidate, now_ms: i64) -> i64 {
    let mut low: Vec<Counter> = one.counters.to_vec();
    low[0].limit.amount = 1;
    let slot = Slot::Provider(one.provider);
    let check = Reserve { mode: Mode::Check, slot, now_ms, ..ask(&low) };
    over(&reserve(store, &check).await).map_or(0, |(_, current)| current)
}

async fn the_first_with_room_takes<S: Store>(store: &S) {
    let candidates = [at_most(1, 2), at_most(2, 1), unlimited(3)];
    for want in [0, 0, 1, 2, 2] {
        let one = Reserve { line: line(&candidates), ..ask(&[]) };
        assert_eq!(place(store, &one).await, Some(want));
    }
    assert_eq!(
        (counted(store, &candidates[0], NOW).await, counted(store, &candidates[1], NOW).await),
        (2, 1)
    );
}

async fn nothing_is_taken_where_nobody_has_room<S: Store>(store: &S) {
    let caller = [rpm(10), sessions(5)];
    let candidates = [at_most(1, 1), seats(2, 1)];
    let ask = |session| Reserve { session: Some(session), line: line(&candidates), ..ask(&caller) };
    assert_eq!(place(store, &ask("a")).await, Some(0));
    assert_eq!(place(store, &ask("b")).await, Some(1));
    for _ in 0..20 {
        assert_eq!(reserve(store, &ask("c")).await, Answer::Full);
    }
    let low = [rpm(1)];
    let check = Reserve { mode: Mode::Check, ..super::ask(&low) };
    assert_eq!(over(&reserve(store, &check).await), Some((0, 2)), "the caller's stay as they were");
    let low = [super::sessions(1)];
    let check = Reserve { mode: Mode::Check, ..super::ask(&low) };
    assert_eq!(over(&reserve(store, &check).await), Some((0, 2)));
}

async fn a_refused_caller_takes_nothing_anywhere<S: Store>(store: &S) {
    let caller = [rpm(1)];
    let candidates = [at_most(1, 10)];
    let one = || Reserve { line: line(&candidates), ..ask(&caller) };
    assert_eq!(place(store, &one()).await, Some(0));
    for _ in 0..3 {
        assert_eq!(over(&reserve(store, &one()).await), Some((0, 1)));
    }
    assert_eq!(counted(store, &candidates[0], NOW).await, 1);
}

async fn the_bound_provider_goes_first<S: Store>(store: &S) {
    let (first, second) = (at_most(7, 2), at_most(8, 1));
    let candidates = [first.clone(), second.clone()];
    let of = |candidates| Reserve { session: Some("a"), line: line(candidates), ..ask(&[]) };
    let begun = of(&candidates);
    assert_eq!(place(store, &begun).await, Some(0));
    let counters = [usd(DAY, 1_000, NOW)];
    let end = Charge { bind: provider(8), counters: &counters, ..charge(&begun, 0) };
    store.settle(&end).await.expect("settle");
    let answer = reserve(store, &of(&candidates)).await;
    let bound = taken(&answer).expect("taken");
    assert_eq!(
        (bound.at, bound.bound),
        (Some(1), provider(8)),
        "the bound one, though not the first in line"
    );
    assert_eq!(place(store, &of(&candidates)).await, Some(0), "it is full");
    assert_eq!(reserve(store, &of(&candidates)).await, Answer::Full);
    let idle = [at_most(9, 5), Candidate { reusable: false, ..at_most(8, 9) }];
    assert_eq!(place(store, &of(&idle)).await, Some(0), "not for its sessions");
    let known = Reserve { bound: Bound::Known(provider(9)), ..of(&idle) };
    assert_eq!(place(store, &known).await, Some(0));
    assert_eq!(counted(store, &idle[0], NOW).await, 2);
}

async fn a_full_provider_keeps_its_sessions<S: Store>(store: &S) {
    let candidates = [seats(1, 2), unlimited(2)];
    let at = |session| Reserve { session: Some(session), line: line(&candidates), ..ask(&[]) };
    for (session, want) in [("a", 0), ("b", 0), ("c", 1), ("a", 0), ("b", 0), ("d", 1)] {
        assert_eq!(place(store, &at(session)).await, Some(want), "{session}");
    }
}

async fn a_switch_gives_back_and_takes<S: Store>(store: &S) {
    let (first, second) = (seats(1, 1), seats(2, 1));
    for session in [Some("a"), Some("b"), None, Some("c")] {
        let all = [first.clone(), second.clone()];
        let begun = Reserve { session, line: line(&all), ..ask(&[]) };
        let answer = reserve(store, &begun).await;
        let begun_there = taken(&answer).expect("taken");
        assert_eq!((begun_there.at, begun_there.fresh), (Some(0), true));
        let rest = [second.clone()];
        let leave = Leave {
            provider: ProviderId(1),
            counters: &first.counters,
            session: Leaves::Goes,
            unsent: false,
        };
        let moves = Reserve { line: line(&rest), leave: Some(leave), ..begun };
        assert_eq!(place(store, &moves).await, Some(0));
        assert_eq!(counted(store, &first, NOW).await, 0, "nobody is left at the first");
        assert_eq!(counted(store, &second, NOW).await, 1);
        let leave = Leave { provider: ProviderId(2), counters: &second.counters, ..leave };
        let gone = Reserve { line: line(&[]), leave: Some(leave), ..begun };
        assert_eq!(place(store, &gone).await, None);
        assert_eq!(counted(store, &second, NOW).await, 0);
    }
}

async fn a_session_that_was_there_before_stays<S: Store>(store: &S) {
    let one = [seats(1, 5)];
    let at = || Reserve { session: Some("a"), line: line(&one), ..ask(&[]) };
    assert!(taken(&reserve(store, &at()).await).expect("taken").fresh);
    let second = at();
    let answer = reserve(store, &second).await;
    assert!(!taken(&answer).expect("taken").fresh);
    let leave =
        Leave { provider: ProviderId(1), counters: &one[0].counters, session: Leaves::Stays, unsent: false };
    let gone = Reserve { line: line(&[]), leave: Some(leave), ..second };
    reserve(store, &gone).await;
    assert_eq!(counted(store, &one[0], NOW).await, 1, "the other request is still there");
}

async fn unsent_requests_do_not_count<S: Store>(store: &S) {
    let one = [at_most(1, 5)];
    for (unsent, want) in [(true, 0), (false, 1)] {
        let begun = Reserve { line: line(&one), ..ask(&[]) };
        assert_eq!(place(store, &begun).await, Some(0));
        let leave =
            Leave { provider: ProviderId(1), counters: &one[0].counters, session: Leaves::Goes, unsent };
        reserve(store, &Reserve { line: line(&[]), leave: Some(leave), ..begun }).await;
        assert_eq!(counted(store, &one[0], NOW).await, want, "unsent: {unsent}");
    }
}

fn quota(provider: i64, amount: i64, estimate: i64) -> Candidate {
    Candidate { estimate: NanoUsd(estimate), ..limited(provider, Measure::Usd, DAY, amount) }
}

async fn money_is_reserved_at_the_provider<S: Store>(store: &S) {
    let candidates = [quota(1, 100, 60), quota(2, 1_000, 60)];
    let one = || Reserve { line: line(&candidates), ..ask(&[]) };
    for want in [0, 0, 1] {
        assert_eq!(place(store, &one()).await, Some(want), "60 + 60 of 100 are reserved at the first");
    }
    assert_eq!(counted(store, &candidates[0], NOW).await, 120);
}

async fn a_settlement_charges_both<S: Store>(store: &S) {
    let counters = [usd(DAY, 1_000, NOW), sessions(5)];
    let candidates = [quota(1, 100, 60)];
    let one = Reserve { session: Some("a"), line: line(&candidates), ..ask(&counters) };
    assert_eq!(place(store, &one).await, Some(0));
    let provider = Some((ProviderId(1), &*candidates[0].counters, true));
    let end = Charge { provider, ..charge(&one, 70) };
    assert!(store.settle(&end).await.expect("settle"));
    assert!(!store.settle(&end).await.expect("settle"), "once");
    assert_eq!(counted(store, &candidates[0], NOW).await, 70);
    let low = [usd(DAY, 1, NOW)];
    let check = Reserve { mode: Mode::Check, ..ask(&low) };
    assert_eq!(over(&reserve(store, &check).await), Some((0, 70)));
}

async fn a_line_that_goes_on_admits<S: Store>(store: &S) {
    let caller = [rpm(1)];
    let candidates = [at_most(1, 1)];
    assert_eq!(place(store, &Reserve { line: line(&candidates), ..ask(&[]) }).await, Some(0));
    let more = Line { candidates: &candidates, complete: false };
    let answer = reserve(store, &Reserve { line: more, ..ask(&caller) }).await;
    assert_eq!(taken(&answer).expect("others are asked next").at, None);
    assert_eq!(over(&reserve(store, &ask(&caller)).await), Some((0, 1)), "the caller's are taken");
}

async fn giving_back_what_may_have_been_taken<S: Store>(store: &S) {
    let caller = [usd(DAY, 100, NOW), rpm(9), sessions(9)];
    let candidates = [at_most(1, 9), seats(2, 9), quota(3, 100, 60)];
    let begun = Reserve { session: Some("a"), estimate: NanoUsd(60), ..ask(&caller) };
    let back = Reserve { mode: Mode::Back, leaves: Leaves::Since(50), line: line(&candidates), ..begun };
    // Nothing was taken: nothing is given.
    reserve(store, &back).await;
    for (at, one) in candidates.iter().enumerate() {
        let alone = std::slice::from_ref(one);
        assert_eq!(place(store, &Reserve { line: line(alone), ..begun }).await, Some(0));
        assert!(counted(store, one, NOW).await > 0, "{at}");
        let late = Reserve { now_ms: NOW + 40, ..back };
        reserve(store, &late).await;
        assert_eq!(counted(store, one, NOW + 40).await, 0, "{at}");
        for mut low in caller.iter().cloned() {
            low.limit.amount = 1;
            let low = [low];
            let check = Reserve { mode: Mode::Check, now_ms: NOW + 40, ..ask(&low) };
            assert_eq!(over(&reserve(store, &check).await), None, "{low:?}");
        }
    }
    // A session that was there long before stays.
    let other = Reserve { session: Some("b"), ..ask(&caller) };
    reserve(store, &other).await;
    let late = Reserve { now_ms: NOW + 60, session: Some("b"), ..back };
    reserve(store, &late).await;
    let low = [sessions(1)];
    let check = Reserve { mode: Mode::Check, now_ms: NOW + 60, ..ask(&low) };
    assert_eq!(over(&reserve(store, &check).await), Some((0, 1)));
    // One that others have counted again since stays, and goes if they have not.
    reserve(store, &Reserve { now_ms: NOW + 70, ..other }).await;
    for (age_ms, stays) in [(50, true), (10, false)] {
        let leaves = Leaves::Unshared(age_ms);
        let own = Reserve { mode: Mode::Back, leaves, line: Line::default(), now_ms: NOW + 90, ..other };
        reserve(store, &own).await;
        let check = Reserve { now_ms: NOW + 90, ..check };
        assert_eq!(over(&reserve(store, &check).await), stays.then_some((0, 1)), "{age_ms}");
    }
}

async fn a_failed_provider_keeps_no_new_session<S: Store>(store: &S) {
    let candidates = [seats(1, 9)];
    for (stays, want) in [(false, 0), (true, 1)] {
        let one = Reserve { session: Some("a"), line: line(&candidates), ..ask(&[]) };
        assert_eq!(place(store, &one).await, Some(0));
        let provider = Some((ProviderId(1), &*candidates[0].counters, stays));
        store.settle(&Charge { provider, ..charge(&one, 0) }).await.expect("settle");
        assert_eq!(counted(store, &candidates[0], NOW).await, want);
    }
}

async fn parallel_requests_fill_each_to_its_limit<S: Store>(store: &S) {
    let candidates = [at_most(1, 60), at_most(2, 30), unlimited(3)];
    let all = (0..200).map(async |_| {
        let one = Reserve { line: line(&candidates), ..ask(&[]) };
        place(store, &one).await
    });
    let mut there = [0; 3];
    join_all(all).await.into_iter().flatten().for_each(|at| there[at] += 1);
    assert_eq!(there, [60, 30, 110]);
}
