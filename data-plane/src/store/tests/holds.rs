//! What requests in flight hold lasts as long as they do, in Redis, in memory and in slices; and a request that
//! moves on leaves nothing behind. Through the limiter, with short lives.

use super::limiter::{Book, Worker, claim, eventually, hold, local, now, settlement, with_redis};
use super::redis_server::{RedisServer, options};
use super::*;
use crate::limit::Counters;
use crate::store::{Admission, Options, Settlement};
use std::sync::Arc;

const SHORT: Duration = Duration::from_millis(600);

fn short(options: Options) -> Options {
    Options { session_ttl: SHORT, reservation_ttl: SHORT, ..options }
}

fn one_seat(provider: i64) -> Candidate {
    let scope = Scope::Provider(ProviderId(provider));
    let seat = counter(scope, Measure::Sessions, Window::Concurrent, 1, now());
    Candidate {
        provider: ProviderId(provider),
        counters: Counters::from_iter([seat]),
        estimate: NanoUsd(0),
        reusable: true,
    }
}

/// Waits until what was taken now would be over if nobody renewed it.
async fn outlive() {
    let over_ms = now() + 3 * ms(SHORT);
    eventually("time goes by", async || now() > over_ms).await;
}

#[test]
fn a_long_request_counts_to_its_end() {
    for redis in [true, false] {
        for leases in [true, false] {
            local(async {
                let server = RedisServer::start();
                let options = if redis { with_redis(&server) } else { options() };
                let worker = Worker::start(short(Options { leases, ..options }), &Arc::default()).await;
                let counters = [sessions(1), usd(DAY, 100, now())];
                let asked: Counters = counters.iter().cloned().collect();
                let session: Arc<str> = Arc::from("long");
                let ask =
                    crate::store::Ask { session_ttl: SHORT, ..claim(request(), &asked, Some(&session), 100) };
                let seat = [one_seat(5)];
                let line = Line { candidates: &seat, complete: true };
                let admitted = worker.limiter.reserve(&ask, line).await;
                let there = hold(admitted).expect("taken");
                outlive().await;
                let (_, other) = worker.reserve_for(Some("other"), &counters[..1], 0, &[]).await;
                assert!(matches!(other, Admission::Refused(_)), "its session is alive: {redis} {leases}");
                let (_, money) = worker.reserve_for(Some("long"), &counters[1..], 0, &[]).await;
                assert!(matches!(money, Admission::Refused(_)), "its money is reserved: {redis} {leases}");
                let (_, full) = worker.reserve_for(Some("other"), &[], 0, &seat).await;
                assert!(matches!(full, Admission::Full), "its seat is taken: {redis} {leases}");
                worker.limiter.settle(Settlement {
                    session: Some(Arc::clone(&session)),
                    hold: Some(there),
                    ..settlement(ask.request, &counters, 10)
                });
                // Its session lives for a while yet, and nobody renews it any more.
                eventually("the session has ended", async || {
                    let (request, admission) = worker.reserve_for(Some("next"), &counters, 0, &seat).await;
                    match admission {
                        Admission::Admitted { place, .. } => {
                            let hold = place.and_then(|place| place.hold);
                            worker.limiter.settle(Settlement { hold, ..settlement(request, &counters, 0) });
                            true
                        }
                        Admission::Full | Admission::Refused(_) => false,
                    }
                })
                .await;
                worker.stop().await;
            });
        }
    }
}

#[test]
fn a_long_request_from_a_slice_counts_to_its_end() {
    local(async {
        let server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let worker = Worker::start(short(Options { leases: true, ..with_redis(&server) }), &book).await;
        let counters = [
            sessions(2),
            counter(USER, Measure::Requests, Window::Minute, 1_000_000, now()),
            usd(DAY, 1_000_000_000, now()),
        ];
        let asked: Counters = counters.iter().cloned().collect();
        let session: Arc<str> = Arc::from("long");
        let mut from_slice = None;
        eventually("a slice is lent", async || {
            let before = scripts(&server);
            let ask =
                crate::store::Ask { session_ttl: SHORT, ..claim(request(), &asked, Some(&session), 50) };
            let admission = worker.limiter.reserve(&ask, Line::default()).await;
            assert!(matches!(admission, Admission::Admitted { .. }));
            if scripts(&server) == before {
                from_slice = Some(ask.request);
                return true;
            }
            let end =
                Settlement { session: Some(Arc::clone(&session)), ..settlement(ask.request, &counters, 1) };
            worker.limiter.settle(end);
            false
        })
        .await;
        outlive().await;
        assert_eq!(server.command(&["ZCARD", "sw:{o1}:u42:s"]).trim(), "1");
        assert_eq!(server.command(&["HGET", "sw:{o1}:u42:a", "sum"]).trim(), "50");
        let low = [sessions(1)];
        let (_, other) = worker.reserve_for(Some("other"), &low, 0, &[]).await;
        assert!(matches!(other, Admission::Refused(_)));
        worker.limiter.settle(settlement(from_slice.expect("found"), &counters, 7));
        worker.stop().await;
        assert_eq!(
            server.command(&["HGET", "sw:{o1}:u42:a", "sum"]).trim(),
            "0",
            "nothing is reserved any more"
        );
    });
}

/// Reservations that were asked of Redis.
fn scripts(server: &RedisServer) -> i64 {
    server.command(&["ZCARD", "sw:{o1}:u42:rm"]).trim().parse().unwrap_or_default()
}

#[test]
fn ten_requests_that_moved_on_leave_no_session_at_the_first_provider() {
    for redis in [true, false] {
        for naming in [CounterNaming::ByOwner, CounterNaming::ByUser] {
            local(async {
                let server = RedisServer::start();
                let options = if redis { with_redis(&server) } else { options() };
                let worker = Worker::start(options, &Arc::default()).await;
                let mut first = one_seat(5);
                let mut low = first.counters[0].clone();
                low.limit.amount = 10;
                first.counters = Counters::from_iter([low]);
                let mut second = one_seat(6);
                let mut wide = second.counters[0].clone();
                wide.limit.amount = 100;
                second.counters = Counters::from_iter([wide]);
                let none = Counters::default();
                for n in 0..10 {
                    let session: Option<Arc<str>> = (n % 2 == 0).then(|| Arc::from(format!("s{n}")));
                    let ask = claim(request(), &none, session.as_ref(), 0);
                    let ask = crate::store::Ask { home: Home { naming, ..HOME }, ..ask };
                    let both = [first.clone(), second.clone()];
                    let begun =
                        worker.limiter.reserve(&ask, Line { candidates: &both, complete: true }).await;
                    let left = hold(begun).expect("room at the first");
                    assert_eq!(left.provider, ProviderId(5), "{n}: nobody is left there");
                    let rest = [second.clone()];
                    let line = Line { candidates: &rest, complete: true };
                    let place = worker.limiter.switch(&ask, Some((left, false)), line).await.expect("room");
                    let end = settlement(ask.request, &[], 0);
                    let (home, session) = (ask.home, session.clone());
                    worker.limiter.settle(Settlement { hold: place.hold, session, home, ..end });
                }
                let mut one = first.clone();
                let mut single = one.counters[0].clone();
                single.limit.amount = 1;
                one.counters = Counters::from_iter([single]);
                let session: Arc<str> = Arc::from("another");
                let ask = claim(request(), &none, Some(&session), 0);
                let ask = crate::store::Ask { home: Home { naming, ..HOME }, ..ask };
                let one = [one];
                let room = worker.limiter.reserve(&ask, Line { candidates: &one, complete: true }).await;
                assert!(hold(room).is_some(), "the first is empty: {redis} {naming:?}");
                worker.stop().await;
            });
        }
    }
}

#[test]
fn a_withdrawn_request_leaves_its_session_to_others_that_are_served() {
    for shared in [false, true] {
        local(async {
            let server = RedisServer::start();
            let book: Arc<Book> = Arc::default();
            let worker = Worker::start(with_redis(&server), &book).await;
            let counters = [sessions(1)];
            let asked: Counters = counters.iter().cloned().collect();
            let session: Arc<str> = Arc::from("new");
            let ask = claim(request(), &asked, Some(&session), 0);
            let admitted = worker.limiter.reserve(&ask, Line::default()).await;
            assert!(matches!(admitted, Admission::Admitted { fresh: true, .. }));
            let begun_ms = now();
            eventually("a while", async || now() > begun_ms + 50).await;
            if shared {
                let (_, other) = worker.reserve_for(Some("new"), &counters, 0, &[]).await;
                assert!(matches!(other, Admission::Admitted { fresh: false, .. }));
            }
            worker.limiter.withdraw(&ask, true);
            worker.stop().await;
            let after = Worker::start(with_redis(&server), &book).await;
            let (_, stranger) = after.reserve_for(Some("stranger"), &counters, 0, &[]).await;
            assert_eq!(matches!(stranger, Admission::Refused(_)), shared);
            after.stop().await;
        });
    }
}
