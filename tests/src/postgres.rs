//! A private Postgres for tests: one cluster per checkout, shared by all test processes, one database per
//! test from a template. Nothing of the machine's own Postgres is touched.
//!
//! The first test that asks starts the cluster under a file lock; it stops by itself when no test has asked
//! for [`IDLE_MINUTES`] minutes, so no runner has to remember to end it.

use anyhow::{Context, Result, bail};
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Minutes without a test after which the cluster ends itself.
pub const IDLE_MINUTES: u32 = 5;
/// `nobody`, who runs Postgres where the tests run as root: Postgres itself refuses root.
const NOBODY: u32 = 65534;

/// A database of one test.
#[derive(Clone, Debug)]
pub struct Database {
    /// For tokio-postgres: over the cluster's socket.
    pub url: String,
    /// The socket itself, for a chaos proxy in front of it.
    pub socket: PathBuf,
    /// Name inside the cluster.
    pub name: String,
}

/// Where the cluster lives: outside the checkout, since `nobody` must be able to enter it.
fn home() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    std::env::temp_dir().join(format!("switchyard-test-{:x}", hasher.finish()))
}

fn bin() -> Result<PathBuf> {
    let mut places: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        let mut found: Vec<PathBuf> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
        found.sort();
        places.extend(found.into_iter().rev());
    }
    places.extend(["/opt/homebrew/opt/postgresql/bin", "/usr/local/opt/postgresql/bin"].map(PathBuf::from));
    let tools = ["initdb", "postgres", "pg_ctl", "pg_dump", "psql"];
    let place = places.into_iter().find(|dir| tools.iter().all(|tool| dir.join(tool).exists()));
    place.context("no Postgres found: install the package `postgresql`")
}

/// A command that runs as `nobody` where we are root. It outlives this process, so it inherits no open file beyond the
/// three standard ones: the lock of a runner, say, would stay taken for as long as the cluster runs.
fn command(program: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec \"$@\"", "sh"]).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("start {what}"))?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Runs SQL on `database` of the cluster.
pub fn sql(database: &str, text: &str) -> Result<String> {
    let mut psql = Command::new(bin()?.join("psql"));
    psql.args(["-h", &home().join("run").to_string_lossy(), "-U", "test", "-d", database]);
    psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text]);
    let output = psql.output().context("run psql")?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the cluster has logged, which is little unless a bench asks for plans.
pub fn log() -> Result<String> {
    fs::read_to_string(home().join("run/log")).context("read the log of Postgres")
}

/// The whole of a database as SQL text, to search it for what must not be there.
pub fn dump(database: &str) -> Result<String> {
    let mut pg_dump = Command::new(bin()?.join("pg_dump"));
    pg_dump.args(["-h", &home().join("run").to_string_lossy(), "-U", "test", "--inserts", database]);
    let output = pg_dump.output().context("run pg_dump")?;
    if !output.status.success() {
        bail!("pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A fresh database, migrated. `migrate` is called once per cluster and build, with the template's URL.
pub fn database(migrate: impl FnOnce(&str) -> Result<()>, build: &str) -> Result<Database> {
    let home = home();
    fs::create_dir_all(&home).context("make the cluster's folder")?;
    let lock = File::create(home.join("lock")).context("open the cluster's lock")?;
    lock.lock().context("take the cluster's lock")?;
    File::create(home.join("beat")).context("write the heartbeat")?;
    ensure_running(&home)?;
    let template = format!("template_{build}");
    let known = sql("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{template}_ok'"))?;
    if known.is_empty() {
        sql("postgres", &format!("DROP DATABASE IF EXISTS {template}"))?;
        sql("postgres", &format!("CREATE DATABASE {template}"))?;
        migrate(&url(&home, &template)).context("migrate the template")?;
        // The rename is the last step: a template that exists under this name is whole.
        sql("postgres", &format!("ALTER DATABASE {template} RENAME TO {template}_ok"))?;
    }
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template}_ok"))?;
    Ok(Database { url: url(&home, &name), socket: home.join("run/.s.PGSQL.5432"), name })
}

fn url(home: &Path, database: &str) -> String {
    let socket = home.join("run").to_string_lossy().replace('/', "%2F");
    format!("postgres://test@{socket}/{database}")
}

fn ensure_running(home: &Path) -> Result<()> {
    if sql("postgres", "SELECT 1").is_ok() {
        return Ok(());
    }
    let (data, run_dir) = (home.join("data"), home.join("run"));
    let _ = fs::remove_dir_all(&data);
    for dir in [&data, &run_dir] {
        fs::create_dir_all(dir)?;
        if is_root() {
            std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY))?;
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    let bin = bin()?;
    let mut initdb = command(&bin.join("initdb"));
    initdb.arg("-D").arg(&data).args(["-U", "test", "--auth=trust", "--no-sync", "--no-instructions"]);
    initdb.args(["-E", "UTF8", "--locale=C.UTF-8"]);
    run(initdb, "initdb")?;
    // Tests need neither durability nor a network port.
    let options = format!(
        "-k {} -c listen_addresses='' -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
         -c max_connections=300",
        run_dir.display()
    );
    let mut start = command(&bin.join("pg_ctl"));
    start.arg("-D").arg(&data).arg("-l").arg(run_dir.join("log")).args(["-w", "-o", &options, "start"]);
    start.stderr(Stdio::null()).process_group(0);
    run(start, "pg_ctl start")?;
    watch(home, &bin, &data)
}

/// Ends the cluster when the heartbeat grows old.
fn watch(home: &Path, bin: &Path, data: &Path) -> Result<()> {
    let script = format!(
        "while sleep 20; do [ -n \"$(find '{beat}' -mmin -{IDLE_MINUTES} 2>/dev/null)\" ] || {{ \
         '{ctl}' -D '{data}' -m immediate stop; exit; }}; done",
        beat = home.join("beat").display(),
        ctl = bin.join("pg_ctl").display(),
        data = data.display(),
    );
    let mut shell = command(Path::new("/bin/sh"));
    shell.args(["-c", &script]).stderr(Stdio::null()).process_group(0);
    shell.spawn().context("start the cluster's watchdog")?;
    Ok(())
}
