//! One contract for both stores, the two compared step by step, and the limiter through Redis' deaths.

mod contract;
mod lease;
mod limiter;
mod redis_server;
mod twins;

use super::{Answer, Charge, Mode, Reserve, Seed, Slot, Store, ms};
use crate::limit::Counter;
use ::contract::ids::{KeyId, ProviderId, RequestId, UserId};
use ::contract::money::NanoUsd;
use ::contract::table::{Limit, Measure, Scope};
use ::contract::window::Window;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// 2026-01-05T10:00:00Z, a Monday.
const NOW: i64 = 1_767_607_200_000;
const HOUR: i64 = 3_600_000;
const SESSION_TTL: Duration = Duration::from_secs(300);
const RESERVATION_TTL: Duration = Duration::from_secs(900);

const KEY: Scope = Scope::Key(KeyId(7));
const USER: Scope = Scope::User(UserId(42));

fn request() -> RequestId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    RequestId::new(NOW, random)
}

fn counter(scope: Scope, measure: Measure, window: Window, amount: i64, now_ms: i64) -> Counter {
    Counter::new(scope, &Limit { measure, window, amount, since_ms: None }, chrono_tz::UTC, now_ms)
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
        slot: Slot::User(UserId(42)),
        mode: Mode::Take,
        request: request(),
        now_ms: NOW,
        counters,
        estimate: NanoUsd(0),
        session: None,
        session_ttl: SESSION_TTL,
    }
}

/// The settlement of `reserve`.
fn charge<'a>(reserve: &Reserve<'a>, actual: i64) -> Charge<'a> {
    Charge {
        slot: reserve.slot,
        request: reserve.request,
        now_ms: reserve.now_ms,
        counters: reserve.counters,
        actual: NanoUsd(actual),
        session: reserve.session,
        bind: None,
    }
}

const TAKEN: Answer = Answer::Taken { bound: None };

/// Which counter refused, and what it counted.
fn over(answer: &Answer) -> Option<(usize, i64)> {
    match answer {
        Answer::Over(over) => Some((over.index, over.current)),
        Answer::Taken { .. } | Answer::Unseeded(_) => None,
    }
}

/// Reserves; money counters that are not seeded begin at what an empty ledger says.
async fn reserve<S: Store>(store: &S, reserve: &Reserve<'_>) -> Answer {
    match store.reserve(reserve).await.expect("answer") {
        Answer::Unseeded(missing) => {
            let empty =
                |index: usize| super::seeding::seed(index, &reserve.counters[index], &[], reserve.now_ms);
            let seeds: Vec<Seed> = missing.into_iter().map(empty).collect();
            store.seed(reserve, &seeds).await.expect("seed");
            store.reserve(reserve).await.expect("answer")
        }
        answer => answer,
    }
}

/// Spends `actual` in one go.
async fn spend<S: Store>(store: &S, counters: &[Counter], now_ms: i64, actual: i64) -> Answer {
    let one = Reserve { now_ms, ..ask(counters) };
    let answer = reserve(store, &one).await;
    if matches!(answer, Answer::Taken { .. }) {
        assert!(store.settle(&charge(&one, actual)).await.expect("settle"));
    }
    answer
}

fn provider(id: i64) -> Option<ProviderId> {
    Some(ProviderId(id))
}
