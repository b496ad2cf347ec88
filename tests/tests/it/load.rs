//! Callers that never stop asking, for tests that break things meanwhile: half of them stream, every answer is
//! looked at, every completed one is remembered by the id of its record.

use crate::answers::{Dialect, read};
use crate::scene::CLAUDE;
use anyhow::{Result, bail};
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use testkit::client::{http, http_without_pool, question};
use testkit::fleet::Fleet;
use tokio::task::JoinSet;

/// How long one request may find nobody who listens before it counts as failed.
const NOBODY: Duration = Duration::from_secs(30);
/// How often the balancer looks at who is ready.
const LOOK: Duration = Duration::from_millis(20);

/// The load.
pub struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    /// URL and whether it is ready, as a balancer sees it.
    proxies: Vec<(String, String, AtomicBool)>,
    key: String,
    stop: AtomicBool,
    done: Mutex<Done>,
    next: AtomicU64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Ids of the records of completed answers.
    pub completed: BTreeSet<String>,
    /// Requests that failed in any way: a status, a broken body, a stream without its end.
    pub failed: Vec<String>,
}

impl Load {
    /// Starts `workers` callers with `key` at all proxies that say they are ready.
    pub fn start(fleet: &Fleet, key: &str, workers: usize) -> Self {
        let proxies = fleet.proxies.iter().map(|proxy| (proxy.url(), proxy.ops_url(), AtomicBool::new(true)));
        let shared = Arc::new(Shared {
            proxies: proxies.collect(),
            key: key.to_owned(),
            stop: AtomicBool::new(false),
            done: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let mut set = JoinSet::new();
        set.spawn(balance(Arc::clone(&shared)));
        for at in 0..workers {
            set.spawn(work(Arc::clone(&shared), at % 2 == 0));
        }
        Self { shared, workers: set }
    }

    /// Waits until that many more requests have been completed.
    pub async fn passes(&self, more: usize) -> Result<()> {
        let goal = self.shared.done().completed.len() + more;
        let waited = testkit::eventually(NOBODY, || async { self.shared.done().completed.len() >= goal });
        if waited.await.is_err() {
            let done = self.shared.done().clone();
            bail!("the load stands still: {} completed, failed: {:?}", done.completed.len(), done.failed);
        }
        Ok(())
    }

    /// Lets every caller finish its request; what came of all.
    pub async fn stop(mut self) -> Done {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.workers.join_next().await.is_some() {}
        self.shared.done().clone()
    }
}

impl Shared {
    fn done(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The next ready proxy in turn, else any.
    fn target(&self) -> &str {
        let count = self.proxies.len();
        let turn = usize::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap_or_default();
        let mut places = (0..count).map(|step| &self.proxies[(turn + step) % count]);
        let ready = places.find(|(_, _, ready)| ready.load(Ordering::Relaxed));
        &ready.unwrap_or(&self.proxies[turn % count]).0
    }
}

/// What a load balancer does: asks each proxy whether it is ready.
async fn balance(shared: Arc<Shared>) {
    let http = http();
    while !shared.stopped() {
        for (_, ops, ready) in &shared.proxies {
            let answer = http.get(format!("{ops}/readyz")).send().await;
            ready.store(answer.is_ok_and(|answer| answer.status().is_success()), Ordering::Relaxed);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn work(shared: Arc<Shared>, stream: bool) {
    let http = http_without_pool();
    while !shared.stopped() {
        let outcome = one(&shared, &http, stream).await;
        let mut done = shared.done();
        match outcome {
            Ok(id) => {
                if !done.completed.insert(id.clone()) {
                    done.failed.push(format!("two answers with the record {id}"));
                }
            }
            Err(error) => done.failed.push(format!("{error:#}")),
        }
    }
}

/// One request; only a refused connection is tried again, elsewhere.
async fn one(shared: &Shared, http: &reqwest::Client, stream: bool) -> Result<String> {
    let begin = std::time::Instant::now();
    let answer = loop {
        let request = http.post(format!("{}/v1/messages", shared.target())).header("x-api-key", &shared.key);
        match request.json(&question(CLAUDE, stream)).send().await {
            Ok(answer) => break answer,
            Err(error) if error.is_connect() && begin.elapsed() < NOBODY => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(error.into()),
        }
    };
    let answer = read(answer).await;
    let whole = !answer.broken && (!stream || answer.is_whole(Dialect::Messages));
    if answer.status != 200 || !whole {
        bail!("status {}, whole: {whole}: {}", answer.status, answer.text);
    }
    answer.request_id.ok_or_else(|| anyhow::anyhow!("an answer without the id of its record"))
}

/// Waits until every completed answer has its record, and no record is there twice in rows or sums.
pub async fn every_answer_once(fleet: &Fleet, done: &Done) -> Result<()> {
    let mut missing = done.completed.clone();
    let waited = testkit::eventually(Duration::from_secs(40), || {
        let rows = fleet.sql("SELECT id FROM usage_records").unwrap_or_default();
        let ids: HashSet<&str> = rows.lines().collect();
        missing.retain(|id| !ids.contains(id.as_str()));
        std::future::ready(missing.is_empty())
    });
    if waited.await.is_err() {
        bail!("{} of {} answers have no record\n{}", missing.len(), done.completed.len(), fleet.logs());
    }
    let rows = fleet.sql("SELECT count(*) || ' ' || count(DISTINCT id) FROM usage_records")?;
    let (all, distinct) = rows.split_once(' ').unwrap_or_default();
    let sums = fleet.sql("SELECT coalesce(sum(requests), 0) FROM usage_hourly")?;
    if all != distinct || all != sums {
        bail!("{all} rows, {distinct} of them distinct, {sums} in the hourly sums");
    }
    Ok(())
}
