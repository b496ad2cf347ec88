//! A whole Switchyard of real processes: one control plane, proxies, Postgres, Redis; mock upstreams beside.

use crate::client::{Admin, Caller};
use crate::postgres::{self, Database};
use crate::process::{Process, free_port, program};
use crate::redis::Redis;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// The admin token of every test fleet.
pub const ADMIN_TOKEN: &str = "test-admin-token-with-some-length";
const CONTROL_TOKEN: &str = "test-control-token-with-some-length";
const SECRETS_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// How long a process may take to become ready in a debug build on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// What a fleet is made of.
pub struct Plan {
    proxies: usize,
    redis: bool,
    control_env: Vec<(String, String)>,
    proxy_env: Vec<(String, String)>,
    /// A program, with its arguments, that runs the proxies.
    proxy_under: Vec<String>,
    database_url: Option<String>,
    redis_url: Option<String>,
    database: Option<Database>,
    grpc_tls: bool,
}

/// The running fleet. Dropping it kills every process of it.
pub struct Fleet {
    /// Its database.
    pub database: Database,
    /// Its Redis, unless the plan said otherwise.
    pub redis: Option<Redis>,
    /// Its control plane; `None` while killed.
    pub control: Option<Process>,
    /// Its proxies.
    pub proxies: Vec<Proxy>,
    /// The admin API as the root owner.
    pub admin: Admin,
    plan: Plan,
    ports: Ports,
    folder: tempfile::TempDir,
}

struct Ports {
    http: u16,
    grpc: u16,
    ops: u16,
}

/// One proxy of the fleet, with its volume.
pub struct Proxy {
    /// `None` while killed.
    pub process: Option<Process>,
    /// Its volume: spool and last good table.
    pub volume: PathBuf,
    name: String,
    port: u16,
    ops_port: u16,
}

impl Proxy {
    /// For callers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Liveness, readiness, metrics.
    pub fn ops_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ops_port)
    }

    /// Where callers connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

impl Fleet {
    /// Two proxies, one Redis.
    pub fn plan() -> Plan {
        Plan {
            proxies: 2,
            redis: true,
            control_env: Vec::new(),
            proxy_env: Vec::new(),
            proxy_under: Vec::new(),
            database_url: None,
            redis_url: None,
            database: None,
            grpc_tls: false,
        }
    }

    /// The default plan, started.
    pub async fn start() -> Result<Self> {
        Self::plan().start().await
    }

    /// The base URL of the admin API.
    pub fn control_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// The ops port of the control plane.
    pub fn control_ops_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.ops)
    }

    /// A caller at proxy `at`.
    pub fn caller(&self, at: usize, key: &str) -> Caller {
        Caller::new(&self.proxies[at].url(), key)
    }

    /// Waits until every running proxy acts on everything written so far.
    pub async fn sync(&self) -> Result<()> {
        let running = self.proxies.iter().filter(|proxy| proxy.process.is_some()).count();
        let waited = crate::eventually(START_PATIENCE, || async {
            let Ok(fleet) = self.admin.fleet().await else { return false };
            let head = fleet["generation"].as_i64();
            let proxies = fleet["proxies"].as_array().cloned().unwrap_or_default();
            let there = proxies.iter().filter(|p| p["connected"] == true && p["generation"].as_i64() == head);
            head.is_some() && there.count() >= running
        });
        waited.await.with_context(|| format!("the proxies did not follow\n{}", self.logs()))
    }

    /// Rows of the ledger.
    pub fn records(&self, condition: &str) -> Result<u64> {
        let text = self.sql(&format!("SELECT count(*) FROM usage_records WHERE {condition}"))?;
        text.parse().context("read a count")
    }

    /// The ledger's rows in order of time, as JSON; `cost_text` is the exact cost or null.
    pub fn rows(&self, condition: &str) -> Result<Vec<Value>> {
        let text = self.sql(&format!(
            "SELECT coalesce(json_agg(r), '[]') FROM (SELECT *, trim_scale(cost)::text AS cost_text \
             FROM usage_records WHERE {condition} ORDER BY created_at, id) r"
        ))?;
        serde_json::from_str(&text).context("read the ledger")
    }

    /// Waits until the ledger holds exactly `count` records, and fails if it ever holds more.
    pub async fn expect_records(&self, condition: &str, count: u64) -> Result<()> {
        let waited = crate::eventually(START_PATIENCE, || async {
            self.records(condition).is_ok_and(|found| found >= count)
        });
        let outcome = waited.await;
        let found = self.records(condition)?;
        if found != count {
            bail!("{found} records where {count} were expected ({outcome:?})\n{}", self.logs());
        }
        Ok(())
    }

    /// Runs SQL on the fleet's database.
    pub fn sql(&self, text: &str) -> Result<String> {
        postgres::sql(&self.database.name, text)
    }

    /// Starts the control plane (again) and waits until it is ready.
    pub async fn start_control(&mut self) -> Result<()> {
        let mut command = Command::new(program("control-plane")?);
        command.arg("serve").envs([
            ("DATABASE_URL", self.plan.database_url.clone().unwrap_or_else(|| self.database.url.clone())),
            ("ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
            ("SECRETS_KEY", SECRETS_KEY.to_owned()),
            ("CONTROL_TOKEN", CONTROL_TOKEN.to_owned()),
            // Tests beside others may be slow; what is not waited for at all still fails.
            ("APPLY_WAIT_MS", "10000".to_owned()),
            ("LISTEN_ADDR", format!("127.0.0.1:{}", self.ports.http)),
            ("GRPC_ADDR", format!("127.0.0.1:{}", self.ports.grpc)),
            ("OPS_ADDR", format!("127.0.0.1:{}", self.ports.ops)),
        ]);
        command.envs(self.plan.control_env.iter().map(|(name, value)| (name, value)));
        self.control = Some(Process::start("control-plane", command, Some(&self.log("control")))?);
        let url = format!("{}/readyz", self.control_ops_url());
        ready(&url, self.control.as_mut()).await.with_context(|| self.logs())
    }

    /// Starts a proxy (again) on its volume and waits until it is ready.
    pub async fn start_proxy(&mut self, at: usize) -> Result<()> {
        let log = self.log(&format!("proxy-{at}"));
        let proxy = &mut self.proxies[at];
        let binary = program("data-plane")?;
        let scheme = if self.plan.grpc_tls { "https" } else { "http" };
        let mut command = match self.plan.proxy_under.split_first() {
            None => Command::new(binary),
            Some((tool, arguments)) => {
                let mut command = Command::new(tool);
                command.args(arguments).arg(binary);
                command
            }
        };
        command.envs([
            ("CONTROL_PLANE_GRPC", format!("{scheme}://127.0.0.1:{}", self.ports.grpc)),
            ("CONTROL_TOKEN", CONTROL_TOKEN.to_owned()),
            ("SECRETS_KEY", SECRETS_KEY.to_owned()),
            ("LISTEN_ADDR", format!("127.0.0.1:{}", proxy.port)),
            ("OPS_ADDR", format!("127.0.0.1:{}", proxy.ops_port)),
            ("DATA_DIR", proxy.volume.to_string_lossy().into_owned()),
            ("PROXY_ID", proxy.name.clone()),
            ("WORKERS", "1".to_owned()),
        ]);
        let redis = self.plan.redis_url.clone().or_else(|| self.redis.as_ref().map(Redis::url));
        command.envs(redis.map(|url| ("REDIS_URL", url)));
        command.envs(self.plan.proxy_env.iter().map(|(name, value)| (name, value)));
        proxy.process = Some(Process::start(&proxy.name, command, Some(&log))?);
        let url = format!("{}/readyz", proxy.ops_url());
        ready(&url, proxy.process.as_mut()).await.with_context(|| self.logs())
    }

    /// SIGTERM to a proxy, then its end within `patience`: the exit code, or `None` if it had to be killed.
    pub async fn stop_proxy(&mut self, at: usize, patience: Duration) -> Result<Option<i32>> {
        let process = self.proxies[at].process.take().context("the proxy does not run")?;
        process.stop(patience).await
    }

    /// kill -9 of the control plane.
    pub fn kill_control(&mut self) {
        self.control = None;
    }

    /// Where the logs and the volumes are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let processes =
            self.control.iter().chain(self.proxies.iter().filter_map(|proxy| proxy.process.as_ref()));
        processes.map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }

    /// Everything that the processes ever logged.
    pub fn all_logs(&self) -> Result<String> {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "log") {
                all += &std::fs::read_to_string(path)?;
            }
        }
        Ok(all)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

impl Plan {
    /// How many proxies.
    #[must_use]
    pub fn proxies(mut self, count: usize) -> Self {
        self.proxies = count;
        self
    }

    /// Without Redis: each proxy counts in its own memory.
    #[must_use]
    pub fn without_redis(mut self) -> Self {
        self.redis = false;
        self
    }

    /// The control plane reaches Postgres through another URL (a chaos proxy).
    #[must_use]
    pub fn database_through(mut self, database: Database, url: String) -> Self {
        self.database = Some(database);
        self.database_url = Some(url);
        self
    }

    /// A setting of the control plane.
    #[must_use]
    pub fn control_env(mut self, name: &str, value: &str) -> Self {
        self.control_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A setting of every proxy.
    #[must_use]
    pub fn proxy_env(mut self, name: &str, value: &str) -> Self {
        self.proxy_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Proxies reach the control plane over TLS; the certificates come by `control_env` and `proxy_env`.
    #[must_use]
    pub fn grpc_over_tls(mut self) -> Self {
        self.grpc_tls = true;
        self
    }

    /// Runs every proxy under a tool that takes its program as the last argument (a profiler).
    #[must_use]
    pub fn proxy_under(mut self, tool: &[&str]) -> Self {
        self.proxy_under = tool.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts everything and waits until all proxies act on the first table.
    pub async fn start(self) -> Result<Fleet> {
        let mut folder = tempfile::tempdir()?;
        if std::env::var_os("SWITCHYARD_KEEP").is_some() {
            // For people who look into the logs of a failed test.
            folder.disable_cleanup(true);
            println!("logs and volumes are kept in {}", folder.path().display());
        }
        let database = match self.database.clone() {
            Some(database) => database,
            None => database()?,
        };
        let redis = if self.redis { Some(Redis::start().await?) } else { None };
        let ports = Ports { http: free_port()?, grpc: free_port()?, ops: free_port()? };
        let mut proxies = Vec::new();
        for at in 0..self.proxies {
            let volume = folder.path().join(format!("volume-{at}"));
            std::fs::create_dir_all(&volume)?;
            let (port, ops_port) = (free_port()?, free_port()?);
            proxies.push(Proxy { process: None, volume, name: format!("proxy-{at}"), port, ops_port });
        }
        let admin = Admin::new(&format!("http://127.0.0.1:{}", ports.http), ADMIN_TOKEN);
        let mut fleet = Fleet { database, redis, control: None, proxies, admin, plan: self, ports, folder };
        fleet.start_control().await?;
        for at in 0..fleet.proxies.len() {
            fleet.start_proxy(at).await?;
        }
        fleet.sync().await?;
        Ok(fleet)
    }
}

/// A fresh migrated database.
pub fn database() -> Result<Database> {
    let control = program("control-plane")?;
    postgres::database(|url| migrate(&control, url), &build_of(&control)?)
}

/// Names a build, so that a rebuilt control plane gets a new template.
fn build_of(program: &Path) -> Result<String> {
    let meta = std::fs::metadata(program)?;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    (meta.len(), meta.modified()?).hash(&mut hasher);
    Ok(format!("{:x}", hasher.finish()))
}

fn migrate(control: &Path, url: &str) -> Result<()> {
    let mut command = Command::new(control);
    command.arg("migrate").envs([
        ("DATABASE_URL", url),
        ("ADMIN_TOKEN", ADMIN_TOKEN),
        ("SECRETS_KEY", SECRETS_KEY),
        ("CONTROL_TOKEN", CONTROL_TOKEN),
    ]);
    let output = command.output().context("run control-plane migrate")?;
    if !output.status.success() {
        bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

async fn ready(url: &str, process: Option<&mut Process>) -> Result<()> {
    let http = crate::client::http();
    let process = Mutex::new(process.context("no process")?);
    let runs = || process.lock().is_ok_and(|mut process| process.is_running());
    let answers = || async { http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) };
    let waited = crate::eventually(START_PATIENCE, || async { answers().await || !runs() });
    waited.await.with_context(|| format!("{url} did not become ready"))?;
    ensure!(runs(), "the process ended");
    Ok(())
}
