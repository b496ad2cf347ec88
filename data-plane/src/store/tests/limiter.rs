//! The limiter as the walk uses it: through seeding, and through Redis' absence, silence and return.

use super::redis_server::{RedisServer, options};
use super::*;
use crate::limit::Counters;
use crate::store::{
    Admission, Ask, Complete, Hold, Ledger, LedgerError, Limiter, Options, Settlement, Settler, Shared,
    Spent, SpentQuery,
};
use futures_util::future::join_all;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::Instant;
use tokio::task::{JoinHandle, LocalSet};

/// Answers every question with the same sum; counts how often it was asked.
#[derive(Default)]
pub(super) struct Book {
    pub(super) sum: AtomicU64,
    pub(super) asked: AtomicU64,
    away: AtomicBool,
    /// Up to when it has everything; 0: it does not say.
    pub(super) complete_ms: AtomicI64,
}

impl Ledger for Book {
    fn spent<'a>(
        &'a self,
        queries: &'a [SpentQuery],
    ) -> Pin<Box<dyn Future<Output = Result<Spent, LedgerError>> + Send + 'a>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if self.away.load(Ordering::SeqCst) {
                return Err(LedgerError("away".to_owned()));
            }
            let sum = i64::try_from(self.sum.load(Ordering::SeqCst)).expect("small");
            let sums = queries.iter().map(|_| vec![(now() - 60_000, sum)]).collect();
            let known = self.complete_ms.load(Ordering::SeqCst);
            let at = (known != 0).then_some(known);
            Ok(Spent { sums, complete: Complete { connected_ms: at, all_ms: at } })
        })
    }
}

pub(super) fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

pub(super) struct Worker {
    pub(super) limiter: Limiter,
    settler: JoinHandle<()>,
}

impl Worker {
    pub(super) async fn start(options: Options, book: &Arc<Book>) -> Self {
        let ledger: Arc<dyn Ledger> = Arc::clone(book) as Arc<dyn Ledger>;
        let (limiter, settler): (Limiter, Settler) =
            Limiter::open(Shared::new(options, Some(ledger))).await.expect("limiter");
        Self { limiter, settler: tokio::task::spawn_local(settler.run()) }
    }

    /// Everything that was handed in has been settled.
    pub(super) async fn stop(self) {
        drop(self.limiter);
        self.settler.await.expect("settler");
    }

    pub(super) async fn reserve(&self, counters: &[Counter]) -> (RequestId, Admission) {
        self.reserve_for(None, counters, 0, &[]).await
    }

    /// With a session, an estimate, and a line of all candidates that there are.
    pub(super) async fn reserve_for(
        &self,
        session: Option<&str>,
        counters: &[Counter],
        estimate: i64,
        line: &[Candidate],
    ) -> (RequestId, Admission) {
        let request = request();
        let counters: Counters = counters.iter().cloned().collect();
        let session = session.map(Arc::from);
        let ask = claim(request, &counters, session.as_ref(), estimate);
        (request, self.limiter.reserve(&ask, Line { candidates: line, complete: true }).await)
    }

    pub(super) fn settle(&self, request: RequestId, counters: &[Counter], actual: i64) {
        self.limiter.settle(settlement(request, counters, actual));
    }

    /// What the first of `counters`, lowered to 1, says it has counted.
    pub(super) async fn counted(&self, counters: &[Counter]) -> i64 {
        let mut low = counters[0].clone();
        low.limit.amount = 1;
        match self.reserve(&[low]).await.1 {
            Admission::Admitted { .. } => 0,
            Admission::Refused(refusal) => refusal.current,
            Admission::Full => unreachable!("no line was given"),
        }
    }
}

pub(super) fn claim<'a>(
    request: RequestId,
    counters: &'a Counters,
    session: Option<&'a Arc<str>>,
    estimate: i64,
) -> Ask<'a> {
    Ask {
        request,
        home: HOME,
        user: UserId(42),
        now_ms: now(),
        counters,
        estimate: NanoUsd(estimate),
        session,
        session_ttl: SESSION_TTL,
    }
}

/// What was given at a provider.
pub(super) fn hold(admission: Admission) -> Option<Hold> {
    match admission {
        Admission::Admitted { place, .. } => place?.hold,
        Admission::Full | Admission::Refused(_) => None,
    }
}

pub(super) fn settlement(request: RequestId, counters: &[Counter], actual: i64) -> Settlement {
    Settlement {
        request,
        home: HOME,
        user: UserId(42),
        now_ms: now(),
        counters: counters.iter().cloned().collect(),
        actual: Some(NanoUsd(actual)),
        session: None,
        bind: None,
        hold: None,
        answered: true,
    }
}

/// Waits, within reason, for a condition; never for a time.
pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(LocalSet::new().run_until(test));
}

pub(super) fn with_redis(server: &RedisServer) -> Options {
    Options { redis_url: Some(server.url()), redis_timeout: Duration::from_millis(500), ..options() }
}

#[test]
fn nothing_to_count_touches_no_store() {
    local(async {
        let server = RedisServer::start();
        let worker = Worker::start(with_redis(&server), &Arc::default()).await;
        let before = server.command(&["INFO", "commandstats"]);
        for _ in 0..10 {
            let (request, admission) = worker.reserve(&[]).await;
            assert!(matches!(admission, Admission::Admitted { bound: None, place: None, .. }));
            worker.settle(request, &[], 10);
        }
        worker.stop().await;
        let scripts =
            |stats: &str| stats.lines().filter(|line| line.contains("eval") || line.contains("get")).count();
        assert_eq!(scripts(&server.command(&["INFO", "commandstats"])), scripts(&before));
    });
}

#[test]
fn two_workers_are_exact_and_a_refusal_says_why() {
    local(async {
        let server = RedisServer::start();
        let book = Arc::default();
        let (one, two) = (
            Worker::start(with_redis(&server), &book).await,
            Worker::start(with_redis(&server), &book).await,
        );
        let counters = [rpm(60)];
        let all = (0..200).map(|n| if n % 2 == 0 { &one } else { &two });
        let answers = join_all(all.map(|worker| worker.reserve(&counters))).await;
        let refusals: Vec<_> = answers
            .into_iter()
            .filter_map(|(_, admission)| match admission {
                Admission::Refused(refusal) => Some(refusal),
                Admission::Admitted { .. } | Admission::Full => None,
            })
            .collect();
        assert_eq!(refusals.len(), 140);
        let refusal = &refusals[0];
        assert_eq!(
            (refusal.limit_type, refusal.scope, refusal.current, refusal.limit),
            ("rpm", USER, 60, 60)
        );
        let wait = refusal.retry_after.expect("known");
        assert!(wait > Duration::from_secs(30) && wait <= Duration::from_secs(60), "{wait:?}");
    });
}

#[test]
fn the_ledger_is_asked_once_and_redis_that_came_back_empty_is_seeded_again() {
    for redis in [true, false] {
        local(async {
            let server = RedisServer::start();
            let book: Arc<Book> = Arc::default();
            book.sum.store(70, Ordering::SeqCst);
            let options = if redis { with_redis(&server) } else { options() };
            let worker = Worker::start(options, &book).await;
            let counters = [usd(DAY, 100, now())];
            let answers = join_all((0..50).map(|_| worker.reserve(&counters))).await;
            assert!(answers.iter().all(|(_, admission)| matches!(admission, Admission::Admitted { .. })));
            assert_eq!(book.asked.load(Ordering::SeqCst), 1, "fifty wait for one answer");
            worker.settle(answers[0].0, &counters, 40);
            eventually("refused at 110", async || worker.counted(&counters).await == 110).await;
            let (_, Admission::Refused(refusal)) = worker.reserve(&counters).await else { panic!("refused") };
            assert_eq!(refusal.reset_ms, counters[0].end_ms());
            assert_eq!(refusal.limit_type, "daily_quota");
            if redis {
                server.command(&["FLUSHALL"]);
                book.sum.store(111, Ordering::SeqCst);
                assert_eq!(worker.counted(&counters).await, 111);
                assert_eq!(book.asked.load(Ordering::SeqCst), 2);
            }
        });
    }
}

#[test]
fn a_ledger_that_is_away_is_asked_again() {
    local(async {
        let book: Arc<Book> = Arc::default();
        book.away.store(true, Ordering::SeqCst);
        book.sum.store(70, Ordering::SeqCst);
        let options = Options { provisional_ttl: Duration::from_millis(50), ..options() };
        let worker = Worker::start(options, &book).await;
        let counters = [usd(DAY, 60, now())];
        assert!(matches!(worker.reserve(&counters).await.1, Admission::Admitted { .. }), "goes on without");
        book.away.store(false, Ordering::SeqCst);
        eventually("seeded", async || worker.counted(&counters).await == 70).await;
    });
}

#[test]
fn redis_dies_and_comes_back() {
    local(async {
        let mut server = RedisServer::start();
        let book: Arc<Book> = Arc::default();
        let worker = Worker::start(with_redis(&server), &book).await;
        let counters = [rpm(5), usd(DAY, 1_000, now())];
        let money = &counters[1..];
        let (request, _) = worker.reserve(&counters).await;
        worker.settle(request, &counters, 100);
        eventually("settled", async || worker.counted(money).await == 100).await;

        server.kill();
        book.sum.store(100, Ordering::SeqCst);
        let mut admitted = 0;
        for _ in 0..10 {
            let (request, admission) = worker.reserve(&counters).await;
            if matches!(admission, Admission::Admitted { .. }) {
                admitted += 1;
                worker.settle(request, &counters, 10);
            }
        }
        assert_eq!(admitted, 5, "counted alone, but counted");
        eventually("memory knows the ledger's sum and its own", async || worker.counted(money).await == 150)
            .await;

        server.restart();
        book.sum.store(150, Ordering::SeqCst);
        // The five that waited were in the ledger or are charged now; none is lost, none counts twice.
        eventually("Redis counts again", async || {
            server.command(&["--scan"]).lines().any(|key| key.contains(":done:"))
        })
        .await;
        let counted = worker.counted(money).await;
        assert!((150..=200).contains(&counted), "{counted}");
        assert!(matches!(worker.reserve(&[rpm(1)]).await.1, Admission::Admitted { .. }), "fresh in Redis");
        worker.stop().await;
    });
}

#[test]
fn a_silent_redis_costs_one_timeout() {
    local(async {
        let server = RedisServer::start();
        let worker = Worker::start(with_redis(&server), &Arc::default()).await;
        let counters = [rpm(1_000)];
        assert!(matches!(worker.reserve(&counters).await.1, Admission::Admitted { .. }));
        server.freeze(true);
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(matches!(worker.reserve(&counters).await.1, Admission::Admitted { .. }));
        }
        let took = begun.elapsed();
        server.freeze(false);
        assert!(took >= Duration::from_millis(400), "the first waited: {took:?}");
        assert!(took < Duration::from_secs(3), "the others did not: {took:?}");
        eventually("back in Redis", async || {
            let _ = worker.reserve(&counters).await;
            server.command(&["ZCARD", "sw:{o1}:u42:rm"]).trim().parse::<i64>().is_ok_and(|count| count > 1)
        })
        .await;
        worker.stop().await;
    });
}

#[test]
fn without_redis_at_the_start() {
    local(async {
        let mut server = RedisServer::start();
        server.kill();
        let worker = Worker::start(with_redis(&server), &Arc::default()).await;
        assert!(matches!(worker.reserve(&[rpm(1)]).await.1, Admission::Admitted { .. }));
        assert!(matches!(worker.reserve(&[rpm(1)]).await.1, Admission::Refused(_)));
        server.restart();
        eventually("Redis is used", async || {
            matches!(worker.reserve(&[rpm(1)]).await.1, Admission::Admitted { .. })
        })
        .await;
        assert_eq!(server.command(&["ZCARD", "sw:{o1}:u42:rm"]).trim(), "1");
    });
}

#[test]
fn a_url_without_sense_is_an_error() {
    local(async {
        let options = Options { redis_url: Some("http//nonsense".into()), ..options() };
        let error = Limiter::open(Shared::new(options, None)).await.err().expect("error");
        assert!(error.to_string().starts_with("REDIS_URL is wrong"), "{error}");
    });
}

#[test]
fn what_was_handed_in_is_settled_before_the_end() {
    local(async {
        let server = RedisServer::start();
        let book = Arc::default();
        let worker = Worker::start(with_redis(&server), &book).await;
        let counters = [usd(DAY, 10_000, now())];
        let requests = join_all((0..500).map(|_| worker.reserve(&counters))).await;
        for (request, _) in requests {
            worker.settle(request, &counters, 3);
        }
        worker.stop().await;
        let fresh = Worker::start(with_redis(&server), &book).await;
        assert_eq!(fresh.counted(&counters).await, 1_500);
    });
}
