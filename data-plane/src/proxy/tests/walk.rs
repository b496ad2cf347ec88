//! A proxy, its table and its upstreams in this process. Made from rows, changed while it runs, stopped or killed and
//! started again over what lies on its disk.

use super::call::{Answer, Call};
use super::caller::{Mortal, make};
use super::folder::Folder;
use super::host::Host;
use super::ledger::Ledger;
use crate::app::Common;
use crate::clock;
use crate::config::Config;
use crate::probe::{Parts, Prober};
use crate::proxy::{Proxy, Shared, interrupted};
use crate::store::Limiter;
use crate::table::{Builder, Change, RawSection, fixtures};
use crate::tasks;
use crate::telemetry::metrics::Metrics;
use crate::upstream::memory::Network;
use crate::upstream::{Client, Settings};
use contract::ids::{KeyId, ProviderId, UserId};
use contract::pb;
use contract::table::{Health, Limit, Measure, ModelPrice, Provider, Rows, Scope};
use contract::usage::UsageRecord;
use contract::window::Window;
use prost::Message;
use rust_decimal::Decimal;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::task::{JoinHandle, LocalSet};

/// When a test begins: a Saturday morning.
pub const START_MS: i64 = 1_795_856_400_000;
/// No test is as long as this, not even in paused time: what takes longer waits for nothing.
const FOR_EVER: Duration = Duration::from_secs(7 * 24 * 3600);

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| Metrics::install().0);

/// Runs a test in paused time, with wall clock and `LocalSet`.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    LocalSet::new().block_on(&runtime, async {
        clock::testing::set(START_MS);
        tokio::time::timeout(FOR_EVER, test).await.unwrap()
    })
}

/// See the module.
pub struct Walk {
    folder: Folder,
    settings: Vec<(&'static str, String)>,
    pub rows: Rows,
    builder: Builder,
    generation: i64,
    network: Network,
    hosts: BTreeMap<i64, Host>,
    pub ledger: Arc<Ledger>,
    running: Option<Running>,
}

struct Running {
    proxy: Rc<Proxy>,
    shared: Arc<Shared>,
    upstream: Settings,
    settler: JoinHandle<()>,
    /// Set by a kill: what is under way vanishes without an end of its own.
    killed: Rc<Cell<bool>>,
    calls: RefCell<Vec<tokio::task::AbortHandle>>,
}

impl Walk {
    /// Key 1 of user 1, no provider, and a price for the model "m": a dollar per thousand tokens of input, two of output.
    pub fn new() -> Self {
        let mut rows = Rows { users: vec![fixtures::user(1, "ann")], ..Rows::default() };
        rows.keys.push(fixtures::key(1));
        rows.prices.push(price("m", 1, 2));
        Self {
            folder: Folder::new(),
            settings: vec![("CONTROL_TOKEN", "t".to_owned()), ("SECRETS_KEY", "0f".repeat(32))],
            rows,
            builder: Builder::new(fixtures::sealer()),
            generation: 0,
            network: Network::default(),
            hosts: BTreeMap::new(),
            ledger: Arc::default(),
            running: None,
        }
    }

    /// Another value for a variable of the configuration.
    #[must_use]
    pub fn setting(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.retain(|(have, _)| *have != name);
        self.settings.push((name, value.to_string()));
        self
    }

    /// Providers of these ids, each with a host of its own, after `change`.
    #[must_use]
    pub fn providers(
        mut self,
        ids: impl IntoIterator<Item = i64>,
        change: impl Fn(i64, &mut Provider),
    ) -> Self {
        for id in ids {
            let mut row = Provider { base_url: format!("http://p{id}"), ..fixtures::provider(id) };
            change(id, &mut row);
            self.rows.providers.push(row);
        }
        self
    }

    /// Changes the rows before the start.
    #[must_use]
    pub fn rows(mut self, change: impl FnOnce(&mut Rows)) -> Self {
        change(&mut self.rows);
        self
    }

    /// Starts the proxy; a host listens for every provider.
    pub async fn start(mut self) -> Self {
        for row in &self.rows.providers {
            let name = format!("p{}", row.id.0);
            self.hosts.entry(row.id.0).or_insert_with(|| Host::open(&self.network, &name));
        }
        self.boot().await;
        self
    }

    async fn boot(&mut self) {
        let mut pairs = self.settings.clone();
        pairs.push(("DATA_DIR", self.folder.path().display().to_string()));
        // Thousands of proxies are started; each would make a file of 16 MiB.
        pairs.push(("SPOOL_SLOTS", "64".to_owned()));
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let config = Arc::new(Config::from_pairs(&pairs).unwrap());
        let ledger: Arc<dyn crate::store::Ledger> = Arc::clone(&self.ledger) as _;
        let common = Common::new(&config, &METRICS, ledger).unwrap();
        let (limiter, settler) = Limiter::open(Arc::clone(&common.limits)).await.unwrap();
        let (settled, settling) = tokio::sync::oneshot::channel::<()>();
        tasks::spawn_local("settler", async move {
            settler.run().await;
            drop(settled);
        });
        let settler = tokio::task::spawn_local(async { drop(settling.await) });
        let client = Client::within(self.network.clone(), common.upstream.clone());
        let proxy = Proxy::new(Arc::clone(&common.proxy), limiter, client);
        let (killed, calls) = (Rc::default(), RefCell::default());
        self.running =
            Some(Running { proxy, shared: common.proxy, upstream: common.upstream, settler, killed, calls });
        self.publish();
        interrupted::record_left(self.shared());
    }

    /// Puts the rows as they are now into force.
    pub fn publish(&mut self) {
        self.generation += 1;
        let section = RawSection::of("all", &self.rows);
        let applied = self.builder.apply(Change::whole(self.generation, vec![section])).unwrap();
        assert_eq!(applied.rejected, []);
        let shared = self.shared();
        shared.table.store(applied.snapshot);
        shared.health.follow(&shared.table.load());
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// What the proxy's threads share.
    pub fn shared(&self) -> &Shared {
        &self.running().shared
    }

    /// The upstream of provider `id`.
    pub fn host(&self, id: i64) -> &Host {
        &self.hosts[&id]
    }

    /// What the ledger knows of user `id`, in nano-USD.
    pub fn spent_by(&self, id: i64) -> i64 {
        self.ledger.sum(Scope::User(UserId(id)), 0)
    }

    /// How provider `id` is.
    pub fn health(&self, id: i64) -> Health {
        self.shared().health.row(ProviderId(id))
    }

    /// Ends the proxy in good order, waits for its calls, and starts it again.
    pub async fn restart(&mut self) {
        let running = self.running.take().unwrap();
        drop(running.proxy);
        drop(running.shared);
        running.settler.await.unwrap();
        self.boot().await;
    }

    /// Ends the proxy as `kill -9` does, and starts another over what lay on its disk.
    pub async fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.killed.set(true);
        running.calls.borrow().iter().for_each(tokio::task::AbortHandle::abort);
        let fresh = Folder::new();
        self.folder.copy(&fresh);
        // Its files stay open in this process, and locked.
        std::mem::forget(running.shared);
        std::mem::forget(running.proxy);
        self.folder = fresh;
        self.boot().await;
    }

    /// Makes a call and reads the answer for as long as the caller wants.
    pub async fn send(&self, call: Call) -> Answer {
        self.begin(call).await.unwrap()
    }

    /// A call with key 1.
    pub async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.send(Call::post(path, body.to_string())).await
    }

    /// Makes a call while others run.
    pub fn begin(&self, call: Call) -> JoinHandle<Answer> {
        let running = self.running();
        let future = make(Rc::clone(&running.proxy), call);
        let handle = tokio::task::spawn_local(Mortal::new(future, &running.killed));
        let mut calls = running.calls.borrow_mut();
        calls.retain(|call| !call.is_finished());
        calls.push(handle.abort_handle());
        handle
    }

    /// Waits until nothing is left to do but to wait: settlements are done, connections at rest.
    pub async fn quiet(&self) {
        // Paused time goes on only when no task can.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Lets the gateway ask providers by itself, until it is aborted.
    pub fn probe(&self) -> JoinHandle<()> {
        let (shared, proxy) = (self.shared(), &self.running().proxy);
        let parts = Parts {
            config: Arc::clone(&shared.config),
            table: shared.table.clone(),
            health: shared.health.clone(),
            spool: shared.spool.clone(),
            metrics: Arc::clone(&shared.metrics),
        };
        let client = Client::within(self.network.clone(), self.running().upstream.clone());
        tokio::task::spawn_local(Prober::new(parts, proxy.limiter.clone(), client).run())
    }

    /// Reports what the spool holds to the ledger and returns it.
    pub async fn records(&self) -> Vec<UsageRecord> {
        self.quiet().await;
        let spool = &self.shared().spool;
        let mut all = Vec::new();
        loop {
            let batch = spool.next_batch(10_000, Duration::ZERO).await;
            if batch.records.is_empty() {
                break;
            }
            for bytes in batch.records {
                let wire = pb::UsageRecord::decode(bytes).unwrap();
                all.push(UsageRecord::try_from(wire).unwrap());
            }
            spool.acknowledge(batch.position);
        }
        self.ledger.ingest(&all);
        all
    }
}

/// A price per token in milli-USD, so that sums stay readable.
pub fn price(model: &str, input: i64, output: i64) -> ModelPrice {
    let milli = |amount| Some(Decimal::new(amount, 3));
    let price = contract::money::Price { input: milli(input), output: milli(output), ..Default::default() };
    ModelPrice { model: model.to_owned(), price }
}

/// So many requests a minute.
pub fn rpm(amount: i64) -> Limit {
    Limit {
        measure: Measure::Requests,
        window: Window::Minute,
        amount,
        since_ms: None,
        absent_until_ms: None,
    }
}

/// A limit of so many milli-USD, ever.
pub fn usd(milli: i64) -> Limit {
    Limit {
        measure: Measure::Usd,
        window: Window::Total,
        amount: milli * 1_000_000,
        since_ms: None,
        absent_until_ms: None,
    }
}

/// Key `id` of user `user`.
pub fn key(id: i64, user: i64) -> contract::table::Key {
    contract::table::Key { id: KeyId(id), user_id: UserId(user), ..fixtures::key(id) }
}
