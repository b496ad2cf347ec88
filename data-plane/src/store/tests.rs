//! One contract for both stores, the two compared step by step, and the limiter through Redis' deaths.

/// Each case runs against memory and against Redis.
macro_rules! cases {
    ($($case:ident)+) => {
        mod in_memory {
            $(#[tokio::test] async fn $case() {
                super::$case(&super::MemoryStore::new(&super::options())).await;
            })+
        }
        mod in_redis {
            $(#[tokio::test] async fn $case() {
                let server = super::RedisServer::start();
                super::$case(&server.store().await).await;
                super::every_key_expires(&server);
            })+
        }
    };
}

mod compare;
mod contract;
mod elected;
mod holds;
mod lease;
mod limiter;
mod places;
mod redis_server;
mod trouble;
mod twins;

use super::{
    Answer, Bound, Candidate, Charge, Home, Leave, Leaves, Line, Mode, Reserve, Seed, Slot, Store, Taken, ms,
};
use crate::limit::Counter;
use ::contract::ids::{KeyId, ProviderId, RequestId, UserId};
use ::contract::money::NanoUsd;
use ::contract::table::{CounterNaming, Limit, Measure, Scope};
use ::contract::window::Window;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// 2026-01-05T10:00:00Z, a Monday.
const NOW: i64 = 1_767_607_200_000;
const HOUR: i64 = 3_600_000;
const SESSION_TTL: Duration = Duration::from_secs(300);
const RESERVATION_TTL: Duration = Duration::from_secs(900);

const HOME: Home = Home { owner: UserId(1), naming: CounterNaming::ByOwner };

const KEY: Scope = Scope::Key(KeyId(7));
const USER: Scope = Scope::User(UserId(42));

fn request() -> RequestId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    RequestId::new(NOW, random)
}

fn counter(scope: Scope, measure: Measure, window: Window, amount: i64, now_ms: i64) -> Counter {
    Counter::new(
        scope,
        &Limit { measure, window, amount, since_ms: None, absent_until_ms: None },
        chrono_tz::UTC,
        now_ms,
    )
}

fn usd(window: Window, amount: i64, now_ms: i64) -> Counter {
    counter(USER, Measure::Usd, window, amount, now_ms)
}

fn rpm(amount: i64) -> Counter {
    counter(USER, Measure::Requests, Window::Minute, amount, NOW)
}

fn sessions(amount: i64) -> Counter {
    counter(USER, Measure::Sessions, Window::Concurrent, amount, NOW)
}

const DAY: Window = Window::Day { reset_minute: 0 };

/// A reservation by user 42 at `NOW`, to be changed by the test.
fn ask(counters: &[Counter]) -> Reserve<'_> {
    Reserve {
        home: HOME,
        slot: Slot::User(UserId(42)),
        mode: Mode::Take,
        request: request(),
        now_ms: NOW,
        counters,
        estimate: NanoUsd(0),
        session: None,
        session_ttl: SESSION_TTL,
        bound: Bound::Ask,
        line: Line::default(),
        leave: None,
        leaves: Leaves::Stays,
        unsent: true,
    }
}

/// The settlement of `reserve`.
fn charge<'a>(reserve: &Reserve<'a>, actual: i64) -> Charge<'a> {
    Charge {
        home: reserve.home,
        slot: reserve.slot,
        request: reserve.request,
        now_ms: reserve.now_ms,
        last_ms: reserve.now_ms,
        age_ms: 0,
        counters: reserve.counters,
        actual: NanoUsd(actual),
        session: reserve.session,
        bind: None,
        provider: None,
    }
}

const TAKEN: Answer = Answer::Taken(Taken { bound: None, at: None, fresh: false });

/// Whether it was taken, with what else is to be known of it.
fn taken(answer: &Answer) -> Option<&Taken> {
    match answer {
        Answer::Taken(taken) => Some(taken),
        _ => None,
    }
}

/// Which counter refused, and what it counted.
fn over(answer: &Answer) -> Option<(usize, i64)> {
    match answer {
        Answer::Over(over) => Some((over.index, over.current)),
        Answer::Taken(_) | Answer::Full | Answer::Unseeded(_) => None,
    }
}

/// Reserves; money counters that are not seeded begin at what an empty ledger says.
async fn reserve<S: Store>(store: &S, reserve: &Reserve<'_>) -> Answer {
    loop {
        match store.reserve(reserve).await.expect("answer") {
            Answer::Unseeded(missing) => {
                let empty = |index: usize| {
                    let (counter, _) = reserve.counter(index).expect("one of those that were asked");
                    super::seeding::seed(index, counter, &[], reserve.now_ms)
                };
                let seeds: Vec<Seed> = missing.into_iter().map(empty).collect();
                store.seed(reserve, &seeds).await.expect("seed");
            }
            // Whether a session is new is asked where it matters.
            Answer::Taken(taken) if reserve.line.candidates.is_empty() => {
                return Answer::Taken(Taken { fresh: false, ..taken });
            }
            answer => return answer,
        }
    }
}

/// Spends `actual` in one go.
async fn spend<S: Store>(store: &S, counters: &[Counter], now_ms: i64, actual: i64) -> Answer {
    let one = Reserve { now_ms, ..ask(counters) };
    let answer = reserve(store, &one).await;
    if matches!(answer, Answer::Taken(_)) {
        assert!(store.settle(&charge(&one, actual)).await.expect("settle"));
    }
    answer
}

fn provider(id: i64) -> Option<ProviderId> {
    Some(ProviderId(id))
}
