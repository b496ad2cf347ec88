//! Where the time goes: samples of the proxy under load, by `perf` where it is installed.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Samples per second; odd, so as not to beat with timers.
const RATE: &str = "1997";
/// Lines of each table.
const LINES: usize = 70;

/// A recording that ends by itself.
pub struct Recording {
    child: Child,
    file: std::path::PathBuf,
}

impl Recording {
    /// Samples `pid` for `time` by the CPU clock, which virtual machines have too.
    pub fn start(pid: u32, time: Duration, folder: &Path) -> Result<Self> {
        let file = folder.join("perf.data");
        let mut perf = Command::new("perf");
        perf.args(["record", "-q", "-e", "cpu-clock", "-F", RATE, "-g", "-p", &pid.to_string(), "-o"])
            .arg(&file);
        perf.args(["--", "sleep", &time.as_secs().to_string()]).stdout(Stdio::null());
        let child = perf.spawn().context("start perf (package linux-perf)")?;
        Ok(Self { child, file })
    }

    /// The functions that took the time themselves, then those under which it was spent.
    pub fn report(mut self) -> Result<String> {
        if !self.child.wait()?.success() {
            bail!("perf record failed");
        }
        let own = self.table(&["--no-children"])?;
        let under = self.table(&["--children"])?;
        Ok(format!("Self:\n{own}\nWith callees:\n{under}"))
    }

    fn table(&self, flags: &[&str]) -> Result<String> {
        let mut perf = Command::new("perf");
        perf.args(["report", "--stdio", "-g", "none", "--percent-limit", "0.4", "-i"])
            .arg(&self.file)
            .args(flags);
        let output = perf.stderr(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).take(LINES);
        Ok(lines.map(|line| format!("{}\n", line.trim_end())).collect())
    }
}
