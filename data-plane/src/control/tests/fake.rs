//! A control plane played by the test: real gRPC on a real socket, every message by hand.

use crate::config::Config;
use crate::control::{Link, Timing, Watch, Watching};
use crate::health::Book;
use crate::table::{RawSection, Snapshot, Table, fixtures};
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use contract::pb;
use contract::pb::config_discovery_server::{ConfigDiscovery, ConfigDiscoveryServer};
use contract::pb::from_control::Message as Down;
use contract::pb::from_proxy::Message as Up;
use contract::pb::usage_ingest_server::{UsageIngest, UsageIngestServer};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Longest that anything in these tests may take; a failure, never a pause.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes with the test.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("switchyard-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).expect("directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// One subscription, seen from the control plane.
pub struct Peer {
    pub authorization: String,
    from: Streaming<pb::FromProxy>,
    to: mpsc::Sender<Result<pb::FromControl, Status>>,
    held: BTreeMap<String, Bytes>,
}

impl Peer {
    async fn next(&mut self) -> Option<Up> {
        loop {
            let message = soon("a message", self.from.message()).await.ok().flatten()?.message;
            // What is open comes once a second, between everything else.
            if !matches!(message, Some(Up::Live(_))) {
                return message;
            }
        }
    }

    pub async fn hello(&mut self) -> pb::Hello {
        let Some(Up::Hello(hello)) = self.next().await else { panic!("no hello") };
        self.held = hello.held.iter().map(|held| (held.name.clone(), held.version.clone())).collect();
        hello
    }

    pub async fn ack(&mut self) -> pb::Ack {
        loop {
            match self.next().await {
                Some(Up::Ack(ack)) => return ack,
                Some(Up::Health(_)) => {}
                other => panic!("no ack: {other:?}"),
            }
        }
    }

    pub async fn health(&mut self) -> Vec<pb::Health> {
        loop {
            match self.next().await {
                Some(Up::Health(report)) => return report.transitions,
                Some(Up::Ack(_)) => {}
                other => panic!("no health: {other:?}"),
            }
        }
    }

    /// Whether the proxy ended the stream.
    pub async fn gone(&mut self) -> bool {
        while self.next().await.is_some() {}
        true
    }

    pub async fn say(&self, message: Down) {
        let message = pb::FromControl { message: Some(message) };
        self.to.send(Ok(message)).await.expect("the proxy listens");
    }

    pub async fn push(&mut self, generation: i64, sections: &[RawSection], removed: &[&str]) {
        for RawSection { name, version, payload } in sections.iter().cloned() {
            self.held.insert(name.clone(), version.clone());
            self.say(Down::Section(pb::Section { name, version, payload })).await;
        }
        removed.iter().for_each(|name| _ = self.held.remove(*name));
        let table_hash = table_hash(&self.held);
        let removed = removed.iter().map(|name| (*name).to_owned()).collect();
        self.say(Down::Commit(pb::Commit { generation, table_hash, removed })).await;
    }
}

fn table_hash(held: &BTreeMap<String, Bytes>) -> Bytes {
    let mut sum = Sha256::new();
    for (name, version) in held {
        sum.update(name);
        sum.update([0]);
        sum.update(version);
    }
    sum.finalize().to_vec().into()
}

type Asked = (pb::ReportRequest, oneshot::Sender<Result<pb::ReportReply, Status>>);

struct Doors {
    peers: mpsc::Sender<Peer>,
    reports: mpsc::Sender<Asked>,
}

#[tonic::async_trait]
impl ConfigDiscovery for Doors {
    type SubscribeStream = ReceiverStream<Result<pb::FromControl, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<pb::FromProxy>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let (to, stream) = mpsc::channel(64);
        let peer = Peer { authorization, from: request.into_inner(), to, held: BTreeMap::new() };
        self.peers.send(peer).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl UsageIngest for Doors {
    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportReply>, Status> {
        let (answer, answered) = oneshot::channel();
        let over = || Status::unavailable("the test is over");
        self.reports.send((request.into_inner(), answer)).await.map_err(|_| over())?;
        answered.await.map_err(|_| over())?.map(Response::new)
    }

    async fn spent(&self, request: Request<pb::SpentRequest>) -> Result<Response<pb::SpentReply>, Status> {
        let answer = |query: &pb::SpentQuery| pb::SpentAnswer {
            buckets: vec![pb::SpentBucket { start_ms: query.since_ms, nano_usd: query.id * 100 }],
        };
        let queries = &request.get_ref().queries;
        let answers = queries.iter().filter(|query| query.id != 0).map(answer).collect();
        // As a control plane that knows nothing of settled sums, but for id 9.
        let settled = queries.iter().any(|query| query.id == 9 && query.settled);
        Ok(Response::new(pb::SpentReply { answers, complete_ms: 5, all_complete_ms: 0, settled }))
    }
}

/// The control plane.
pub struct Fake {
    pub address: SocketAddr,
    peers: mpsc::Receiver<Peer>,
    reports: mpsc::Receiver<Asked>,
    tasks: Tasks,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (peers, peers_in) = mpsc::channel(8);
        let (reports, reports_in) = mpsc::channel(8);
        let doors = Arc::new(Doors { peers, reports });
        let tasks = Tasks::new(Handle::current());
        let serve = tonic::transport::Server::builder()
            .add_service(ConfigDiscoveryServer::from_arc(Arc::clone(&doors)))
            .add_service(UsageIngestServer::from_arc(doors))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let stop = tasks.stopping().clone();
        tasks.spawn("fake", async move {
            stop.run_until_cancelled(serve).await;
        });
        Self { address, peers: peers_in, reports: reports_in, tasks }
    }

    pub async fn accept(&mut self) -> Peer {
        soon("a subscription", self.peers.recv()).await.expect("a peer")
    }

    pub async fn report(&mut self) -> Asked {
        soon("a report", self.reports.recv()).await.expect("a report")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

/// A proxy's control side.
pub struct Proxy {
    pub table: Table,
    pub health: Book,
    pub watching: Watching,
    pub tasks: Tasks,
}

impl Proxy {
    pub fn start(address: SocketAddr, dir: &Dir) -> Self {
        Self::with(address, dir, PATIENCE)
    }

    pub fn with(address: SocketAddr, dir: &Dir, silence: Duration) -> Self {
        let tasks = Tasks::new(Handle::current());
        let config = config(address, dir);
        let (table, health) = (Snapshot::empty(), Book::new());
        let watch = Watch {
            link: Link::new(&config, tasks.handle()).expect("link"),
            config,
            tasks: tasks.clone(),
            table: Arc::clone(&table),
            health: health.clone(),
            live: Default::default(),
            reported: Default::default(),
            metrics: Metrics::install().0,
            address: "http://proxy".to_owned(),
            timing: Timing {
                silence,
                retry_first: Duration::from_millis(1),
                retry_last: Duration::from_millis(20),
            },
        };
        Self { table, health, watching: watch.start(), tasks }
    }

    pub fn generation(&self) -> i64 {
        self.table.load().generation.0
    }

    pub fn has_key(&self, id: i64) -> bool {
        self.table.load().key(&fixtures::hash(id)).is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

pub fn config(address: SocketAddr, dir: &Dir) -> Arc<Config> {
    let pairs = [
        ("CONTROL_PLANE_GRPC", format!("http://{address}")),
        ("CONTROL_TOKEN", "fleet-token".to_owned()),
        ("SECRETS_KEY", "0f".repeat(32)),
        ("DATA_DIR", dir.path().display().to_string()),
        ("PROXY_ID", "proxy-1".to_owned()),
    ];
    let pairs = pairs.each_ref().map(|(name, value)| (*name, value.as_str()));
    Arc::new(Config::from_pairs(&pairs).expect("config"))
}
