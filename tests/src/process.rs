//! Real processes: started with their log in a file, killed when dropped.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A child process; dropping it is kill -9.
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts it; `log` takes both outputs.
    pub fn start(name: &str, mut command: Command, log: Option<&Path>) -> Result<Self> {
        command.stdin(Stdio::null());
        match log {
            None => command.stdout(Stdio::null()).stderr(Stdio::null()),
            Some(path) => {
                let file =
                    File::options().create(true).append(true).open(path).context("open a process log")?;
                command.stdout(file.try_clone()?).stderr(file)
            }
        };
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.map(Path::to_owned) })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory that it ever had.
    pub fn peak_rss_kib(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Sends a signal by name, as kill(1) does.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().to_string();
        Command::new("kill").args([format!("-{name}"), pid]).status().context("send a signal")?;
        Ok(())
    }

    /// SIGTERM, then [`Process::ended`].
    pub async fn stop(mut self, patience: Duration) -> Result<Option<i32>> {
        self.signal("TERM")?;
        self.ended(patience).await
    }

    /// Waits at most `patience` for the end; the exit code (-1 after a signal), or `None` if it still runs.
    pub async fn ended(&mut self, patience: Duration) -> Result<Option<i32>> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status.code().unwrap_or(-1)));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(None)
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log, for messages of failed tests.
    pub fn log_tail(&self) -> String {
        let text = self.log.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("--- {} ---\n{}", self.name, lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that no other test process uses and that no outgoing connection can be given: below the ephemeral
/// range, and held by a file lock until this process ends, so that a program can be restarted on it.
pub fn free_port() -> Result<u16> {
    static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("switchyard-test-ports");
    std::fs::create_dir_all(&folder).context("make the folder of port locks")?;
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let start = usize::try_from(uuid::Uuid::new_v4().as_u128() % (PORTS.len() as u128)).unwrap_or_default();
    for port in PORTS.cycle_from(start) {
        let file = File::options().create(true).append(true).open(folder.join(port.to_string()))?;
        if file.try_lock().is_ok() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            held.push(file);
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", PORTS.first, PORTS.last)
}

/// Ports of test processes.
struct Ports {
    first: u16,
    last: u16,
}

/// Linux hands out 32768 and above, macOS 49152 and above to outgoing connections.
const PORTS: Ports = Ports { first: 11_000, last: 31_999 };

impl Ports {
    fn len(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// All of them, beginning somewhere.
    fn cycle_from(&self, start: usize) -> impl Iterator<Item = u16> {
        (self.first..=self.last).cycle().skip(start).take(self.len())
    }
}

/// A program of this workspace, from the folder that the tests were built into.
pub fn program(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("find the test binary")?;
    let folder = me.ancestors().find(|dir| dir.join(name).is_file());
    let folder =
        folder.with_context(|| format!("`{name}` is not built: run `cargo build --workspace --bins`"))?;
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once() {
        let ports: Vec<u16> = (0..20).map(|_| free_port().unwrap()).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ports.len());
        assert!(ports.iter().all(|port| (PORTS.first..=PORTS.last).contains(port)));
    }

    #[tokio::test]
    async fn a_process_ends_with_its_code_or_with_its_handle() {
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            Process::start("shell", command, None).unwrap()
        };
        assert_eq!(shell("exit 3").ended(Duration::from_secs(10)).await.unwrap(), Some(3));
        let obeys = shell("trap 'exit 7' TERM; while :; do sleep 0.05; done");
        assert_eq!(
            obeys.stop(Duration::from_secs(10)).await.unwrap().map(|code| code == 7 || code == -1),
            Some(true)
        );
        let sleeper = shell("exec sleep 60");
        let pid = sleeper.pid();
        drop(sleeper);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
