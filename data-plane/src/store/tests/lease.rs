//! Slices: no request more than the limit, none less in the end, no money lost, and few round trips.

use super::limiter::{Book, Worker, claim, eventually, local, now, settlement, with_redis};
use super::redis_server::RedisServer;
use super::*;
use crate::limit::Counters;
use crate::store::{Admission, Options, Settlement};
use std::sync::Arc;
use std::time::Instant;

fn lending(server: &RedisServer) -> Options {
    Options { leases: true, ..with_redis(server) }
}

fn minute(amount: i64) -> Counter {
    counter(USER, Measure::Requests, Window::Minute, amount, now())
}

/// One request from admission to settlement; whether it was admitted.
async fn one(worker: &Worker, counters: &[Counter], session: Option<&str>, cost: (i64, i64)) -> bool {
    let request = request();
    let asked: Counters = counters.iter().cloned().collect();
    let session: Option<Arc<str>> = session.map(Arc::from);
    let ask = claim(request, &asked, session.as_ref(), cost.0);
    let Admission::Admitted { .. } = worker.limiter.reserve(&ask, Line::default()).await else {
        return false;
    };
    tokio::task::yield_now().await;
    let ended = settlement(request, counters, cost.1);
    worker.limiter.settle(Settlement { session, bind: provider(7), ..ended });
    true
}

fn scripts_run(server: &RedisServer) -> i64 {
    let stats = server.command(&["INFO", "commandstats"]);
    let calls = stats.lines().filter(|line| line.starts_with("cmdstat_eval"));
    let count = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<i64>().ok();
    calls.filter_map(count).sum()
}

fn reserved(server: &RedisServer) -> i64 {
    server.command(&["HGET", "sw:{o1}:u42:a", "sum"]).trim().parse().unwrap_or_default()
}

#[test]
fn a_hot_key_asks_redis_seldom_and_is_charged_in_full() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let (first, second) =
            (Worker::start(lending(&server), &book).await, Worker::start(lending(&server), &book).await);
        let counters = [
            counter(USER, Measure::Sessions, Window::Concurrent, 10, now()),
            minute(10_000_000),
            usd(Window::FiveHours, 1_000_000_000_000, now()),
            usd(DAY, 1_000_000_000_000, now()),
            counter(KEY, Measure::Usd, Window::Month, 1_000_000_000_000, now()),
        ];
        let begun = Instant::now();
        let mut done = 0;
        while begun.elapsed() < Duration::from_millis(1_500) {
            for worker in [&first, &second] {
                for session in ["a", "b"] {
                    assert!(one(worker, &counters, Some(session), (50, 30)).await);
                    done += 1;
                }
            }
            tokio::task::yield_now().await;
        }
        let scripts = scripts_run(&server);
        assert!(scripts * 5 < done, "{scripts} scripts for {done} requests");
        first.stop().await;
        second.stop().await;
        assert_eq!(reserved(&server), 0, "everything was given back");
        let fresh = Worker::start(with_redis(&server), &book).await;
        for index in 2..counters.len() {
            assert_eq!(fresh.counted(&counters[index..]).await, done * 30, "counter {index}");
        }
        assert_eq!(fresh.counted(&counters[1..]).await, done, "unused requests were given back");
        assert_eq!(server.command(&["GET", "sw:{o1}:u42:b:a"]).trim(), "7", "bindings are written");
    });
}

#[test]
fn not_one_request_more_and_in_the_end_not_one_less() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let workers = [
            Worker::start(lending(&server), &book).await,
            Worker::start(lending(&server), &book).await,
            Worker::start(lending(&server), &book).await,
        ];
        let counters = [minute(3_000)];
        let (mut admitted, mut refused) = (0, 0);
        // Until long after the first refusal; slices that were not used come back meanwhile.
        let deadline = Instant::now() + Duration::from_secs(20);
        while refused < 200 || admitted < 3_000 {
            assert!(Instant::now() < deadline, "{admitted} admitted");
            for (n, worker) in workers.iter().enumerate() {
                // The workers are not equally busy.
                for _ in 0..=n {
                    if one(worker, &counters, None, (0, 0)).await { admitted += 1 } else { refused += 1 }
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(admitted, 3_000);
    });
}

#[test]
fn money_stops_where_it_stops_without_slices() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let workers =
            [Worker::start(lending(&server), &book).await, Worker::start(lending(&server), &book).await];
        let counters = [usd(DAY, 100_000, now()), counter(KEY, Measure::Usd, Window::Total, 100_000, now())];
        let (mut spent, mut refused) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(20);
        while refused < 200 || spent < 100_000 {
            assert!(Instant::now() < deadline, "{spent} spent");
            for worker in &workers {
                if one(worker, &counters, None, (40, 30)).await { spent += 30 } else { refused += 1 }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // 3,334 requests of 30 reach the limit; each worker's last may have been in flight.
        assert!((100_000..=100_060).contains(&spent), "{spent}");
        for worker in workers {
            worker.stop().await;
        }
        let fresh = Worker::start(with_redis(&server), &book).await;
        assert_eq!(fresh.counted(&counters).await, spent);
    });
}

#[test]
fn small_limits_are_never_lent() {
    local(async {
        let server = RedisServer::start();
        let worker = Worker::start(lending(&server), &Arc::default()).await;
        let counters = [counter(USER, Measure::Sessions, Window::Concurrent, 1, now()), minute(60)];
        let mut admitted = 0;
        for n in 0..200 {
            admitted += i64::from(one(&worker, &counters, Some("a"), (0, 0)).await);
            assert!(!one(&worker, &counters, Some("b"), (0, 0)).await, "one session");
            assert!(
                !one(&worker, &counters, None, (0, 0)).await,
                "without a session it would be a second one"
            );
            if n % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert_eq!(admitted, 60);
        assert_eq!(server.command(&["HLEN", "sw:{o1}:u42:a"]).trim(), "0");
    });
}

#[test]
fn a_small_limit_is_used_up_to_the_last_request_at_once() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let (busy, idle) =
            (Worker::start(lending(&server), &book).await, Worker::start(lending(&server), &book).await);
        let counters = [minute(500), usd(DAY, 20_000, now())];
        let mut admitted = 0;
        // Long enough to be hot on both; then one goes quiet, and the other must get all that is left.
        for _ in 0..200 {
            admitted += i64::from(one(&idle, &counters, None, (40, 0)).await);
            admitted += i64::from(one(&busy, &counters, None, (40, 0)).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while one(&busy, &counters, None, (40, 0)).await {
            admitted += 1;
        }
        assert_eq!(admitted, 500);
    });
}

#[test]
fn what_was_spent_from_slices_survives_redis() {
    local(async {
        let mut server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        // A burst in memory is faster than a queue for real traffic has to be.
        let options = Options { settle_queue: 1_000_000, settle_backlog: 1_000_000, ..lending(&server) };
        let worker = Worker::start(options, &book).await;
        let counters = [usd(DAY, 1_000_000_000, now())];
        let mut spent = 0;
        let mut burst = async |millis: u64| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(millis) {
                assert!(one(&worker, &counters, None, (40, 30)).await);
                spent += 30;
                tokio::task::yield_now().await;
            }
            spent
        };
        burst(500).await;
        server.freeze(true);
        let total = burst(1_500).await;
        server.freeze(false);
        eventually("all is charged", async || worker.counted(&counters).await >= total).await;
        // Also what was lent with an answer that nobody waited for any longer.
        eventually("nothing stays reserved", async || reserved(&server) == 0).await;
        worker.stop().await;
        let fresh = Worker::start(with_redis(&server), &book).await;
        assert_eq!(fresh.counted(&counters).await, total, "once");
        server.kill();
    });
}

#[test]
fn what_redis_has_forgotten_of_a_slice_is_not_given_back() {
    local(async {
        let server = RedisServer::start();
        let worker = Worker::start(lending(&server), &Arc::default()).await;
        let (counters, key) = ([minute(1_000_000)], "sw:{o1}:u42:rm:l");
        let burst = async |millis: u64| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(millis) {
                assert!(one(&worker, &counters, None, (0, 0)).await);
                tokio::task::yield_now().await;
            }
        };
        burst(300).await;
        let fields = server.command(&["HKEYS", key]);
        let buckets: Vec<&str> = fields.lines().filter(|field| field.parse::<i64>().is_ok()).collect();
        assert!(!buckets.is_empty(), "nothing was lent");
        // As after a fail-over to a replica that lagged.
        for bucket in &buckets {
            server.command(&["HSET", key, bucket, "1"]);
        }
        server.command(&["HSET", key, "spent", &buckets.len().to_string()]);
        burst(300).await;
        let values = server.command(&["HVALS", key]);
        assert!(values.lines().all(|value| !value.starts_with('-')), "{values}");
    });
}
