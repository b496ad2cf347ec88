//! Counters that lack settlements are raised to the ledger's sums, and never counted twice.

use super::limiter::{Book, Worker, eventually, local, now, with_redis};
use super::redis_server::RedisServer;
use super::*;
use crate::store::compare::{Sum, Touched};
use crate::store::{Known, Options, seeding};
use std::sync::Arc;

fn touched(counter: &Counter) -> Touched {
    Touched::new(HOME, Slot::User(UserId(42)), counter)
}

/// What the ledger knows of it.
fn sum(counter: &Counter, buckets: &[(i64, i64)], lower: i64, now_ms: i64) -> Sum {
    Sum { known: seeding::seed(0, counter, buckets, now_ms).known, lower }
}

#[tokio::test]
async fn what_is_below_is_raised_and_what_is_above_stays() {
    let minutes_ago = |minutes: i64| now() - minutes * 60_000;
    let (a, b) = (minutes_ago(120), minutes_ago(60));
    // Window, charged here, the ledger's buckets, counted afterwards, changed.
    type Case<'a> = (Window, &'a [(i64, i64)], &'a [(i64, i64)], i64, Option<&'static str>);
    let cases: [Case<'_>; 9] = [
        (DAY, &[(0, 30)], &[(a, 70)], 70, Some("raised")),
        (Window::Total, &[(0, 30)], &[(a, 30)], 30, None),
        (Window::Month, &[(0, 30)], &[(a, 20)], 30, None),
        // What is missing of an old bucket is not added to a new one.
        (Window::FiveHours, &[(120, 30), (60, 5)], &[(a, 40), (b, 5)], 45, Some("raised")),
        (Window::FiveHours, &[(120, 30), (60, 5)], &[(a, 30), (b, 5)], 35, None),
        // Counted when it ended, in the ledger when it began.
        (Window::DayRolling, &[(60, 35)], &[(a, 30), (b, 5)], 35, None),
        (Window::DayRolling, &[], &[(a, 30), (b, 5)], 35, Some("raised")),
        (Window::FiveHoursFixed, &[(60, 5)], &[(a, 30), (b, 5)], 35, Some("raised")),
        (Window::FiveHoursFixed, &[], &[(a, 30)], 30, Some("raised")),
    ];
    for (window, charged, ledger, want, change) in cases {
        let server = RedisServer::start();
        let store = server.server_clock().await;
        let counter = usd(window, 1, now());
        let counters = [counter.clone()];
        let one = Reserve { now_ms: now(), ..ask(&counters) };
        reserve(&store, &one).await;
        for (ago, amount) in charged {
            let next = Reserve { request: request(), ..one };
            let end = Charge { age_ms: ago * 60_000, ..charge(&next, *amount) };
            // Not known from the seeding.
            server.command(&["HSET", &key(&server), "known", "0"]);
            store.settle(&end).await.expect("settle");
        }
        let list = [touched(&counter)];
        let sums = [sum(&counter, ledger, 0, now())];
        let answer = store.compare(&list, &sums, now()).await.expect("compare");
        assert_eq!(answer, [(want, change)], "{window:?} {charged:?} {ledger:?}");
        let again = store.compare(&list, &sums, now()).await.expect("compare");
        assert_eq!(again, [(want, None)], "{window:?}: once");
        // A settlement that comes after all is known from the ledger now, if it was raised.
        let late = Reserve { request: request(), ..one };
        let end = Charge { age_ms: 60_000, ..charge(&late, 9) };
        store.settle(&end).await.expect("settle");
        let look = [Sum { known: None, lower: 0 }];
        let counted = store.compare(&list, &look, 0).await.expect("look");
        let more = if change.is_some() { 0 } else { 9 };
        assert_eq!(counted, [(want + more, None)], "{window:?}");
    }
}

/// The only money counter there is.
fn key(server: &RedisServer) -> String {
    let keys = server.command(&["--scan", "--pattern", "*$*"]);
    keys.lines().next().expect("a counter").to_owned()
}

#[tokio::test]
async fn a_fixed_window_is_lowered_by_what_is_too_much() {
    let server = RedisServer::start();
    let store = server.server_clock().await;
    let counter = usd(DAY, 1_000, now());
    let list = [touched(&counter)];
    let none = [Sum { known: Some(Known::Sum(0)), lower: 5 }];
    assert_eq!(store.compare(&list, &none, now()).await.expect("compare"), [(-1, None)], "not seeded");
    spend(&store, std::slice::from_ref(&counter), now(), 100).await;
    let lower = [Sum { known: Some(Known::Sum(60)), lower: 40 }];
    assert_eq!(store.compare(&list, &lower, now()).await.expect("compare"), [(60, Some("lowered"))]);
    let more_than_there_is = [Sum { known: Some(Known::Sum(0)), lower: 61 }];
    assert_eq!(store.compare(&list, &more_than_there_is, now()).await.expect("compare"), [(60, None)]);
}

const PAUSE: Duration = Duration::from_millis(50);

fn quick(options: Options) -> Options {
    Options { compare_pause: PAUSE, settle_backlog: 2, ..options }
}

#[test]
fn what_an_outage_lost_is_made_good() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        book.sum.store(100, Ordering::SeqCst);
        book.complete_ms.store(now() + 3_600_000, Ordering::SeqCst);
        let worker = Worker::start(quick(with_redis(&server)), &book).await;
        let counters = [usd(DAY, 1_000, now()), usd(Window::FiveHours, 1_000, now())];
        let (request, _) = worker.reserve(&counters).await;
        worker.settle(request, &counters, 0);
        eventually("seeded", async || worker.counted(&counters).await == 100).await;
        // At their first touch they are compared, and then for a long time only for a reason.
        eventually("compared", async || book.asked.load(Ordering::SeqCst) >= 2).await;
        let over_ms = now() + 20 * ms(PAUSE);
        eventually("the round is over", async || now() > over_ms).await;

        // It keeps its data, and never gets eight of ten settlements.
        server.freeze(true);
        let (request, _) = worker.reserve(&counters).await;
        for n in 0..10 {
            let request = if n == 0 { request } else { super::request() };
            worker.settle(request, &counters, 10);
        }
        book.sum.store(200, Ordering::SeqCst);
        book.complete_ms.store(now() - 60_000, Ordering::SeqCst);
        eventually("they are lost", async || worker.limiter.core_for_tests().breaker.is_open()).await;
        server.freeze(false);
        for counters in [&counters[..1], &counters[1..]] {
            eventually("raised", async || worker.counted(counters).await == 200).await;
        }
        // Others are told, until the ledger has everything.
        let noted = || server.command(&["ZCARD", "sw:{o1}:compare"]).trim().to_owned();
        eventually("noted", async || noted() == "2").await;
        book.complete_ms.store(now() + 3_600_000, Ordering::SeqCst);
        eventually("nothing is left to do", async || {
            server.command(&["ZCARD", "sw:{o1}:compare"]).trim() == "0"
        })
        .await;
        assert_eq!(worker.counted(&counters).await, 200, "no more than that");
        worker.stop().await;
    });
}

#[test]
fn a_proxy_that_starts_compares_what_it_touches() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let counters = [usd(DAY, 1_000, now())];
        let first = Worker::start(quick(with_redis(&server)), &book).await;
        let (request, _) = first.reserve(&counters).await;
        first.settle(request, &counters, 100);
        first.stop().await;
        // What the first had in flight when it was killed.
        book.sum.store(170, Ordering::SeqCst);
        let second = Worker::start(quick(with_redis(&server)), &book).await;
        eventually("raised", async || second.counted(&counters).await == 170).await;
        second.stop().await;
    });
}

#[test]
fn another_proxy_compares_what_one_noted_before_it_died() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let counters = [usd(DAY, 1_000, now())];
        let other = Worker::start(quick(with_redis(&server)), &book).await;
        let (request, _) = other.reserve(&counters).await;
        other.settle(request, &counters, 100);
        eventually("it has compared by itself", async || book.asked.load(Ordering::SeqCst) >= 2).await;
        book.sum.store(170, Ordering::SeqCst);
        book.complete_ms.store(now() + 3_600_000, Ordering::SeqCst);
        server.store().await.note(&touched(&counters[0]), now() + 1_000).await.expect("note");
        eventually("raised", async || other.counted(&counters).await == 170).await;
        eventually("done", async || server.command(&["ZCARD", "sw:{o1}:compare"]).trim() == "0").await;
        other.stop().await;
    });
}

#[test]
fn a_counter_above_the_ledger_is_lowered_once_every_report_is_there() {
    for complete in [false, true] {
        local(async {
            let server = RedisServer::start();
            let book: Arc<Book> = Arc::default();
            let at = if complete { now() + 3_600_000 } else { now() - 3_600_000 };
            book.complete_ms.store(at, Ordering::SeqCst);
            let counters = [usd(DAY, 1_000, now())];
            let first = Worker::start(quick(with_redis(&server)), &book).await;
            let (request, _) = first.reserve(&counters).await;
            first.settle(request, &counters, 100);
            first.stop().await;
            book.sum.store(40, Ordering::SeqCst);
            let asked = book.asked.load(Ordering::SeqCst);
            let second = Worker::start(quick(with_redis(&server)), &book).await;
            let want = if complete { 40 } else { 100 };
            eventually("compared", async || {
                let counted = second.counted(&counters).await;
                book.asked.load(Ordering::SeqCst) > asked && counted == want
            })
            .await;
            // Whatever the round that has asked does, it does soon.
            let over_ms = now() + 20 * ms(PAUSE);
            eventually("the round is over", async || now() > over_ms).await;
            assert_eq!(second.counted(&counters).await, want);
            second.stop().await;
            let third = Worker::start(with_redis(&server), &book).await;
            assert_eq!(third.counted(&counters).await, want);
            third.stop().await;
        });
    }
}

#[test]
fn what_was_seeded_while_reports_were_outstanding_is_compared_again() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        book.complete_ms.store(now() + 3_600_000, Ordering::SeqCst);
        book.sum.store(100, Ordering::SeqCst);
        let worker = Worker::start(quick(with_redis(&server)), &book).await;
        let counters = [usd(DAY, 1_000, now())];
        assert_eq!(worker.counted(&counters).await, 100);
        eventually("compared", async || book.asked.load(Ordering::SeqCst) >= 2).await;
        let over_ms = now() + 20 * ms(PAUSE);
        eventually("the round is over", async || now() > over_ms).await;
        // A proxy's spool holds the last minute, and Redis has forgotten everything.
        book.complete_ms.store(now() - 60_000, Ordering::SeqCst);
        server.command(&["FLUSHALL"]);
        assert_eq!(worker.counted(&counters).await, 100);
        book.sum.store(130, Ordering::SeqCst);
        book.complete_ms.store(now() + 3_600_000, Ordering::SeqCst);
        eventually("raised", async || worker.counted(&counters).await == 130).await;
        worker.stop().await;
    });
}
