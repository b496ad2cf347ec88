use super::subscribers::Held;
use super::*;
use crate::compile::{Inputs, VERSION_LEN, table_hash};
use crate::config::{Config, Secret};
use crate::db::generation::{self, bump_in_tx, current};
use crate::db::proxies::{self, ProxyRow};
use crate::db::rows::Changes;
use crate::db::{Conn, Error, testing};
use crate::tasks::Tasks;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use contract::pb;
use contract::pb::config_discovery_client::ConfigDiscoveryClient;
use contract::pb::config_discovery_server::ConfigDiscoveryServer;
use contract::pb::from_control::Message as Down;
use contract::pb::from_proxy::Message as Up;
use diesel_async::{AsyncConnection, RunQueryDsl};
use prost::Message;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Streaming};

const PATIENCE: Duration = Duration::from_secs(10);

fn settings() -> crate::config::Publish {
    let key = "0f".repeat(32);
    let config = Config::read(|name| match name {
        "DATABASE_URL" => Some("postgres://unused".to_owned()),
        "SECRETS_KEY" => Some(key.clone()),
        "ADMIN_TOKEN" | "CONTROL_TOKEN" => Some("token".to_owned()),
        _ => None,
    });
    config.expect("settings").publish
}

async fn sql(conn: &mut Conn, text: String) {
    diesel::sql_query(text).execute(conn).await.expect("statement");
}

/// One admin transaction.
async fn commit(conn: &mut Conn, statement: impl Fn(i64) -> String + Send + Sync) -> i64 {
    let done = conn.transaction(async |conn| {
        let generation = bump_in_tx(conn).await?.0;
        sql(conn, statement(generation)).await;
        Ok::<_, Error>(generation)
    });
    done.await.expect("commit")
}

fn keys(published: &Published) -> Vec<i64> {
    let payload: Vec<u8> = published.sections.values().flat_map(|section| section.payload.clone()).collect();
    pb::Rows::decode(payload.as_slice()).expect("rows").keys.iter().map(|key| key.id).collect()
}

#[tokio::test]
async fn the_reconciler_follows_every_commit() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    let (sender, newest) = watch::channel(None);
    let mut reconciler =
        Reconciler::new(pool.clone(), settings(), (Tz::UTC, sealer()), Wake::default(), sender);
    reconciler.round().await.expect("empty");
    let table = || newest.borrow().clone().expect("published");
    assert_eq!(keys(&table()), [0; 0]);

    commit(conn, |g| {
        format!("INSERT INTO users (id, owner_id, dna, name, generation) VALUES (1, 1, '.', 'a', {g})")
    })
    .await;
    let insert = |id: i64| {
        move |g| {
            format!(
                "INSERT INTO keys (id, owner_id, user_id, name, hash, first_chars, last_chars, generation) \
                 VALUES ({id}, 1, 1, 'k{id}', sha256('{id}'), 'sk-x', 'xxxx', {g})"
            )
        }
    };
    commit(conn, insert(5)).await;
    let generation = commit(conn, insert(6)).await;
    reconciler.round().await.expect("changes");
    assert_eq!(table().generation.0, generation);
    assert_eq!(keys(&table()), [5, 6]);

    let before = table();
    let generation =
        commit(conn, |g| format!("UPDATE keys SET deleted_at = now(), generation = {g} WHERE id = 5")).await;
    reconciler.round().await.expect("removal");
    assert_eq!((table().generation.0, keys(&table())), (generation, vec![6]));
    let changed: Vec<_> = before
        .sections
        .iter()
        .filter(|(name, old)| table().sections.get(*name) != Some(old))
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(changed, ["keys/0"]);

    // Nothing new: the table stays the same one.
    let same = table();
    reconciler.round().await.expect("idle");
    assert!(Arc::ptr_eq(&same, &table()));

    // A restored backup: an older generation with other rows.
    sql(conn, "UPDATE keys SET deleted_at = NULL, generation = 1; ".replace("; ", "")).await;
    sql(conn, "UPDATE generation SET value = 2".to_owned()).await;
    reconciler.round().await.expect("restored");
    assert_eq!((table().generation.0, keys(&table())), (2, vec![5, 6]));
}

#[tokio::test]
async fn generations_become_visible_in_order() {
    let pool = testing::database().await;
    let mut first = pool.write().await.expect("connection");
    let mut second = pool.write().await.expect("connection");
    let mut reader = pool.read().await.expect("connection");
    let before = current(&mut reader).await.expect("generation").0;
    sql(&mut first, "BEGIN".to_owned()).await;
    assert_eq!(bump_in_tx(&mut first).await.expect("bump").0, before + 1);
    let later = second.transaction(async |conn| bump_in_tx(conn).await);
    let (later, seen) = tokio::join!(later, async {
        // The second waits for the first, which is not visible before its commit.
        let seen = current(&mut reader).await.expect("generation").0;
        sql(&mut first, "COMMIT".to_owned()).await;
        seen
    });
    assert_eq!(seen, before);
    assert_eq!(later.expect("second").0, before + 2);
}

fn sealer() -> contract::seal::Sealer {
    contract::seal::Sealer::from_hex(&"0f".repeat(32)).expect("key")
}

fn table(generation: i64, key_ids: std::ops::Range<i64>) -> Arc<Published> {
    use sha2::{Digest, Sha256};
    let mut inputs = Inputs::new(Tz::UTC, sealer());
    let limits = || crate::db::rows::KeyLimits {
        limit_5h_usd: None,
        limit_5h_reset_mode: "rolling".to_owned(),
        limit_daily_usd: None,
        daily_reset_mode: "fixed".to_owned(),
        daily_reset_time: "00:00".to_owned(),
        limit_weekly_usd: None,
        limit_monthly_usd: None,
        limit_total_usd: None,
        limit_concurrent_sessions: 0,
        cost_reset_at: None,
    };
    let key = |id: i64| crate::db::rows::KeyRow {
        id,
        user_id: 1,
        name: "k".repeat(100),
        hash: Sha256::digest(id.to_be_bytes()).to_vec(),
        enabled: true,
        expires_at: None,
        groups: vec![],
        limits: limits(),
        cache_ttl_preference: "inherit".to_owned(),
        deleted_at: None,
    };
    inputs.apply(Changes { keys: key_ids.map(key).collect(), ..Changes::default() });
    let sections = inputs.sections().clone();
    let table_hash = table_hash(&sections);
    Arc::new(Published {
        generation: contract::ids::Generation(generation),
        sections,
        table_hash,
        problems: vec![],
    })
}

#[test]
fn only_differences_are_sent_and_only_once() {
    let (small, large) = (table(1, 1..3), table(2, 1..2_000));
    let mut held = Held::default();
    let (sent, removed) = held.advance(&small.sections);
    assert_eq!((sent.len(), removed.len()), (small.sections.len(), 0));
    assert_eq!(held.advance(&small.sections), (vec![], vec![]));
    let (sent, removed) = held.advance(&large.sections);
    assert!(sent.iter().all(|name| name.starts_with("keys/")) && removed.is_empty());
    let (sent, removed) = held.advance(&small.sections);
    assert_eq!(sent.iter().map(|name| &**name).collect::<Vec<_>>(), ["keys/0"]);
    assert_eq!(removed.len(), large.sections.len() - small.sections.len());
}

/// A proxy that does what a test says.
struct Proxy {
    up: mpsc::Sender<pb::FromProxy>,
    down: Streaming<pb::FromControl>,
}

impl Proxy {
    async fn say(&self, message: Up) {
        self.up.send(pb::FromProxy { message: Some(message) }).await.expect("stream");
    }

    /// Sections until the next commit, and the commit.
    async fn commit(&mut self) -> (Vec<pb::Section>, pb::Commit) {
        let mut sections = Vec::new();
        loop {
            match self.next().await {
                Some(Down::Section(section)) => sections.push(section),
                Some(Down::Commit(commit)) => return (sections, commit),
                Some(Down::Heartbeat(_)) => {}
                None => panic!("the stream ended"),
            }
        }
    }

    async fn next(&mut self) -> Option<Down> {
        let message = timeout(PATIENCE, self.down.message()).await.expect("in time");
        message.ok().flatten().and_then(|message| message.message)
    }

    async fn ack(&self, commit: &pb::Commit) {
        let (generation, table_hash) = (commit.generation, commit.table_hash.clone());
        self.say(Up::Ack(pb::Ack { generation, table_hash, rejected: vec![] })).await;
    }
}

struct Server {
    address: String,
    newest: watch::Sender<Option<Arc<Published>>>,
    fleet: Fleet,
    tasks: Tasks,
}

impl Server {
    fn start() -> Self {
        let tasks = Tasks::new(Handle::current());
        let (newest, receiver) = watch::channel(None);
        let fleet = Fleet::default();
        let mut settings = settings();
        settings.heartbeat = Duration::from_millis(20);
        let discovery = Discovery::new(settings, receiver, fleet.clone(), Default::default(), tasks.clone());
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        let address = format!("http://{}", incoming.local_addr().expect("address"));
        let gate = Gate::new(Secret::new("control"));
        let server = tonic::transport::Server::builder()
            .add_service(InterceptedService::new(ConfigDiscoveryServer::new(discovery), gate))
            .serve_with_incoming_shutdown(incoming, tasks.shutdown().clone().cancelled_owned());
        drop(tasks.spawn("grpc", server));
        Self { address, newest, fleet, tasks }
    }

    async fn proxy(&self, token: &str, hello: pb::Hello) -> Result<Proxy, tonic::Status> {
        let mut client = ConfigDiscoveryClient::connect(self.address.clone()).await.expect("connect");
        let (up, stream) = mpsc::channel(8);
        up.send(pb::FromProxy { message: Some(Up::Hello(hello)) }).await.expect("hello");
        let mut request = Request::new(ReceiverStream::new(stream));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ascii"));
        Ok(Proxy { up, down: client.subscribe(request).await?.into_inner() })
    }

    fn publish(&self, table: &Arc<Published>) {
        self.newest.send_replace(Some(Arc::clone(table)));
    }
}

fn hello(id: &str) -> pb::Hello {
    pb::Hello { proxy_id: id.to_owned(), schema: contract::TABLE_SCHEMA, ..Default::default() }
}

#[tokio::test]
async fn a_proxy_gets_the_newest_and_only_what_it_lacks() {
    let server = Server::start();
    let first = table(5, 1..2_000);
    server.publish(&first);
    let mut proxy = server.proxy("control", hello("p1")).await.expect("subscribe");
    let (sections, commit) = proxy.commit().await;
    assert_eq!(sections.len(), first.sections.len());
    assert_eq!((commit.generation, commit.table_hash.as_ref()), (5, first.table_hash.as_slice()));

    // Not acknowledged: two more tables, of which only the second will be sent, as a difference.
    server.publish(&table(6, 1..1_999));
    let third = table(7, 1..2_001);
    server.publish(&third);
    assert!(!server.fleet.wait_for(contract::ids::Generation(5), Duration::from_millis(1)).await);
    proxy.ack(&commit).await;
    let (sections, commit) = proxy.commit().await;
    assert_eq!((sections.len(), commit.generation), (1, 7));
    assert!(sections[0].version.len() == VERSION_LEN && sections[0].name.starts_with("keys/"));
    proxy.ack(&commit).await;
    assert!(server.fleet.wait_for(contract::ids::Generation(7), PATIENCE).await);

    // What a proxy holds already is not sent again, nor what a change of the table leaves alone.
    let held = third.sections.iter().map(|(name, section)| pb::SectionVersion {
        name: name.to_string(),
        version: section.version.to_vec().into(),
    });
    let back = pb::Hello { held: held.collect(), generation: 7, ..hello("p2") };
    let mut back = server.proxy("control", back).await.expect("subscribe");
    let (sections, commit) = back.commit().await;
    assert_eq!((sections.len(), commit.generation), (0, 7));

    // A refused section is shown.
    let rejected = vec![pb::Rejected { section: "keys/0".to_owned(), reason: "rows[1].hash".to_owned() }];
    back.say(Up::Ack(pb::Ack { generation: 7, rejected, ..Default::default() })).await;
    let shown = async {
        while server.fleet.snapshot()[1].rejected.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, shown).await.expect("shown");
    drop(back);
    let gone = async {
        while server.fleet.snapshot()[1].connected {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("seen as gone");
    assert!(server.fleet.snapshot()[0].connected);

    // Open streams do not keep the process.
    assert!(server.tasks.finish(PATIENCE).await);
    while let Some(Down::Heartbeat(_)) = proxy.next().await {}
}

#[tokio::test]
async fn strangers_and_old_proxies_are_told_why() {
    let server = Server::start();
    for token in ["", "contro", "control2"] {
        let refused = server.proxy(token, hello("p")).await.err().expect("refused");
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
    }
    let old = pb::Hello { schema: 0, ..hello("p") };
    assert_eq!(server.proxy("control", old).await.err().expect("refused").code(), Code::FailedPrecondition);
    assert_eq!(
        server.proxy("control", hello("")).await.err().expect("refused").code(),
        Code::InvalidArgument
    );
    assert_eq!(server.fleet.open(), 0);

    // Before the first table there are heartbeats, so that nobody takes the silence for death.
    let mut early = server.proxy("control", hello("p")).await.expect("subscribe");
    assert!(matches!(early.next().await, Some(Down::Heartbeat(beat)) if beat.generation == 0));
    server.publish(&table(3, 1..2));
    assert_eq!(early.commit().await.1.generation, 3);
}

fn proxy_row(id: &str, counter_naming: i16, seen: DateTime<Utc>, reported_ms: Option<i64>) -> ProxyRow {
    ProxyRow {
        proxy_id: id.to_owned(),
        boot_id: String::new(),
        version: String::new(),
        address: String::new(),
        generation: 0,
        rejected: serde_json::json!([]),
        connected: true,
        connected_at: DateTime::UNIX_EPOCH,
        last_seen_at: seen,
        counter_naming,
        reported_ms,
    }
}

#[tokio::test]
async fn counters_get_new_names_once_every_proxy_knows_them() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    let (sender, newest) = watch::channel(None);
    let mut reconciler =
        Reconciler::new(pool.clone(), settings(), (Tz::UTC, sealer()), Wake::default(), sender);
    let mut published = async || {
        reconciler.round().await.expect("round");
        let table = newest.borrow().clone().expect("published");
        let payload: Vec<u8> = table.sections.values().flat_map(|section| section.payload.clone()).collect();
        pb::Rows::decode(payload.as_slice()).expect("rows").owners[0].counter_naming
    };
    let (now, long_ago) = (Utc::now(), Utc::now() - generation::REMEMBERED * 2);
    let raise = async |conn: &mut _| {
        generation::raise_counter_naming(conn, now - generation::REMEMBERED).await.expect("raise")
    };
    let rows = [proxy_row("new", 2, now, None), proxy_row("old", 1, now, None)];
    proxies::upsert(conn, &rows).await.expect("write");
    assert!(!raise(conn).await, "one of them does not know them");
    assert_eq!(published().await, 1);
    let before = generation::current(conn).await.expect("generation");
    // It stayed away for longer than a restart of the control plane takes.
    proxies::upsert(conn, &[proxy_row("old", 1, long_ago, None)]).await.expect("write");
    for _ in 0..2 {
        assert!(raise(conn).await);
        assert_eq!(generation::current(conn).await.expect("generation").0, before.0 + 1, "once");
    }
    assert_eq!(published().await, 2, "every owner's section says so");
}

#[tokio::test]
async fn the_ledger_is_complete_as_far_as_the_last_proxy_has_reported() {
    let pool = testing::database().await;
    let mut conn = pool.write().await.expect("connection");
    let conn = &mut *conn;
    let (now, stale) = (Utc::now(), Utc::now() - TimeDelta::minutes(5));
    let fresh = now - TimeDelta::seconds(90);
    let steps = [
        (proxy_row("a", 2, now, Some(50)), (Some(50), Some(50)), "a"),
        (proxy_row("b", 2, now, Some(30)), (Some(30), Some(30)), "b"),
        (proxy_row("away", 2, stale, Some(10)), (Some(30), Some(10)), "b"),
        (proxy_row("b", 2, now, Some(70)), (Some(50), Some(10)), "a"),
        (proxy_row("silent", 1, stale, None), (Some(50), None), "a"),
        (proxy_row("silent", 1, now, None), (None, None), "silent"),
    ];
    let nobody = proxies::reported(conn, fresh).await.expect("read");
    assert_eq!(nobody, proxies::Reported::default(), "nobody is there");
    for (row, (connected_ms, all_ms), last) in steps {
        let id = row.proxy_id.clone();
        proxies::upsert(conn, &[row]).await.expect("write");
        let want = proxies::Reported { connected_ms, all_ms, last: Some(last.to_owned()) };
        assert_eq!(proxies::reported(conn, fresh).await.expect("read"), want, "{id}");
    }
}
