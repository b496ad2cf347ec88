//! Random interleavings: memory and Redis answer every step alike, and no money is lost or invented.

use super::redis_server::{RedisServer, options};
use super::*;
use crate::store::memory::MemoryStore;
use crate::store::seeding;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// One step of a history; times are deltas in ms.
#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Reserve {
        set: usize,
        estimate: i64,
        session: Option<usize>,
        mode: Mode,
    },
    /// Settles an earlier request, counted from the newest; perhaps one that was refused or settled before.
    Settle {
        back: usize,
        actual: i64,
        bind: Option<i64>,
        late_ms: i64,
    },
    Seed {
        set: usize,
        sum: i64,
    },
}

const SESSIONS: [&str; 4] = ["a", "b", "c", "d"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![0..2_000i64, 0..90_000i64, 0..(3 * HOUR)];
    let mode = prop_oneof![8 => Just(Mode::Take), 1 => Just(Mode::Check), 1 => Just(Mode::Force)];
    let reserve = (0..5usize, 0..60i64, proptest::option::of(0..4usize), mode)
        .prop_map(|(set, estimate, session, mode)| Step::Reserve { set, estimate, session, mode });
    let settle = (0..6usize, 0..60i64, proptest::option::of(1..4i64), 0..2_000i64)
        .prop_map(|(back, actual, bind, late_ms)| Step::Settle { back, actual, bind, late_ms });
    let seed = (0..5usize, 0..100i64).prop_map(|(set, sum)| Step::Seed { set, sum });
    let step = prop_oneof![2 => wait.prop_map(Step::Wait), 6 => reserve, 5 => settle, 1 => seed];
    proptest::collection::vec(step, 1..60)
}

/// Longest history: long enough for rolling windows to roll, shorter than the life of any idle counter. Redis
/// lets those go by its own clock, which the tests do not move.
const LONGEST: i64 = 5 * HOUR + 50 * 60_000;

/// Sets of limits, by number, as they stand at `now`.
fn set(number: usize, now: i64) -> Vec<Counter> {
    let key = |window, amount| counter(KEY, Measure::Usd, window, amount, now);
    let sessions = |scope, amount| counter(scope, Measure::Sessions, Window::Concurrent, amount, now);
    match number {
        0 => vec![usd(Window::Total, 2_000, now), rpm(5), usd(Window::FiveHours, 150, now)],
        1 => vec![sessions(KEY, 2), sessions(USER, 3), key(DAY, 120), usd(DAY, 200, now)],
        2 => vec![key(Window::FiveHoursFixed, 100), usd(Window::FiveHoursFixed, 130, now)],
        3 => {
            vec![usd(Window::DayRolling, 300, now), usd(Window::Week, 700, now), usd(Window::Month, 900, now)]
        }
        _ => vec![],
    }
}

struct Past {
    reserve: RequestId,
    set: Vec<Counter>,
    session: Option<usize>,
    settled_at: Option<i64>,
}

/// Bindings end by Redis' own clock too: another test compares them.
async fn ask_unbound<S: Store>(store: &S, question: &Reserve<'_>) -> Answer {
    match store.reserve(question).await.expect("answer") {
        Answer::Taken(_) => TAKEN,
        answer => answer,
    }
}

async fn play<A: Store, B: Store>(one: &A, two: &B, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut now = NOW;
    let mut past: Vec<Past> = Vec::new();
    for step in steps {
        match step {
            Step::Wait(pause) => now = (now + pause).min(NOW + LONGEST),
            Step::Reserve { set: number, estimate, session, mode } => {
                let counters = set(*number, now);
                let mut question = Reserve { now_ms: now, estimate: NanoUsd(*estimate), ..ask(&counters) };
                question.session = session.map(|index| SESSIONS[index]);
                question.mode = *mode;
                // The first answer of an empty store asks for a seed: the same from both.
                let (a, b) = (ask_unbound(one, &question).await, ask_unbound(two, &question).await);
                prop_assert_eq!(&a, &b, "{:?} at {}", step, now);
                if let Answer::Unseeded(_) = a {
                    reserve(one, &question).await;
                    reserve(two, &question).await;
                }
                let session = *session;
                past.push(Past { reserve: question.request, set: counters, session, settled_at: None });
            }
            Step::Settle { back, actual, bind, late_ms } => {
                let Some(index) = past.len().checked_sub(1 + back) else { continue };
                let old = &mut past[index];
                if *old.settled_at.get_or_insert(now) + ms(RESERVATION_TTL) / 2 < now {
                    continue; // Forgotten settlements are forgotten by Redis' own clock too.
                }
                let mut end = charge(&Reserve { request: old.reserve, ..ask(&old.set) }, *actual);
                end.now_ms = now - late_ms;
                end.session = old.session.map(|index| SESSIONS[index]);
                end.bind = bind.map(ProviderId);
                let (a, b) = (one.settle(&end).await, two.settle(&end).await);
                prop_assert_eq!(a.expect("settle"), b.expect("settle"), "{:?} at {}", step, now);
            }
            Step::Seed { set: number, sum } => {
                let counters = set(*number, now);
                let question = Reserve { now_ms: now, ..ask(&counters) };
                let seeds: Vec<Seed> = (0..counters.len())
                    .filter(|&index| counters[index].is_money())
                    .map(|index| seeding::seed(index, &counters[index], &[(now - 60_000, *sum)], now))
                    .collect();
                one.seed(&question, &seeds).await.expect("seed");
                two.seed(&question, &seeds).await.expect("seed");
            }
        }
    }
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

#[test]
fn memory_and_redis_answer_alike() {
    let server = RedisServer::start();
    let runtime = runtime();
    let redis = runtime.block_on(server.store());
    let played = runner(150).run(&steps(), |steps| {
        server.command(&["FLUSHALL"]);
        runtime.block_on(play(&MemoryStore::new(&options()), &redis, &steps))
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}

/// (estimate, actual, how many steps later it is settled); all within one window.
async fn conserved<S: Store>(store: &S, requests: &[(i64, i64, usize)]) -> Result<(), TestCaseError> {
    let unlimited = i64::MAX / 4;
    let counters = [
        usd(DAY, unlimited, NOW),
        usd(Window::FiveHours, unlimited, NOW),
        usd(Window::FiveHoursFixed, unlimited, NOW),
        counter(KEY, Measure::Usd, Window::Month, unlimited, NOW),
    ];
    let mut open: Vec<(usize, Reserve<'_>, i64)> = Vec::new();
    let (mut spent, mut step) = (0, 0);
    let mut asked = requests.iter();
    loop {
        let next = asked.next();
        if let Some((estimate, actual, delay)) = next {
            let one = Reserve { estimate: NanoUsd(*estimate), ..ask(&counters) };
            prop_assert_eq!(reserve(store, &one).await, TAKEN);
            open.push((step + delay, one, *actual));
        }
        let (due, waiting): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|(at, ..)| *at <= step || next.is_none());
        open = waiting;
        for (_, one, actual) in due {
            // Twice: a settlement whose answer was lost is sent again.
            prop_assert!(store.settle(&charge(&one, actual)).await.expect("settle"));
            prop_assert!(!store.settle(&charge(&one, actual)).await.expect("settle"));
            spent += actual;
        }
        let reserved: i64 = open.iter().map(|(_, one, _)| one.estimate.0).sum();
        for (index, counter) in counters.iter().enumerate() {
            let mut low = counter.clone();
            low.limit.amount = 1;
            let answer = reserve(store, &Reserve { mode: Mode::Check, ..ask(&[low]) }).await;
            let counted = over(&answer).map_or(0, |(_, current)| current);
            prop_assert_eq!(counted, spent + reserved, "counter {}", index);
        }
        step += 1;
        if next.is_none() {
            return Ok(());
        }
    }
}

#[test]
fn no_money_is_lost_or_invented() {
    let server = RedisServer::start();
    let runtime = runtime();
    let redis = runtime.block_on(server.store());
    let requests = proptest::collection::vec((0..50i64, 0..50i64, 0..5usize), 1..25);
    let played = runner(40).run(&requests, |requests| {
        server.command(&["FLUSHALL"]);
        runtime.block_on(async {
            conserved(&MemoryStore::new(&options()), &requests).await?;
            conserved(&redis, &requests).await
        })
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}
