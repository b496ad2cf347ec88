//! Redis that does not answer, or answers with errors: nothing leaks, and one owner's broken key is no outage.

use super::limiter::{Book, Worker, claim, eventually, hold, local, now, with_redis};
use super::redis_server::RedisServer;
use super::*;
use crate::limit::Counters;
use crate::store::back::Back;
use crate::store::{Admission, Options};
use std::sync::Arc;

fn number(server: &RedisServer, words: &[&str]) -> i64 {
    server.command(words).trim().parse().unwrap_or_default()
}

#[test]
fn what_was_taken_without_an_answer_is_given_back() {
    // Memory refuses what Redis has taken, or takes it elsewhere, or the caller goes away meanwhile.
    for caller_leaves in [false, true] {
        local(async {
            let server = RedisServer::start();
            let timeout = Duration::from_millis(300);
            let options = Options { redis_timeout: timeout, ..with_redis(&server) };
            let worker = Worker::start(options, &Arc::<Book>::default()).await;
            let counters = [rpm(1), sessions(1), usd(DAY, 1_000, now())];
            let at = |id: i64| {
                let scope = Scope::Provider(ProviderId(id));
                let seat = counter(scope, Measure::Sessions, Window::Concurrent, 1, now());
                let quota = counter(scope, Measure::Usd, DAY, 1_000, now());
                Candidate {
                    provider: ProviderId(id),
                    counters: Counters::from_iter([seat, quota]),
                    estimate: NanoUsd(40),
                    reusable: true,
                }
            };
            let line = [at(5)];
            // Everything is seeded, here and there; memory has one request of the minute already.
            let (request, first) = worker.reserve_for(Some("a"), &counters[2..], 40, &line).await;
            let end = crate::store::Settlement {
                hold: hold(first),
                session: Some(Arc::from("a")),
                answered: false,
                ..super::limiter::settlement(request, &counters, 0)
            };
            worker.limiter.settle(end);
            eventually("settled", async || server.command(&["--scan"]).contains(":done:")).await;
            server.command(&["DEL", "sw:{o1}:u42:s"]);
            server.freeze(true);
            let asked: Counters = counters.iter().cloned().collect();
            let session: Arc<str> = Arc::from("b");
            let ask = claim(super::request(), &asked, Some(&session), 40);
            let asking = worker.limiter.reserve(&ask, Line { candidates: &line, complete: true });
            if caller_leaves {
                assert!(tokio::time::timeout(timeout / 10, asking).await.is_err(), "it waits for Redis");
                worker.settle(ask.request, &counters, 0);
            } else {
                let there = hold(asking.await);
                assert!(there.is_some(), "memory is empty");
                let again = claim(super::request(), &asked, Some(&session), 40);
                let refused =
                    worker.limiter.reserve(&again, Line { candidates: &line, complete: true }).await;
                assert!(matches!(refused, Admission::Refused(_)), "memory counts");
                let end = super::limiter::settlement(ask.request, &counters, 0);
                let session = Some(session);
                worker.limiter.settle(crate::store::Settlement {
                    session,
                    hold: there,
                    answered: false,
                    ..end
                });
            }
            server.freeze(false);
            eventually("Redis has been told", async || {
                number(&server, &["HGET", "sw:{o1}:u42:a", "sum"]) == 0
                    && number(&server, &["HGET", "sw:{o1}:p5:a", "sum"]) == 0
                    && number(&server, &["ZCARD", "sw:{o1}:p5:s"]) == 0
                    && !worker.limiter.core_for_tests().breaker.is_open()
            })
            .await;
            worker.stop().await;
        });
    }
}

/// The conversation may be an old one, and the question may never have reached Redis.
#[test]
fn a_session_goes_back_only_if_the_question_without_an_answer_counted_it() {
    let counters = Counters::from_iter([rpm(1)]);
    let session: Arc<str> = Arc::from("old");
    let seat = counter(Scope::Provider(ProviderId(5)), Measure::Sessions, Window::Concurrent, 1, now());
    let line = [Candidate {
        provider: ProviderId(5),
        counters: Counters::from_iter([seat]),
        estimate: NanoUsd(0),
        reusable: true,
    }];
    let ask =
        crate::store::Ask { now_ms: now() - 700, ..claim(super::request(), &counters, Some(&session), 0) };
    let back = Back::of(&ask, Line { candidates: &line, complete: true }, None, true).expect("something");
    let Leaves::Since(age_ms) = back.reserve().leaves else { panic!("it goes or stays, whatever it was") };
    assert!((700..600_000).contains(&age_ms), "{age_ms}");
}

#[test]
fn a_refusal_by_memory_leaves_nothing_in_redis() {
    local(async {
        let server = RedisServer::start();
        let timeout = Duration::from_millis(300);
        let worker =
            Worker::start(Options { redis_timeout: timeout, ..with_redis(&server) }, &Arc::<Book>::default())
                .await;
        // Memory knows of 1,000 spent, Redis does not.
        let counters = [sessions(9), rpm(9), usd(DAY, 1_000, now())];
        assert!(matches!(worker.reserve(&counters[2..]).await.1, Admission::Admitted { .. }));
        let known = super::request();
        {
            let core = worker.limiter.core_for_tests();
            let one = Reserve { now_ms: now(), request: known, ..ask(&counters[2..]) };
            reserve(&core.shared.memory, &one).await;
            core.shared
                .memory
                .settle(&Charge { now_ms: now(), ..charge(&one, 1_000) })
                .await
                .expect("settle");
        }
        server.freeze(true);
        let (_, refused) = worker.reserve_for(Some("x"), &counters, 70, &[]).await;
        assert!(matches!(refused, Admission::Refused(_)), "{refused:?}");
        server.freeze(false);
        eventually("given back", async || {
            number(&server, &["HGET", "sw:{o1}:u42:a", "sum"]) == 0
                && number(&server, &["ZCARD", "sw:{o1}:u42:s"]) == 0
                && number(&server, &["ZCARD", "sw:{o1}:u42:rm"]) == 0
                && !worker.limiter.core_for_tests().breaker.is_open()
        })
        .await;
        worker.stop().await;
    });
}

#[test]
fn one_users_broken_key_is_no_outage() {
    local(async {
        let server = RedisServer::start();
        let worker = Worker::start(with_redis(&server), &Arc::<Book>::default()).await;
        server.command(&["SET", "sw:{o1}:u42:rm", "no set at all"]);
        for _ in 0..5 {
            assert!(matches!(worker.reserve(&[rpm(5)]).await.1, Admission::Admitted { .. }), "by memory");
            assert!(!worker.limiter.core_for_tests().breaker.is_open());
        }
        assert!(matches!(worker.reserve(&[rpm(5)]).await.1, Admission::Refused(_)), "memory counts");
        // Hashes with words where numbers belong are no outage either, and no settlement waits for ever.
        let money = [usd(DAY, 100, now())];
        let (request, _) = worker.reserve(&money).await;
        let start = money[0].start_ms().expect("fixed");
        server.command(&["HSET", &format!("sw:{{o1}}:u42:$d:{start}"), "spent", "much"]);
        worker.settle(request, &money, 5);
        let others = [counter(Scope::User(UserId(43)), Measure::Requests, Window::Minute, 1, now())];
        assert!(matches!(worker.reserve(&others).await.1, Admission::Admitted { .. }));
        assert_eq!(number(&server, &["ZCARD", "sw:{o1}:u43:rm"]), 1, "others are counted in Redis");
        assert!(!worker.limiter.core_for_tests().breaker.is_open());
        worker.stop().await;
    });
}

#[test]
fn a_redis_that_takes_no_writes_is_away_until_it_does() {
    local(async {
        let server = RedisServer::start();
        let worker = Worker::start(with_redis(&server), &Arc::<Book>::default()).await;
        assert!(matches!(worker.reserve(&[rpm(9)]).await.1, Admission::Admitted { .. }));
        // As a replica that was a master until a moment ago.
        server.command(&["REPLICAOF", "localhost", "1"]);
        assert!(matches!(worker.reserve(&[rpm(9)]).await.1, Admission::Admitted { .. }));
        let breaker = || worker.limiter.core_for_tests().breaker.is_open();
        assert!(breaker(), "for everybody");
        let before = number(&server, &["ZCARD", "sw:{o1}:u42:rm"]);
        // It answers every PING meanwhile.
        eventually("two probes later it is still away", async || {
            assert!(breaker());
            server.command(&["INFO", "errorstats"]).contains("errorstat_READONLY:count=3")
        })
        .await;
        server.command(&["REPLICAOF", "NO", "ONE"]);
        eventually("back", async || !breaker()).await;
        assert!(matches!(worker.reserve(&[rpm(9)]).await.1, Admission::Admitted { .. }));
        assert_eq!(number(&server, &["ZCARD", "sw:{o1}:u42:rm"]), before + 1);
        worker.stop().await;
    });
}
