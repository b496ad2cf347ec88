//! The gRPC side of ingest. A batch that cannot be committed now is UNAVAILABLE, and the proxy keeps it.

use super::writer::{Written, write};
use crate::config;
use crate::db::{Error, Pool, ledger, proxies};
use crate::tasks::Tasks;
use crate::telemetry::metric;
use bigdecimal::BigDecimal;
use chrono::{DateTime, TimeDelta, Utc};
use contract::ids::{KeyId, ProviderId, UserId};
use contract::money::NanoUsd;
use contract::pb;
use contract::pb::usage_ingest_server::UsageIngest;
use contract::table::Scope;
use rust_decimal::Decimal;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};

/// Windows that a proxy may ask of one request.
const MAX_QUERIES: usize = 1_000;
/// A connected proxy's row is renewed three times within this.
const FRESH: TimeDelta = TimeDelta::seconds(90);
/// How far back sums by bucket go: the longest rolling window, and an hour.
const MAX_BUCKETED: TimeDelta = TimeDelta::hours(25);
/// Clocks of proxies are taken to differ by no more.
const CLOCKS_MS: i64 = 5_000;
/// A connected proxy that has reported nothing for so long holds the comparison of counters up.
const LATE_MS: i64 = 600_000;
/// That is said once in so long.
const SAY_EVERY_MS: i64 = 60_000;

/// Usage ingest.
#[derive(Clone)]
pub struct Ingest {
    pool: Pool,
    settings: config::Ingest,
    turns: Arc<Semaphore>,
    /// Of questions: they are slow, and no batch waits for them.
    spent_turns: Arc<Semaphore>,
    /// When it was said last which proxy holds the comparison up, Unix milliseconds.
    said_ms: Arc<AtomicI64>,
    tasks: Tasks,
}

impl Ingest {
    /// Writes through `pool`, a bounded number of batches at a time.
    pub fn new(pool: Pool, settings: config::Ingest, tasks: Tasks) -> Self {
        let turns = Arc::new(Semaphore::new(settings.concurrency));
        let spent_turns = Arc::new(Semaphore::new(settings.spent_concurrency));
        Self { pool, settings, turns, spent_turns, said_ms: Arc::default(), tasks }
    }

    /// Answers in its turn, as long as the caller waits and its time is not over.
    async fn question<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Status> {
        let in_turn = async {
            let turn = self.spent_turns.acquire().await;
            let _turn = turn.map_err(|_| Status::unavailable("this replica is shutting down"))?;
            work.await.map_err(|error| {
                tracing::warn!(error = &error as &dyn std::error::Error, "the ledger could not be asked");
                Status::unavailable("the ledger cannot be read now")
            })
        };
        let done = timeout(self.settings.timeout, in_turn).await;
        done.map_err(|_| Status::unavailable("the ledger is busy"))?
    }

    /// No counter of the fleet is compared with what ended since a connected proxy has reported last.
    fn watch(&self, reported: &proxies::Reported) {
        let Some(proxy_id) = &reported.last else { return };
        let now_ms = Utc::now().timestamp_millis();
        let behind_ms = reported.connected_ms.map_or(i64::MAX, |at| now_ms - at);
        let is_late = behind_ms > LATE_MS;
        metrics::gauge!(metric::COMPARISON_HELD_UP).set(f64::from(u8::from(is_late)));
        let said_ms = self.said_ms.load(Ordering::Relaxed);
        let is_time = now_ms - said_ms > SAY_EVERY_MS
            && self.said_ms.compare_exchange(said_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_late && is_time {
            let reported = reported.connected_ms.and_then(DateTime::from_timestamp_millis);
            tracing::warn!(
                proxy_id,
                ?reported,
                "counters are not compared with the ledger: this proxy has records that it does not deliver"
            );
        }
    }

    /// Runs `work` in its turn and to its end, even if the caller hangs up or its time is over.
    async fn in_turn<T, F>(&self, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let late = |_| Status::unavailable("the ledger is busy");
        let limit = self.settings.timeout;
        let turn = timeout(limit, Arc::clone(&self.turns).acquire_owned()).await.map_err(late)?;
        let turn = turn.map_err(|_| Status::unavailable("this replica is shutting down"))?;
        let done = self.tasks.spawn("ingest", async move {
            let result = work.await;
            drop(turn);
            result
        });
        match timeout(limit, done).await.map_err(late)? {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                metrics::counter!(metric::INGEST_ERRORS).increment(1);
                tracing::warn!(error = &error as &dyn std::error::Error, "the ledger did not take a request");
                Err(Status::unavailable("the ledger cannot be written now"))
            }
            Err(_) => Err(Status::internal("the ledger's task failed")),
        }
    }
}

#[tonic::async_trait]
impl UsageIngest for Ingest {
    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportReply>, Status> {
        let pb::ReportRequest { proxy_id, records } = request.into_inner();
        if records.len() > self.settings.max_records {
            let most = self.settings.max_records;
            return Err(Status::invalid_argument(format!("records: at most {most} in one request")));
        }
        let started = Instant::now();
        let pool = self.pool.clone();
        let written: Written =
            self.in_turn(async move { write(&mut *pool.write().await?, records).await }).await?;
        let count = |result: &'static str, count: usize| {
            metrics::counter!(metric::INGESTED, "result" => result).increment(count as u64);
        };
        count("inserted", written.inserted);
        count("known", written.known);
        count("refused", written.refused.len());
        metrics::histogram!(metric::INGEST_SECONDS).record(started.elapsed().as_secs_f64());
        if let Some(first) = written.refused.first() {
            tracing::error!(
                proxy_id,
                count = written.refused.len(),
                reason = first.reason,
                "usage records can never be stored; they are kept in usage_dead_letters"
            );
        }
        let inserted = u32::try_from(written.inserted).unwrap_or(u32::MAX);
        Ok(Response::new(pb::ReportReply { inserted, refused: written.refused }))
    }

    async fn spent(&self, request: Request<pb::SpentRequest>) -> Result<Response<pb::SpentReply>, Status> {
        let wire = request.into_inner().queries;
        if wire.len() > MAX_QUERIES {
            return Err(Status::invalid_argument(format!("queries: at most {MAX_QUERIES} in one request")));
        }
        let queries = wire
            .iter()
            .enumerate()
            .map(|(at, query)| Query::read(at, query))
            .collect::<Result<Vec<_>, _>>()?;
        let answers = self.question(async {
            let mut conn = self.pool.read().await?;
            // First: what is reported meanwhile may be in the sums or not.
            let reported = proxies::reported(&mut conn, Utc::now() - FRESH).await?;
            self.watch(&reported);
            let earlier = |at: i64| at - CLOCKS_MS;
            let (connected, all) = (reported.connected_ms.map(earlier), reported.all_ms.map(earlier));
            let mut answers = Vec::with_capacity(queries.len());
            for query in &queries {
                answers.push(query.answer(&mut conn, connected).await?);
            }
            Ok((answers, connected, all))
        });
        let (answers, connected, all) = answers.await?;
        let (complete_ms, all_complete_ms) = (connected.unwrap_or(0), all.unwrap_or(0));
        Ok(Response::new(pb::SpentReply { answers, complete_ms, all_complete_ms, settled: true }))
    }
}

struct Query {
    scope: Scope,
    since: DateTime<Utc>,
    bucket_ms: i64,
    by_end: bool,
    settled: bool,
}

impl Query {
    fn read(at: usize, wire: &pb::SpentQuery) -> Result<Self, Status> {
        let wrong = |field: &str| Status::invalid_argument(format!("queries[{at}].{field}: out of bounds"));
        let scope = match wire.scope() {
            pb::Scope::Key => Scope::Key(KeyId(wire.id)),
            pb::Scope::User => Scope::User(UserId(wire.id)),
            pb::Scope::Provider => Scope::Provider(ProviderId(wire.id)),
            pb::Scope::Unspecified => return Err(wrong("scope")),
        };
        let since = DateTime::from_timestamp_millis(wire.since_ms.max(0)).ok_or_else(|| wrong("since_ms"))?;
        if wire.bucket_ms < 0 {
            return Err(wrong("bucket_ms"));
        }
        let (by_end, settled) = (wire.by_end, wire.settled);
        Ok(Self { scope, since, bucket_ms: wire.bucket_ms, by_end, settled })
    }

    /// `complete_ms`: all records of requests that ended before are there.
    async fn answer(
        &self,
        conn: &mut crate::db::Conn,
        complete_ms: Option<i64>,
    ) -> Result<pb::SpentAnswer, Error> {
        let complete = complete_ms.and_then(DateTime::from_timestamp_millis);
        if self.settled && complete.is_none() {
            return Ok(pb::SpentAnswer::default());
        }
        let until = complete.filter(|_| self.settled);
        let recent = self.since.max(Utc::now() - MAX_BUCKETED);
        let spent = match self.bucket_ms {
            0 if self.by_end => vec![ledger::spent_ended(conn, self.scope, recent, until).await?],
            0 => vec![ledger::spent_since(conn, self.scope, self.since, until).await?],
            bucket => ledger::spent_by_bucket(conn, self.scope, (recent, until), bucket).await?,
        };
        let buckets = spent
            .iter()
            .map(|spent| pb::SpentBucket { start_ms: spent.start_ms, nano_usd: nano(&spent.cost) });
        Ok(pb::SpentAnswer { buckets: buckets.collect() })
    }
}

/// A sum that no counter can hold counts as the most that it can: money limits fail closed.
fn nano(cost: &BigDecimal) -> i64 {
    let usd = cost.round(15).to_plain_string().parse::<Decimal>();
    usd.map_or(i64::MAX, |usd| NanoUsd::from_usd(usd).0)
}
