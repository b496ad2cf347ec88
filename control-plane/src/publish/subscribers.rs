//! Who is connected to this replica and what each proxy acts on. Exact in memory; written to the table
//! `proxies` a few times a second at most, so that every replica can show the whole fleet.

use crate::compile::VERSION_LEN;
use crate::db::generation::{REMEMBERED, raise_counter_naming};
use crate::db::proxies::ProxyRow;
use crate::db::{Error, Pool, proxies};
use crate::telemetry::metric;
use chrono::{DateTime, Utc};
use contract::ids::Generation;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How often what changed is written.
const FLUSH: Duration = Duration::from_millis(200);
/// How long the last write waits for the streams to end, so that nobody stays connected to what is gone.
const LEAVE: Duration = Duration::from_secs(2);
/// How often it is looked whether every proxy knows the newest naming of counters.
const RAISE: Duration = Duration::from_secs(5);
/// How often a connected proxy's row is renewed; a row that missed three of these counts as disconnected.
const RENEW: Duration = Duration::from_secs(30);

/// A section that a proxy refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Its name.
    pub section: String,
    /// The field and what is wrong with it.
    pub reason: String,
}

/// One proxy of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyState {
    /// Stable over restarts on the same volume.
    pub proxy_id: String,
    /// New with every start.
    pub boot_id: String,
    /// Of the software.
    pub version: String,
    /// Where callers reach it.
    pub address: String,
    /// The generation that it acts on.
    pub generation: i64,
    /// Sections that it refused; the ones before them stay in use.
    pub rejected: Vec<Rejection>,
    /// Whether its stream is open.
    pub connected: bool,
    /// When the stream began.
    pub connected_at: DateTime<Utc>,
    /// When it was last heard of.
    pub last_seen_at: DateTime<Utc>,
    /// The newest naming of counters that it knows.
    #[serde(skip)]
    pub counter_naming: u32,
    /// All records of its requests that ended before this instant (Unix ms) are in the ledger, as far as it said.
    #[serde(skip)]
    pub reported_ms: Option<i64>,
}

struct Entry {
    state: ProxyState,
    /// Which stream speaks for it: an old one may end after its successor began.
    stream: u64,
    is_dirty: bool,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    streams: u64,
    open: usize,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<()>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("open", &self.lock().open).finish()
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self { inner: Arc::default(), changed: watch::Sender::new(()) }
    }
}

/// An open stream's place in the registry; dropping it says that the stream ended.
pub(super) struct Seat {
    fleet: Fleet,
    proxy_id: String,
    stream: u64,
}

impl Fleet {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is a plain assignment, so a panicked holder left it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The proxies that this replica knows of, in order of id.
    pub fn snapshot(&self) -> Vec<ProxyState> {
        self.lock().entries.values().map(|entry| entry.state.clone()).collect()
    }

    /// The whole fleet: this replica's own proxies as they are now, the others as their replica wrote them.
    pub fn with_stored(&self, stored: Vec<ProxyRow>) -> Vec<ProxyState> {
        let mut all: BTreeMap<String, ProxyState> =
            stored.into_iter().map(ProxyState::from).map(|state| (state.proxy_id.clone(), state)).collect();
        for own in self.snapshot() {
            let is_newer = all.get(&own.proxy_id).is_none_or(|row| row.last_seen_at <= own.last_seen_at);
            if own.connected || is_newer {
                all.insert(own.proxy_id.clone(), own);
            }
        }
        all.into_values().collect()
    }

    /// Waits until every connected proxy of this replica acts on `generation`. False if the time is up first,
    /// true if none is connected.
    pub async fn wait_for(&self, generation: Generation, limit: Duration) -> bool {
        let mut changed = self.changed.subscribe();
        let is_there = || {
            let inner = self.lock();
            let mut open = inner.entries.values().filter(|entry| entry.state.connected);
            open.all(|entry| entry.state.generation >= generation.0)
        };
        // `self` keeps the sender alive, so the wait ends by the condition or by time.
        timeout(limit, changed.wait_for(|()| is_there())).await.is_ok()
    }

    /// Streams open now.
    pub fn open(&self) -> usize {
        self.lock().open
    }

    pub(super) fn join(&self, hello: &contract::pb::Hello) -> Seat {
        let now = Utc::now();
        let mut inner = self.lock();
        inner.streams += 1;
        inner.open += 1;
        let stream = inner.streams;
        let state = ProxyState {
            proxy_id: hello.proxy_id.clone(),
            boot_id: hello.boot_id.clone(),
            version: hello.version.clone(),
            address: hello.address.clone(),
            generation: hello.generation,
            rejected: Vec::new(),
            connected: true,
            connected_at: now,
            last_seen_at: now,
            counter_naming: hello.counter_naming,
            reported_ms: None,
        };
        let entry = Entry { state, stream, is_dirty: true };
        let before = inner.entries.insert(hello.proxy_id.clone(), entry).map(|entry| entry.state);
        if let Some(before) = before.filter(|other| other.connected && other.boot_id != hello.boot_id) {
            // Rarely it is the same one, back before the end of its old connection was noticed.
            tracing::warn!(
                proxy_id = hello.proxy_id,
                addresses = format!("{} and {}", before.address, hello.address),
                "two proxies have one PROXY_ID: the fleet shows only the newer one; give each its own"
            );
        }
        metrics::gauge!(metric::SUBSCRIBERS).set(inner.open as f64);
        drop(inner);
        self.changed.send_replace(());
        Seat { fleet: self.clone(), proxy_id: hello.proxy_id.clone(), stream }
    }

    fn dirty(&self, renew_before: DateTime<Utc>) -> Vec<ProxyState> {
        let now = Utc::now();
        let mut inner = self.lock();
        let mut dirty = Vec::new();
        for entry in inner.entries.values_mut() {
            if entry.state.connected && entry.state.last_seen_at < renew_before {
                entry.state.last_seen_at = now;
                entry.is_dirty = true;
            }
            if std::mem::take(&mut entry.is_dirty) {
                dirty.push(entry.state.clone());
            }
        }
        dirty
    }

    fn mark(&self, states: &[ProxyState]) {
        let mut inner = self.lock();
        for state in states {
            if let Some(entry) = inner.entries.get_mut(&state.proxy_id) {
                entry.is_dirty = true;
            }
        }
    }

    fn forget_before(&self, instant: DateTime<Utc>) {
        self.lock().entries.retain(|_, entry| entry.state.connected || entry.state.last_seen_at >= instant);
    }

    /// Writes what changed, until `shutdown`, and then once more.
    pub async fn persist(self, pool: Pool, forget: Duration, shutdown: CancellationToken) {
        let (mut is_newest, started) = (false, Instant::now());
        let mut looked = started;
        let remembered = REMEMBERED.to_std().unwrap_or_default();
        loop {
            let is_last = shutdown.run_until_cancelled(sleep(FLUSH)).await.is_none();
            if is_last {
                let mut changed = self.changed.subscribe();
                // Out of patience, those that are still here are written as they are.
                let _ = timeout(LEAVE, changed.wait_for(|()| self.open() == 0)).await;
            }
            let now = Utc::now();
            let states = self.dirty(now - RENEW);
            if !states.is_empty()
                && let Err(error) = store(&pool, &states).await
            {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot write the fleet");
                self.mark(&states);
                shutdown.run_until_cancelled(sleep(FLUSH * 10)).await;
            }
            self.forget_before(now - forget);
            if is_last {
                return;
            }
            // Not before those that were connected to another start had the time to come back.
            if !is_newest && started.elapsed() >= remembered && looked.elapsed() >= RAISE {
                looked = Instant::now();
                // Postgres in trouble: looked again later.
                is_newest = raise(&pool).await.unwrap_or(false);
            }
        }
    }
}

/// Raises the naming of counters if every proxy knows the newest; whether it is.
async fn raise(pool: &Pool) -> Result<bool, Error> {
    raise_counter_naming(&mut *pool.write().await?, Utc::now() - REMEMBERED).await
}

async fn store(pool: &Pool, states: &[ProxyState]) -> Result<(), Error> {
    let rows: Vec<ProxyRow> = states.iter().map(ProxyRow::from).collect();
    proxies::upsert(&mut *pool.write().await?, &rows).await
}

impl Seat {
    fn change(&self, change: impl FnOnce(&mut ProxyState)) {
        let mut inner = self.fleet.lock();
        if let Some(entry) = inner.entries.get_mut(&self.proxy_id).filter(|entry| entry.stream == self.stream)
        {
            change(&mut entry.state);
            entry.state.last_seen_at = Utc::now();
            entry.is_dirty = true;
        }
        drop(inner);
        self.fleet.changed.send_replace(());
    }

    /// What it has reported, see [`ProxyState::reported_ms`].
    pub(super) fn reported(&self, until_ms: i64) {
        self.change(|state| state.reported_ms = Some(until_ms));
    }

    /// The proxy acts on `generation` but for the sections that it refused.
    pub(super) fn acked(&self, generation: i64, rejected: Vec<Rejection>) {
        self.change(|state| {
            state.generation = generation;
            state.rejected = rejected;
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.change(|state| state.connected = false);
        let mut inner = self.fleet.lock();
        inner.open -= 1;
        metrics::gauge!(metric::SUBSCRIBERS).set(inner.open as f64);
    }
}

impl From<&ProxyState> for ProxyRow {
    fn from(state: &ProxyState) -> Self {
        Self {
            proxy_id: state.proxy_id.clone(),
            boot_id: state.boot_id.clone(),
            version: state.version.clone(),
            address: state.address.clone(),
            generation: state.generation,
            rejected: serde_json::to_value(&state.rejected).unwrap_or_default(),
            connected: state.connected,
            connected_at: state.connected_at,
            last_seen_at: state.last_seen_at,
            counter_naming: i16::try_from(state.counter_naming.max(1)).unwrap_or(i16::MAX),
            reported_ms: state.reported_ms,
        }
    }
}

impl From<ProxyRow> for ProxyState {
    fn from(row: ProxyRow) -> Self {
        // A replica that died could not write that its proxies left it.
        let is_fresh = row.last_seen_at > Utc::now() - RENEW * 3;
        Self {
            proxy_id: row.proxy_id,
            boot_id: row.boot_id,
            version: row.version,
            address: row.address,
            generation: row.generation,
            rejected: serde_json::from_value(row.rejected).unwrap_or_default(),
            connected: row.connected && is_fresh,
            connected_at: row.connected_at,
            last_seen_at: row.last_seen_at,
            counter_naming: u32::try_from(row.counter_naming).unwrap_or_default(),
            reported_ms: row.reported_ms,
        }
    }
}

/// The versions of the sections that a proxy holds, by name.
#[derive(Default)]
pub(super) struct Held(pub(super) BTreeMap<Arc<str>, [u8; VERSION_LEN]>);

impl Held {
    /// Sections without a well-formed version are as good as not held.
    pub(super) fn of(hello: &contract::pb::Hello) -> Self {
        let known = |section: &contract::pb::SectionVersion| {
            let version = section.version.as_ref().try_into().unwrap_or_default();
            (Arc::from(section.name.as_str()), version)
        };
        Self(hello.held.iter().map(known).collect())
    }

    /// What is to be sent so that the proxy holds `sections`: names to send, names to remove. Counts as held
    /// from then on; a section that the proxy refuses is not sent again until it changes.
    pub(super) fn advance(&mut self, sections: &crate::compile::Sections) -> (Vec<Arc<str>>, Vec<String>) {
        let differs = |name: &Arc<str>, version: &[u8; VERSION_LEN]| self.0.get(name) != Some(version);
        let send: Vec<Arc<str>> = sections
            .iter()
            .filter(|(name, section)| differs(name, &section.version))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        let gone: BTreeSet<Arc<str>> =
            self.0.keys().filter(|name| !sections.contains_key(*name)).cloned().collect();
        self.0 = sections.iter().map(|(name, section)| (Arc::clone(name), section.version)).collect();
        (send, gone.iter().map(|name| name.to_string()).collect())
    }
}
