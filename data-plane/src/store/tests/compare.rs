//! Counters that lack settlements are raised to the ledger's sums, and never counted twice.

use super::limiter::{Book, Worker, eventually, local, now, with_redis};
use super::redis_server::RedisServer;
use super::*;
use crate::store::compare::{Compare, Look, Sum, Touched};
use crate::store::redis::RedisStore;
use crate::store::{Complete, Known, Options, seeding};
use std::sync::Arc;

fn touched(counter: &Counter) -> Touched {
    Touched::new(HOME, Slot::User(UserId(42)), counter)
}

/// What the ledger knows of it.
fn sum(counter: &Counter, buckets: &[(i64, i64)], start_ms: Option<i64>) -> Sum {
    let total = buckets.iter().map(|(_, sum)| sum).sum();
    let buckets = if start_ms.is_some() { &[(0, total)][..] } else { buckets };
    Sum { known: Some(seeding::ledgers(counter, start_ms, buckets, now())), ..Sum::default() }
}

/// Compares one counter with what ended so long ago.
async fn compare(store: &RedisStore, counter: &Counter, sum: Sum, behind_ms: i64) -> Look {
    let looks = store.compare(&[touched(counter)], &[sum], behind_ms).await;
    looks.expect("compare").remove(0)
}

async fn look(store: &RedisStore, counter: &Counter) -> Look {
    compare(store, counter, Sum::default(), 0).await
}

/// Charges a request that ended so long ago.
async fn charged(store: &RedisStore, counters: &[Counter], ago_ms: i64, amount: i64) {
    let one = Reserve { now_ms: now(), ..ask(counters) };
    store.settle(&Charge { age_ms: ago_ms, last_ms: LAST, ..charge(&one, amount) }).await.expect("settle");
}

/// When the last of several requests ended that were charged at once.
const LAST: i64 = NOW + 7;

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
        (Window::FiveHoursFixed, &[(60, 5)], &[(b, 35)], 35, Some("raised")),
        // A comparison opens no window.
        (Window::FiveHoursFixed, &[], &[(a, 30)], 0, None),
    ];
    for (window, before, ledger, want, change) in cases {
        let server = RedisServer::start();
        let store = server.server_clock().await;
        let counter = usd(window, 1, now());
        let counters = [counter.clone()];
        reserve(&store, &Reserve { now_ms: now(), ..ask(&counters) }).await;
        // Nothing is known from the seeding.
        server.command(&["HSET", &key(&server), "known", "0"]);
        for (ago, amount) in before {
            charged(&store, &counters, ago * 60_000, *amount).await;
        }
        let start_ms = look(&store, &counter).await.start_ms;
        let answer = compare(&store, &counter, sum(&counter, ledger, start_ms), 30_000).await;
        assert_eq!((answer.count, answer.change), (want, change), "{window:?} {before:?} {ledger:?}");
        let again = compare(&store, &counter, sum(&counter, ledger, start_ms), 30_000).await;
        assert_eq!((again.count, again.change), (want, None), "{window:?}: once");
        // A settlement that comes after all is known from the ledger now, if it was raised, and not if it is newer.
        charged(&store, &counters, 60_000, 9).await;
        let more = if change.is_some() { 0 } else { 9 };
        assert_eq!(look(&store, &counter).await.count, want + more, "{window:?}");
        let passed = store.passed.take();
        assert_eq!(passed.len(), usize::from(change.is_some()), "what was left out is looked for later");
        assert!(passed.iter().all(|(_, ended_ms)| *ended_ms == LAST), "up to the last that was left out");
        charged(&store, &counters, 20_000, 100).await;
        assert_eq!(look(&store, &counter).await.count, want + more + 100, "{window:?}");
    }
}

#[tokio::test]
async fn a_window_from_first_is_compared_with_what_was_spent_since_it_began() {
    let server = RedisServer::start();
    let store = server.server_clock().await;
    let counter = usd(Window::FiveHoursFixed, 1, now());
    let counters = [counter.clone()];
    reserve(&store, &Reserve { now_ms: now(), ..ask(&counters) }).await;
    assert_eq!(seeding::settled(&counter, None, now()), None, "no window runs");
    charged(&store, &counters, 0, 5).await;
    let start_ms = look(&store, &counter).await.start_ms.expect("it runs");
    let query = seeding::settled(&counter, Some(start_ms), now()).expect("a question");
    assert_eq!((query.since_ms, query.bucket_ms, query.by_end, query.settled), (start_ms, 0, true, true));
    // The ledger's own idea of the window began four hours earlier.
    let other = compare(&store, &counter, sum(&counter, &[(0, 500)], Some(start_ms - 4 * HOUR)), 0).await;
    assert_eq!((other.count, other.change), (5, None));
    let same = compare(&store, &counter, sum(&counter, &[(0, 8)], Some(start_ms)), 0).await;
    assert_eq!((same.count, same.change), (8, Some("raised")));
}

/// The only money counter there is.
fn key(server: &RedisServer) -> String {
    let keys = server.command(&["--scan", "--pattern", "*$*"]);
    keys.lines().next().expect("a counter").to_owned()
}

#[tokio::test]
async fn what_several_proxies_found_too_much_is_lowered_once() {
    let server = RedisServer::start();
    let store = server.server_clock().await;
    let counter = usd(DAY, 1_000, now());
    let sum = |known: i64, lower, mark: &Look| Sum {
        known: Some(Known::Sum(known)),
        lower,
        mark: mark.mark.clone(),
    };
    let unseeded = compare(&store, &counter, sum(0, 5, &Look::default()), 0).await;
    assert_eq!((unseeded.count, unseeded.change), (-1, None), "not seeded");
    spend(&store, std::slice::from_ref(&counter), now(), 100).await;
    let seen = look(&store, &counter).await;
    let first = compare(&store, &counter, sum(60, 40, &seen), 0).await;
    assert_eq!((first.count, first.change), (60, Some("lowered")));
    // Meanwhile much was spent: the same excess could be taken off again.
    charged(&store, std::slice::from_ref(&counter), 0, 200).await;
    let second = compare(&store, &counter, sum(60, 40, &seen), 0).await;
    assert_eq!((second.count, second.change), (260, None), "by another proxy");
    let more_than_there_is = compare(&store, &counter, sum(0, 261, &second), 0).await;
    assert_eq!((more_than_there_is.count, more_than_there_is.change), (260, None));
}

#[tokio::test]
async fn after_the_clock_was_set_back_everything_is_charged() {
    let server = RedisServer::start();
    let store = server.store().await;
    let counters = [usd(DAY, 1_000, NOW)];
    reserve(&store, &ask(&counters)).await;
    for ago in [0, 2_000, 60_000] {
        let earlier = Reserve { now_ms: NOW - 60_000, ..ask(&counters) };
        store.settle(&Charge { age_ms: ago, ..charge(&earlier, 10) }).await.expect("settle");
    }
    let list = [touched(&counters[0])];
    let look = store.compare(&list, &[Sum::default()], 0).await.expect("look");
    // The last one is late, and the ledger has it.
    assert_eq!(look[0].count, 20);
}

#[tokio::test(start_paused = true)]
async fn which_counters_are_compared() {
    let every = Duration::from_secs(900);
    let options = Options { compare_every: every, ..Options::default() };
    let none = Complete::default();
    let complete = |at_ms| Complete { connected_ms: Some(at_ms), all_ms: None };
    let names = |compare: &Compare| {
        let mut due: Vec<i64> =
            compare.due_for_tests().iter().map(|what| what.counter.limit.amount).collect();
        due.sort_unstable();
        due
    };
    crate::clock::testing::set(NOW);
    let compare = Compare::new(&options);
    let ended = usd(DAY, 1, NOW - 24 * HOUR);
    let counters: Vec<Counter> = [Window::Total, Window::Month, Window::Week]
        .iter()
        .zip(2..)
        .map(|(window, amount)| usd(*window, amount, NOW))
        .collect();
    compare.touched(touched(&ended));
    counters.iter().for_each(|counter| compare.touched(touched(counter)));
    assert_eq!(names(&compare), [2, 3, 4], "a window that has ended is not compared");
    for counter in &counters {
        assert!(compare.compared_for_tests(&touched(counter).key, complete(NOW)).is_some());
    }
    assert_eq!(names(&compare), [0; 0]);
    crate::clock::testing::step(900_000);
    compare.touched(touched(&counters[0]));
    assert_eq!(names(&compare), [2, 3, 4]);
    for counter in &counters {
        assert!(compare.compared_for_tests(&touched(counter).key, complete(NOW)).is_some());
    }
    crate::clock::testing::step(900_001);
    assert_eq!(names(&compare), [2], "those that nobody used are forgotten");
    // One that lacks a settlement is not.
    compare.lost(touched(&counters[1]), NOW);
    crate::clock::testing::step(3_600_000);
    assert_eq!(names(&compare), [2, 3]);
    assert!(
        compare.compared_for_tests(&touched(&counters[1]).key, none).is_none(),
        "nobody says how complete it is"
    );
}

#[tokio::test(start_paused = true)]
async fn counters_under_new_names_need_what_was_charged_under_the_old_ones() {
    crate::clock::testing::set(NOW);
    let options = Options { reservation_ttl: RESERVATION_TTL, ..Options::default() };
    let counter = usd(DAY, 1, NOW);
    let old = Home { naming: CounterNaming::ByUser, ..HOME };
    for (was_old, want) in [(false, NOW), (true, NOW + ms(RESERVATION_TTL))] {
        let compare = Compare::new(&options);
        if was_old {
            compare.touched(Touched::new(old, Slot::User(UserId(42)), &counter));
        }
        let what = touched(&counter);
        compare.touched(what.clone());
        compare.due_for_tests();
        let done = |at_ms| {
            let complete = Complete { connected_ms: Some(at_ms), all_ms: None };
            compare.compared_for_tests(&what.key, complete)
        };
        assert_eq!(done(want - 1), None);
        assert_eq!(done(want), Some(want));
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_takes_those_that_waited_longest_and_fewer_after_a_slow_answer() {
    crate::clock::testing::set(NOW);
    let compare = Compare::new(&Options::default());
    let counter = |user| counter(Scope::User(UserId(user)), Measure::Usd, DAY, user, NOW);
    for user in (1..=300).rev() {
        compare.touched(touched(&counter(user)));
        crate::clock::testing::step(1);
    }
    let mut first: Vec<i64> = compare.due_for_tests().iter().map(|what| what.counter.limit.amount).collect();
    first.sort_unstable();
    assert_eq!(first, (101..=300).collect::<Vec<_>>());
    assert_eq!(compare.due_for_tests().len(), 100);
    for (in_time, want) in [(false, 100), (false, 50), (true, 100), (true, 200), (true, 200)] {
        compare.answered_for_tests(in_time);
        crate::clock::testing::step(600_000);
        assert_eq!(compare.due_for_tests().len(), want);
    }
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
        book.complete_ms.store(now() + 3_600_000, Ordering::SeqCst);
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

#[test]
fn a_key_that_redis_cannot_count_with_keeps_no_other_from_being_compared() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let worker = Worker::start(quick(with_redis(&server)), &book).await;
        let counters = [usd(DAY, 1_000, now()), usd(Window::Month, 1_000, now())];
        let _ = worker.reserve(&counters).await;
        let broken = touched(&counters[0]);
        let name = String::from_utf8(broken.key.to_vec()).expect("a name");
        for name in [&*name, "sw:{o1}:compare"] {
            server.command(&["SET", name, "x"]);
        }
        book.sum.store(70, Ordering::SeqCst);
        book.complete_ms.store(now() + 3_600_000, Ordering::SeqCst);
        let compare = &worker.limiter.core_for_tests().shared.compare;
        counters.iter().for_each(|counter| compare.lost(touched(counter), now()));
        eventually("raised", async || worker.counted(&counters[1..]).await == 70).await;
        compare.lost(broken.clone(), now());
        let due = compare.due_for_tests();
        assert!(due.iter().all(|what| what.key != broken.key), "it waits for the next regular round");
        worker.stop().await;
    });
}

#[test]
fn after_an_error_of_redis_fewer_are_compared_at_once() {
    local(async {
        let server = RedisServer::start();
        let ledger: Arc<dyn crate::store::Ledger> = Arc::new(Book::default());
        let shared = crate::store::Shared::new(quick(with_redis(&server)), Some(ledger));
        // Nobody runs the other half.
        let (limiter, _settler) = crate::store::Limiter::open(shared).await.expect("limiter");
        let core = limiter.core_for_tests();
        for user in 1..=500 {
            let counter = counter(Scope::User(UserId(user)), Measure::Usd, DAY, user, now());
            core.shared.compare.touched(touched(&counter));
        }
        server.freeze(true);
        core.compare().await;
        server.freeze(false);
        assert_eq!(core.shared.compare.due_for_tests().len(), 100);
    });
}
