//! Real processes: started with their log in a file, killed when dropped.

use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
                let file = File::options().create(true).append(true).open(path).context("open a process log")?;
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
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Sends a signal by name, as kill(1) does.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().to_string();
        Command::new("kill").args([format!("-{name}"), pid]).status().context("send a signal")?;
        Ok(())
    }

    /// SIGTERM, then waits at most `patience`; the exit code, or `None` if it had to be killed.
    pub fn stop(mut self, patience: Duration) -> Result<Option<i32>> {
        self.signal("TERM")?;
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status.code().unwrap_or(-1)));
            }
            std::thread::sleep(Duration::from_millis(5));
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

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A program of this workspace, from the folder that the tests were built into.
pub fn program(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("find the test binary")?;
    let folder = me.ancestors().find(|dir| dir.join(name).is_file());
    let folder = folder.with_context(|| format!("`{name}` is not built: run `cargo build --workspace --bins`"))?;
    Ok(folder.join(name))
}
