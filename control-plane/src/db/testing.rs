//! A private Postgres for this package's tests: one cluster per checkout, one database per test, cloned from
//! a template that has the migrations. The cluster ends itself when nothing has used it for a while.

use super::Pool;
use super::migrations;
use super::pool::connect;
use crate::config::{Database, DatabaseTimeouts, DatabaseTls, Secret};
use diesel_async::RunQueryDsl;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::runtime::Handle;

/// A pool on an empty database with all migrations.
pub async fn database() -> Pool {
    Pool::new(&settings().await, Handle::current())
}

/// The same as settings, for tests that open their own connections.
pub async fn settings() -> Database {
    let template = tokio::task::spawn_blocking(cluster).await.expect("start Postgres");
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    let mut admin =
        connect(&url(&template.dir, "postgres"), LIMITS, &DatabaseTls::default()).await.expect("connect");
    let clone = format!("CREATE DATABASE {name} TEMPLATE {}", template.name);
    diesel::sql_query(clone).execute(&mut admin).await.expect("clone the template");
    on(&template.dir, &name)
}

const LIMITS: DatabaseTimeouts = DatabaseTimeouts {
    connect: Duration::from_secs(10),
    statement: Duration::from_secs(30),
    lock: Duration::from_secs(10),
    idle_in_transaction: Duration::from_secs(30),
};

struct Template {
    dir: PathBuf,
    name: String,
}

fn on(dir: &Path, name: &str) -> Database {
    let url = Secret::new(&url(dir, name));
    Database {
        direct_url: url.clone(),
        url,
        max_connections: 4,
        wait: Duration::from_secs(10),
        start_wait: Duration::from_secs(10),
        max_lifetime: Duration::from_secs(600),
        timeouts: LIMITS,
        tls: DatabaseTls::default(),
    }
}

fn url(dir: &Path, name: &str) -> String {
    let host = dir.display().to_string().replace('/', "%2F");
    format!("postgres://postgres@{host}/{name}")
}

/// Starts the cluster and makes the template unless another test process did.
fn cluster() -> Template {
    let checkout = hex::encode(&Sha256::digest(env!("CARGO_MANIFEST_DIR"))[..4]);
    let dir = std::env::temp_dir().join(format!("switchyard-cp-test-{checkout}"));
    let lock = File::create(dir.with_extension("lock")).expect("lock file");
    lock.lock().expect("lock");
    if !answers(&dir) {
        start(&dir);
    }
    let name = format!("template_{}", hex::encode(&migrations_digest()[..6]));
    make_template(&dir, &name);
    Template { dir, name }
}

/// Of all migrations, so that a new one makes a new template.
fn migrations_digest() -> [u8; 32] {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let entries = std::fs::read_dir(folder).expect("migrations").flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path().join("up.sql")).collect();
    files.sort();
    let mut all = Sha256::new();
    for file in files {
        all.update(std::fs::read(file).unwrap_or_default());
    }
    all.finalize().into()
}

fn bin(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path().join("bin").join(name)).filter(|path| path.exists()).max();
    found.unwrap_or_else(|| name.into())
}

fn answers(dir: &Path) -> bool {
    let mut probe = Command::new(bin("psql"));
    probe.arg("-h").arg(dir).args(["-U", "postgres", "-Atc", "select 1"]);
    probe.output().is_ok_and(|out| out.status.success())
}

/// As the user that owns the cluster: Postgres refuses to run as root.
fn owned(program: impl AsRef<OsStr>) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command.env("HOME", "/tmp").current_dir("/tmp");
    command
}

fn start(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    let run = |command: &mut Command| {
        let out = command.output().expect("run Postgres");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    run(owned(bin("initdb")).arg("-D").arg(dir).args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-N",
        "--no-instructions",
    ]));
    let options = format!(
        "-c listen_addresses='' -c unix_socket_directories={} -c fsync=off -c full_page_writes=off \
         -c synchronous_commit=off -c max_connections=200 -c max_wal_size=200MB -c shared_buffers=32MB",
        dir.display()
    );
    let log = dir.join("log");
    run(owned(bin("pg_ctl")).arg("-D").arg(dir).arg("-l").arg(&log).args(["-w", "-o", &options, "start"]));
    watch(dir);
}

/// Ends the cluster once no database was in use for a minute. In the background of a shell that ends at once,
/// in its own process group: the test that started the cluster may be over long before.
fn watch(dir: &Path) {
    let script = r#"(idle=0; while [ $idle -lt 12 ]; do sleep 5
        n=$("$1" -h "$0" -U postgres -Atc "select count(*) from pg_stat_activity where backend_type = 'client backend'") || exit
        if [ "$n" -gt 1 ]; then idle=0; else idle=$((idle+1)); fi; done
        "$2" -D "$0" -m immediate stop; rm -rf "$0") &"#;
    let mut watchdog = owned("sh");
    watchdog.args(["-c", script]).arg(dir).arg(bin("psql")).arg(bin("pg_ctl"));
    watchdog.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    assert!(watchdog.status().expect("start the watchdog").success());
}

fn make_template(dir: &Path, name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut admin =
            connect(&url(dir, "postgres"), LIMITS, &DatabaseTls::default()).await.expect("connect");
        let exists = format!("SELECT 1 FROM pg_database WHERE datname = '{name}' AND datistemplate");
        if diesel::sql_query(exists).execute(&mut admin).await.expect("look") > 0 {
            return;
        }
        let run = async |admin: &mut super::Conn, sql: String| {
            diesel::sql_query(sql).execute(admin).await.expect("make the template")
        };
        run(&mut admin, format!("DROP DATABASE IF EXISTS {name}")).await;
        run(&mut admin, format!("CREATE DATABASE {name}")).await;
        let conn = connect(&url(dir, name), LIMITS, &DatabaseTls::default()).await.expect("connect");
        migrations::run_pending(conn).await.expect("migrate");
        run(&mut admin, format!("ALTER DATABASE {name} IS_TEMPLATE true")).await;
    });
}

#[tokio::test]
async fn the_schema_is_that_of_the_migrations() {
    use super::schema::*;
    use diesel::{QueryDsl, Table};
    let pool = database().await;
    let mut conn = pool.read().await.expect("connection");
    // `first` of all columns: a column that the migrations do not have is an error, an empty table is not.
    macro_rules! reads {
        ($($table:ident),+) => {$(
            let query = diesel::dsl::exists($table::table.select($table::table::all_columns()));
            diesel::select(query).get_result::<bool>(&mut conn).await.expect(stringify!($table));
        )+};
    }
    reads!(generation, users, keys, providers, provider_health, settings, prices, sensitive_words);
    reads!(notifications, notification_checks, live, session_messages);
    reads!(
        login_sessions,
        audit_log,
        usage_records,
        usage_hourly,
        usage_held,
        sessions,
        proxies,
        usage_dead_letters
    );
}
