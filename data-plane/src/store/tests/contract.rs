//! What every store promises. Each case runs against memory and against Redis.

use super::redis_server::{RedisServer, every_key_expires, options};
use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Known, seeding};
use ::contract::window::Span;
use futures_util::future::join_all;
use smallvec::SmallVec;

cases! {
    rpm_is_exact rpm_slides fixed_request_windows refusal_takes_nothing sessions_are_counted_once
    requests_without_session session_expires estimates_are_reserved reservations_expire
    settling_twice_charges_once the_crossing_request_is_served fixed_windows_end rolling_windows_roll
    five_hours_from_the_first_charge soft_reset key_and_user_count_apart bindings seeds_hold_the_larger_sum limits_that_come_back_know_what_was_spent
    provisional_seeds_expire seeding_twice_changes_nothing late_settlements_are_not_counted_twice
    check_takes_nothing force_takes_always large_amounts_are_exact order_of_refusal
}

async fn rpm_is_exact<S: Store>(store: &S) {
    let counters = [rpm(60)];
    let answers = join_all((0..200).map(|_| async { reserve(store, &ask(&counters)).await })).await;
    assert_eq!(answers.iter().filter(|answer| **answer == TAKEN).count(), 60);
    let Some(Answer::Over(over)) = answers.iter().find(|answer| **answer != TAKEN) else { unreachable!() };
    assert_eq!((over.current, over.reset_ms, over.wait_ms), (60, Some(NOW + 60_000), Some(60_000)));
}

async fn rpm_slides<S: Store>(store: &S) {
    let counters = [rpm(2)];
    // (at, admitted): the window holds what is younger than 60 s.
    let steps = [(0, true), (30_000, true), (59_999, false), (60_000, true), (60_001, false), (90_000, true)];
    for (at, admitted) in steps {
        let answer = reserve(store, &Reserve { now_ms: NOW + at, ..ask(&counters) }).await;
        assert_eq!(answer == TAKEN, admitted, "at {at}");
    }
    let answer = reserve(store, &Reserve { now_ms: NOW + 90_001, ..ask(&counters) }).await;
    let Answer::Over(over) = answer else { panic!("refused") };
    assert_eq!(over.reset_ms, Some(NOW + 120_000), "when the request of 60 s leaves");
}

async fn fixed_request_windows<S: Store>(store: &S) {
    let day = |now| [counter(USER, Measure::Requests, DAY, 1, now)];
    assert_eq!(reserve(store, &ask(&day(NOW))).await, TAKEN);
    assert_eq!(over(&reserve(store, &ask(&day(NOW))).await), Some((0, 1)));
    let tomorrow = NOW + 24 * HOUR;
    assert_eq!(reserve(store, &Reserve { now_ms: tomorrow, ..ask(&day(tomorrow)) }).await, TAKEN);
}

async fn refusal_takes_nothing<S: Store>(store: &S) {
    let counters = [usd(DAY, 100, NOW), rpm(3), sessions(1)];
    let first = Reserve { session: Some("a"), estimate: NanoUsd(10), ..ask(&counters) };
    assert_eq!(reserve(store, &first).await, TAKEN);
    for _ in 0..5 {
        let other = Reserve { session: Some("b"), estimate: NanoUsd(10), ..ask(&counters) };
        assert_eq!(over(&reserve(store, &other).await), Some((2, 1)));
    }
    for _ in 0..2 {
        let again = Reserve { session: Some("a"), estimate: NanoUsd(10), ..ask(&counters) };
        assert_eq!(reserve(store, &again).await, TAKEN, "no refused request counts");
    }
    assert_eq!(over(&reserve(store, &Reserve { session: Some("a"), ..ask(&counters) }).await), Some((1, 3)));
    let money = [usd(DAY, 30, NOW)];
    assert_eq!(over(&reserve(store, &ask(&money)).await), Some((0, 30)), "three reservations of 10");
}

async fn sessions_are_counted_once<S: Store>(store: &S) {
    let counters = [sessions(2)];
    for session in ["a", "b", "a", "b", "a"] {
        assert_eq!(reserve(store, &Reserve { session: Some(session), ..ask(&counters) }).await, TAKEN);
    }
    let third = Reserve { session: Some("c"), ..ask(&counters) };
    let Answer::Over(over) = reserve(store, &third).await else { panic!("refused") };
    assert_eq!((over.current, over.wait_ms), (2, Some(300_000)));
}

async fn requests_without_session<S: Store>(store: &S) {
    let counters = [sessions(1)];
    let one = ask(&counters);
    assert_eq!(reserve(store, &one).await, TAKEN);
    assert_eq!(over(&reserve(store, &ask(&counters)).await), Some((0, 1)));
    assert!(store.settle(&charge(&one, 0)).await.expect("settle"));
    assert_eq!(reserve(store, &ask(&counters)).await, TAKEN, "its place is free at once");
    // Never settled: its place comes back when the lease ends.
    let later = NOW + ms(RESERVATION_TTL);
    assert_eq!(over(&reserve(store, &Reserve { now_ms: later - 1, ..ask(&counters) }).await), Some((0, 1)));
    assert_eq!(reserve(store, &Reserve { now_ms: later, ..ask(&counters) }).await, TAKEN);
}

async fn session_expires<S: Store>(store: &S) {
    let counters = [sessions(1)];
    let at = |now_ms, session| Reserve { now_ms, session: Some(session), ..ask(&counters) };
    let first = at(NOW, "a");
    assert_eq!(reserve(store, &first).await, TAKEN);
    // A long answer: the session lives on from its end.
    let ended = Charge { now_ms: NOW + 200_000, ..charge(&first, 0) };
    assert!(store.settle(&ended).await.expect("settle"));
    assert_eq!(over(&reserve(store, &at(NOW + 499_999, "b")).await), Some((0, 1)));
    assert_eq!(reserve(store, &at(NOW + 500_000, "b")).await, TAKEN);
    assert_eq!(over(&reserve(store, &at(NOW + 500_001, "a")).await), Some((0, 1)));
}

async fn estimates_are_reserved<S: Store>(store: &S) {
    let counters = [usd(DAY, 100, NOW)];
    let one = Reserve { estimate: NanoUsd(60), ..ask(&counters) };
    let two = Reserve { estimate: NanoUsd(60), ..ask(&counters) };
    assert_eq!(reserve(store, &one).await, TAKEN);
    assert_eq!(reserve(store, &two).await, TAKEN, "60 < 100");
    assert_eq!(over(&reserve(store, &ask(&counters)).await), Some((0, 120)));
    assert!(store.settle(&charge(&one, 5)).await.expect("settle"));
    assert_eq!(reserve(store, &ask(&counters)).await, TAKEN, "5 spent, 60 reserved");
    assert!(store.settle(&charge(&two, 95)).await.expect("settle"));
    assert_eq!(over(&reserve(store, &ask(&counters)).await), Some((0, 100)));
}

async fn reservations_expire<S: Store>(store: &S) {
    let counters = [usd(DAY, 100, NOW)];
    let lost = Reserve { estimate: NanoUsd(100), ..ask(&counters) };
    assert_eq!(reserve(store, &lost).await, TAKEN);
    let end = NOW + ms(RESERVATION_TTL);
    assert_eq!(over(&reserve(store, &Reserve { now_ms: end - 1, ..ask(&counters) }).await), Some((0, 100)));
    assert_eq!(reserve(store, &Reserve { now_ms: end, ..ask(&counters) }).await, TAKEN);
    // The proxy was not dead, only slow: what it charges counts, and the reservation is not given back twice.
    assert!(store.settle(&Charge { now_ms: end, ..charge(&lost, 100) }).await.expect("settle"));
    assert_eq!(over(&reserve(store, &Reserve { now_ms: end, ..ask(&counters) }).await), Some((0, 100)));
}

async fn settling_twice_charges_once<S: Store>(store: &S) {
    let counters =
        [usd(DAY, 100, NOW), usd(Window::FiveHours, 100, NOW), usd(Window::FiveHoursFixed, 100, NOW)];
    let one = Reserve { estimate: NanoUsd(10), ..ask(&counters) };
    assert_eq!(reserve(store, &one).await, TAKEN);
    assert!(store.settle(&charge(&one, 60)).await.expect("settle"));
    for again in 1..4 {
        let late = Charge { now_ms: NOW + again * 60_000, ..charge(&one, 60) };
        assert!(!store.settle(&late).await.expect("settle"), "settled before");
    }
    for index in 0..3 {
        let low: Vec<Counter> = counters
            .iter()
            .cloned()
            .map(|mut counter| {
                counter.limit.amount = 60;
                counter
            })
            .collect();
        assert_eq!(over(&reserve(store, &ask(&low[index..=index])).await), Some((0, 60)));
    }
}

async fn the_crossing_request_is_served<S: Store>(store: &S) {
    let counters = [usd(DAY, 100, NOW)];
    assert_eq!(spend(store, &counters, NOW, 99).await, TAKEN);
    assert_eq!(spend(store, &counters, NOW, 50).await, TAKEN, "crosses the line, is served in full");
    let answer = reserve(store, &ask(&counters)).await;
    assert_eq!(over(&answer), Some((0, 149)));
}

async fn fixed_windows_end<S: Store>(store: &S) {
    let cases = [(DAY, NOW + 14 * HOUR), (Window::Week, NOW + (6 * 24 + 14) * HOUR)];
    for (window, end) in cases {
        let now = [usd(window, 10, NOW)];
        let Span::Fixed { end_ms: Some(until), .. } = now[0].span else { unreachable!() };
        assert_eq!(until, end);
        assert_eq!(spend(store, &now, NOW, 10).await, TAKEN);
        let late = [usd(window, 10, end - 1)];
        assert_eq!(over(&reserve(store, &Reserve { now_ms: end - 1, ..ask(&late) }).await), Some((0, 10)));
        let next = [usd(window, 10, end)];
        assert_eq!(reserve(store, &Reserve { now_ms: end, ..ask(&next) }).await, TAKEN, "{window:?}");
    }
    let total = [usd(Window::Total, 10, NOW)];
    assert_eq!(spend(store, &total, NOW, 10).await, TAKEN);
    let later = NOW + 20 * 24 * HOUR;
    assert_eq!(over(&reserve(store, &Reserve { now_ms: later, ..ask(&total) }).await), Some((0, 10)));
}

async fn rolling_windows_roll<S: Store>(store: &S) {
    let counters = [usd(Window::FiveHours, 100, NOW)];
    // NOW lies on a bucket's edge; a bucket leaves one minute after its five hours.
    assert_eq!(spend(store, &counters, NOW, 60).await, TAKEN);
    assert_eq!(spend(store, &counters, NOW + 2 * HOUR, 50).await, TAKEN);
    let at = |now_ms| Reserve { now_ms, ..ask(&counters) };
    let gone = NOW + 5 * HOUR + 60_000;
    let Answer::Over(over_now) = reserve(store, &at(NOW + 3 * HOUR)).await else { panic!("refused") };
    assert_eq!((over_now.current, over_now.reset_ms), (110, None), "no fixed end");
    assert_eq!(over_now.wait_ms, Some(gone - NOW - 3 * HOUR));
    assert_eq!(over(&reserve(store, &at(gone - 1)).await), Some((0, 110)));
    assert_eq!(spend(store, &counters, gone, 50).await, TAKEN);
    assert_eq!(over(&reserve(store, &at(gone)).await), Some((0, 100)));
    let much_later = NOW + 100 * HOUR;
    assert_eq!(spend(store, &counters, much_later, 100).await, TAKEN, "all has left");
    assert_eq!(over(&reserve(store, &at(much_later + 1)).await), Some((0, 100)));
}

async fn five_hours_from_the_first_charge<S: Store>(store: &S) {
    let counters = [usd(Window::FiveHoursFixed, 100, NOW)];
    assert_eq!(reserve(store, &ask(&counters)).await, TAKEN, "a request that costs nothing starts nothing");
    let start = NOW + HOUR;
    assert_eq!(spend(store, &counters, start, 60).await, TAKEN);
    assert_eq!(spend(store, &counters, start + 4 * HOUR, 40).await, TAKEN);
    let last = Reserve { now_ms: start + 5 * HOUR - 1, ..ask(&counters) };
    let Answer::Over(over_now) = reserve(store, &last).await else { panic!("refused") };
    assert_eq!(
        (over_now.current, over_now.reset_ms, over_now.wait_ms),
        (100, Some(start + 5 * HOUR), Some(1))
    );
    assert_eq!(spend(store, &counters, start + 5 * HOUR, 30).await, TAKEN);
    assert_eq!(spend(store, &counters, start + 6 * HOUR, 70).await, TAKEN);
    let answer = reserve(store, &Reserve { now_ms: start + 7 * HOUR, ..ask(&counters) }).await;
    assert_eq!(over(&answer), Some((0, 100)), "the window that began with the 30");
}

async fn soft_reset<S: Store>(store: &S) {
    let windows =
        [DAY, Window::Week, Window::Month, Window::Total, Window::FiveHours, Window::FiveHoursFixed];
    for window in windows {
        let before = usd(window, 10, NOW);
        assert_eq!(spend(store, std::slice::from_ref(&before), NOW, 10).await, TAKEN);
        let mut after = before.clone();
        after.limit.since_ms = Some(NOW + 1);
        let rows = [before, after];
        let at = |index: usize| Reserve { now_ms: NOW + 2, ..ask(&rows[index..=index]) };
        assert_eq!(over(&reserve(store, &at(0)).await), Some((0, 10)), "{window:?}");
        assert_eq!(reserve(store, &at(1)).await, TAKEN, "{window:?}");
    }
}

async fn key_and_user_count_apart<S: Store>(store: &S) {
    let key = |amount| counter(KEY, Measure::Usd, DAY, amount, NOW);
    let both = [key(50), usd(DAY, 100, NOW)];
    let one = Reserve { estimate: NanoUsd(50), ..ask(&both) };
    assert_eq!(reserve(store, &one).await, TAKEN);
    assert_eq!(over(&reserve(store, &ask(&both)).await), Some((0, 50)));
    assert!(store.settle(&charge(&one, 40)).await.expect("settle"));
    let other_key = [counter(Scope::Key(KeyId(8)), Measure::Usd, DAY, 50, NOW), usd(DAY, 100, NOW)];
    assert_eq!(spend(store, &other_key, NOW, 60).await, TAKEN);
    assert_eq!(over(&reserve(store, &ask(&both)).await), Some((1, 100)), "the user's sum of both keys");
}

fn bound_to(id: i64) -> Answer {
    Answer::Taken(Taken { bound: provider(id), ..Taken::default() })
}

async fn bindings<S: Store>(store: &S) {
    for counters in [&[][..], &[sessions(5)][..], &[usd(DAY, 100, NOW)][..]] {
        let long = "s".repeat(300);
        for session in ["with spaces and ümlauts", long.as_str()] {
            let at = |now_ms| Reserve { now_ms, session: Some(session), ..ask(counters) };
            let first = at(NOW);
            let before = reserve(store, &first).await;
            assert!(matches!(before, Answer::Taken(_)));
            store.settle(&Charge { bind: provider(7), ..charge(&first, 0) }).await.expect("settle");
            assert_eq!(reserve(store, &at(NOW + 1)).await, bound_to(7));
            let other = at(NOW + 1);
            store.settle(&Charge { bind: provider(8), ..charge(&other, 0) }).await.expect("settle");
            assert_eq!(reserve(store, &at(NOW + 2)).await, bound_to(8));
            let failed = at(NOW + 2);
            store.settle(&charge(&failed, 0)).await.expect("settle");
            assert_eq!(reserve(store, &at(NOW + 3)).await, bound_to(8), "stays");
        }
    }
}

/// Seeds the only counter of `reserve` with what the ledger says.
async fn seed<S: Store>(store: &S, reserve: &Reserve<'_>, buckets: &[(i64, i64)]) {
    let seed = seeding::seed(0, &reserve.counters[0], buckets, reserve.now_ms);
    store.seed(reserve, &[seed]).await.expect("seed");
}

async fn seeds_hold_the_larger_sum<S: Store>(store: &S) {
    let minute = |n: i64| NOW - n * 60_000;
    // Window, what is charged before seeding, the ledger's buckets, what counts afterwards.
    type Case<'a> = (Window, i64, &'a [(i64, i64)], i64);
    let cases: [Case<'_>; 5] = [
        (DAY, 30, &[(minute(60), 70)], 70),
        (Window::Week, 30, &[(minute(60), 20)], 30),
        (Window::FiveHours, 30, &[(minute(60), 20), (minute(30), 5)], 55),
        (Window::DayRolling, 0, &[(minute(600), 20), (minute(30), 5)], 25),
        (Window::FiveHoursFixed, 0, &[(minute(900), 20), (minute(30), 5), (minute(10), 3)], 8),
    ];
    for (window, charged, ledger, want) in cases {
        let counters = [usd(window, 1, NOW)];
        let mut slot_of_its_own = ask(&counters);
        slot_of_its_own.slot = Slot::Provider(ProviderId(7));
        slot_of_its_own.home.owner = UserId(2);
        let one = slot_of_its_own;
        // A settlement can reach an empty Redis before anybody has seeded it.
        store.settle(&charge(&one, charged)).await.expect("settle");
        assert_eq!(store.reserve(&one).await.expect("answer"), Answer::Unseeded([0].into_iter().collect()));
        seed(store, &one, ledger).await;
        let got = over(&store.reserve(&one).await.expect("answer"));
        assert_eq!(got, Some((0, want)), "{window:?}");
    }
    // A from-first window that began here keeps its start and takes the larger sum.
    let counters = [usd(Window::FiveHoursFixed, 1, NOW)];
    let one = ask(&counters);
    store.settle(&charge(&one, 10)).await.expect("settle");
    seed(store, &one, &[(minute(60), 20)]).await;
    let Answer::Over(over) = store.reserve(&one).await.expect("answer") else { panic!("refused") };
    assert_eq!((over.current, over.reset_ms), (20, Some(NOW + 5 * HOUR)));
}

async fn provisional_seeds_expire<S: Store>(store: &S) {
    let counters = [usd(DAY, 50, NOW)];
    let one = ask(&counters);
    let unseeded = Answer::Unseeded([0].into_iter().collect());
    assert_eq!(store.reserve(&one).await.expect("answer"), unseeded);
    store.seed(&one, &[Seed { index: 0, known: None, behind_ms: 3_000 }]).await.expect("seed");
    assert_eq!(store.reserve(&one).await.expect("answer"), TAKEN);
    store.settle(&charge(&one, 20)).await.expect("settle");
    let soon = Reserve { now_ms: NOW + 29_999, ..ask(&counters) };
    assert_eq!(store.reserve(&soon).await.expect("answer"), TAKEN);
    let later = Reserve { now_ms: NOW + 30_000, ..ask(&counters) };
    assert_eq!(store.reserve(&later).await.expect("answer"), unseeded, "the ledger is asked again");
    seed(store, &later, &[(NOW - HOUR, 60)]).await;
    assert_eq!(over(&store.reserve(&later).await.expect("answer")), Some((0, 60)));
    let much_later = Reserve { now_ms: NOW + HOUR, ..ask(&counters) };
    assert_eq!(over(&store.reserve(&much_later).await.expect("answer")), Some((0, 60)), "and not again");
}

async fn seeding_twice_changes_nothing<S: Store>(store: &S) {
    for window in [DAY, Window::FiveHours, Window::FiveHoursFixed] {
        let counters = [usd(window, 1, NOW)];
        let one = ask(&counters);
        seed(store, &one, &[(NOW - 60_000, 10)]).await;
        seed(store, &one, &[(NOW - 60_000, 99)]).await;
        store.seed(&one, &[Seed { index: 0, known: None, behind_ms: 3_000 }]).await.expect("seed");
        assert_eq!(over(&store.reserve(&one).await.expect("answer")), Some((0, 10)), "{window:?}");
    }
}

async fn late_settlements_are_not_counted_twice<S: Store>(store: &S) {
    let counters = [usd(DAY, 1, NOW)];
    let seeded = ask(&counters);
    // Redis was away; the ledger's 70 hold what ended long before the seeding.
    seed(store, &seeded, &[(NOW - HOUR, 70)]).await;
    let old = ask(&counters);
    store.settle(&Charge { now_ms: NOW - 60_000, age_ms: 60_000, ..charge(&old, 40) }).await.expect("settle");
    assert_eq!(over(&reserve(store, &ask(&counters)).await), Some((0, 70)));
    let fresh = ask(&counters);
    store.settle(&Charge { now_ms: NOW - 1, ..charge(&fresh, 5) }).await.expect("settle");
    assert_eq!(over(&reserve(store, &ask(&counters)).await), Some((0, 75)), "too fresh for the ledger");
    // Just ended, by a clock that was set back.
    let back = ask(&counters);
    store.settle(&Charge { now_ms: NOW - 60_000, ..charge(&back, 6) }).await.expect("settle");
    assert_eq!(over(&reserve(store, &ask(&counters)).await), Some((0, 81)));
}

/// While there was no such limit, nothing was charged.
async fn limits_that_come_back_know_what_was_spent<S: Store>(store: &S) {
    for window in [DAY, Window::FiveHours, Window::FiveHoursFixed] {
        let mut counters = [usd(window, 100, NOW)];
        seed(store, &ask(&counters), &[(NOW - HOUR, 20)]).await;
        assert_eq!(spend(store, &counters, NOW, 10).await, TAKEN);
        counters[0].limit.absent_until_ms = Some(NOW + HOUR);
        let later = Reserve { now_ms: NOW + HOUR + 1, ..ask(&counters) };
        let unknown = Answer::Unseeded(SmallVec::from_slice(&[0]));
        assert_eq!(store.reserve(&later).await.expect("answer"), unknown, "{window:?}");
        // Thirty in the meantime; of the ten the ledger says when they began.
        let sums = [(NOW - HOUR, 20), (NOW - 60_000, 10), (NOW + HOUR / 2, 70)];
        for _ in 0..2 {
            seed(store, &later, &sums).await;
        }
        assert_eq!(over(&reserve(store, &later).await), Some((0, 100)), "{window:?}");
        // What it was seeded with then holds.
        seed(store, &later, &[(NOW, 500)]).await;
        assert_eq!(over(&reserve(store, &later).await), Some((0, 100)), "{window:?}");
    }
}

async fn check_takes_nothing<S: Store>(store: &S) {
    let counters = [usd(DAY, 10, NOW), rpm(1), sessions(1)];
    for _ in 0..5 {
        let check = Reserve { mode: Mode::Check, estimate: NanoUsd(10), ..ask(&counters) };
        assert_eq!(reserve(store, &check).await, TAKEN);
    }
    assert_eq!(reserve(store, &ask(&counters)).await, TAKEN);
    let check = Reserve { mode: Mode::Check, ..ask(&counters) };
    assert_eq!(over(&reserve(store, &check).await), Some((1, 1)));
}

async fn force_takes_always<S: Store>(store: &S) {
    let counters = [rpm(1), sessions(1)];
    let force = |session| Reserve { mode: Mode::Force, session: Some(session), ..ask(&counters) };
    for session in ["a", "b", "c"] {
        assert_eq!(reserve(store, &force(session)).await, TAKEN);
    }
    assert_eq!(over(&reserve(store, &ask(&counters)).await), Some((0, 3)));
    assert_eq!(over(&reserve(store, &ask(&counters[1..])).await), Some((0, 3)));
}

async fn large_amounts_are_exact<S: Store>(store: &S) {
    // Beyond what a double can tell apart; the sums move as integers.
    let big = (1 << 53) + 1;
    let counters = [usd(DAY, i64::MAX, NOW), usd(Window::FiveHours, i64::MAX, NOW)];
    assert_eq!(spend(store, &counters, NOW, big).await, TAKEN);
    assert_eq!(spend(store, &counters, NOW, 2).await, TAKEN);
    assert_eq!(spend(store, &counters, NOW, 1).await, TAKEN);
    let low = [usd(DAY, big, NOW)];
    let Some((0, current)) = over(&reserve(store, &ask(&low)).await) else { panic!("refused") };
    assert!((current - (big + 3)).abs() <= 1, "{current}");
}

async fn order_of_refusal<S: Store>(store: &S) {
    let counters = [usd(Window::Total, 10, NOW), sessions(1), rpm(1), usd(DAY, 10, NOW)];
    let first = Reserve { session: Some("a"), estimate: NanoUsd(10), ..ask(&counters) };
    assert_eq!(reserve(store, &first).await, TAKEN);
    let blocked = [(0, 0), (1, 1), (2, 2), (3, 3)];
    for (from, want) in blocked {
        let other = Reserve { session: Some("b"), ..ask(&counters[from..]) };
        assert_eq!(over(&reserve(store, &other).await).map(|(index, _)| index + from), Some(want));
    }
}

#[tokio::test]
async fn two_clients_on_one_redis_are_exact() {
    let server = RedisServer::start();
    let (one, two) = (server.store().await, server.store().await);
    let counters = [rpm(60), usd(DAY, 1_000, NOW)];
    let all = (0..200).map(async |n| {
        let store = if n % 2 == 0 { &one } else { &two };
        let ask = Reserve { estimate: NanoUsd(10), ..ask(&counters) };
        let answer = reserve(store, &ask).await;
        if answer == TAKEN {
            assert!(store.settle(&charge(&ask, 7)).await.expect("settle"));
        }
        answer == TAKEN
    });
    assert_eq!(join_all(all).await.into_iter().filter(|taken| *taken).count(), 60);
    let low = [usd(DAY, 1, NOW)];
    assert_eq!(over(&reserve(&two, &ask(&low)).await), Some((0, 420)), "60 times 7, nothing reserved");
}

#[tokio::test]
async fn scripts_are_given_again_to_a_server_that_forgot_them() {
    let server = RedisServer::start();
    let store = server.store().await;
    let counters = [rpm(2)];
    assert_eq!(reserve(&store, &ask(&counters)).await, TAKEN);
    server.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(reserve(&store, &ask(&counters)).await, TAKEN);
    assert_eq!(over(&reserve(&store, &ask(&counters)).await), Some((0, 2)));
    assert!(matches!(seeding::seed(0, &usd(DAY, 1, NOW), &[], NOW).known, Some(Known::Sum(0))));
}
