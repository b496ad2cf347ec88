//! User instructions of the proxy per request, counted by callgrind: unlike time they are the same on a busy
//! machine. What the kernel does is not in them.

use super::bodies::{BODIES, Body};
use super::load::{Connections, Request};
use super::subject::{Subject, conversation};
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Connections of the load.
const CONNECTIONS: usize = 8;
/// Rounds before the counting begins: pools, caches and limits are warm then.
const WARM: usize = 25;
/// Rounds that are counted.
const ROUNDS: usize = 100;

/// Counts and prints. With `BENCH_CALLGRIND_OUT` set the profiles stay in that folder, for `callgrind_annotate`.
pub async fn print(upstream: SocketAddr, folder: &Path) -> Result<()> {
    let kept = std::env::var_os("BENCH_CALLGRIND_OUT").map(PathBuf::from);
    let folder = kept.as_deref().unwrap_or(folder);
    let out = folder.join("callgrind.out");
    let out_flag = format!("--callgrind-out-file={}", out.display());
    let subject = Subject::start_under(upstream, &["valgrind", "-q", "--tool=callgrind", &out_flag]).await?;
    subject.quiet(true)?;
    println!("| load | variant | user instructions per answer |\n|---|---|---|");
    let mut dumps = 0;
    for (mode, size, name) in
        [("json", 0, "JSON, 1 KB"), ("json", 1, "JSON, 76 KB"), ("burst", 0, "50 events")]
    {
        let body: Body = BODIES[size].1;
        for (variant, requests) in [
            ("governed, each key seldom", subject.governed(mode, CONNECTIONS, body)),
            ("governed, one hot key", hot(&subject, mode, body)),
            ("ungoverned", subject.free(mode, CONNECTIONS, body)),
        ] {
            dumps += 1;
            let total = count(&subject, &requests, &out, dumps).await?;
            println!("| {name} | {variant} | {} |", total / (CONNECTIONS * ROUNDS) as u64);
        }
    }
    subject.quiet(false)
}

/// A key that is asked so often that it is lent slices of its limits, even at the pace of callgrind.
fn hot(subject: &Subject, mode: &str, body: Body) -> Vec<Request> {
    let key = subject.governed_key();
    (0..CONNECTIONS).map(|at| conversation(mode, &key, at, body)).collect()
}

async fn count(subject: &Subject, requests: &[Request], out: &Path, dump: usize) -> Result<u64> {
    let mut connections = Connections::open(subject.address(), requests).await?;
    for _ in 0..WARM {
        connections.once(CONNECTIONS).await?;
    }
    let pid = subject.pids().first().context("the proxy runs")?.to_string();
    control("--zero", &pid)?;
    for _ in 0..ROUNDS {
        connections.once(CONNECTIONS).await?;
    }
    control("--dump", &pid)?;
    let text = std::fs::read_to_string(format!("{}.{dump}", out.display())).context("read the profile")?;
    let total =
        text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    total.context("the profile has no total")?.trim().parse().context("the total")
}

fn control(what: &str, pid: &str) -> Result<()> {
    let mut command = Command::new("callgrind_control");
    let status = command.args([what, pid]).stdout(Stdio::null()).status().context("callgrind_control")?;
    if !status.success() {
        bail!("callgrind_control {what} failed");
    }
    Ok(())
}
