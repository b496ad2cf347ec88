//! What the kernel knows about processes: CPU time, memory, cores. Linux only.

use anyhow::{Context, Result, bail};
use std::fs;
use std::process::{Command, Stdio};

/// One tick of /proc/stat; 100 per second on every Linux that people run.
const TICK_NS: u64 = 10_000_000;

/// CPU time of all threads of these processes, in nanoseconds.
pub fn cpu_ns(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| process_ns(*pid).unwrap_or_default()).sum()
}

fn process_ns(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let sum = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(sum.sum())
}

/// Busy and stolen time of all cores since boot, in nanoseconds.
pub fn busy_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum::<u64>();
    busy * TICK_NS
}

/// Resident memory of these processes, in KiB.
pub fn rss_kib(pids: &[u32]) -> u64 {
    let one = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    pids.iter().filter_map(one).sum()
}

/// The process and its children.
pub fn family(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = text.split_whitespace().filter_map(|word| word.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

/// Puts all threads of a process, and what it starts later, on one core.
pub fn pin(pid: u32, core: usize) -> Result<()> {
    let mut taskset = Command::new("taskset");
    taskset.args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()]);
    let status = taskset.stdout(Stdio::null()).status().context("run taskset (package util-linux)")?;
    if !status.success() {
        bail!("taskset could not put process {pid} on core {core}");
    }
    Ok(())
}

/// Model and kernel, for the head of the report.
pub fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {}, Linux {}", model.trim_start_matches([' ', '\t', ':']), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_and_memory_can_be_read() {
        let me = [std::process::id()];
        let before = cpu_ns(&me);
        let mut sum = 0_u64;
        while cpu_ns(&me) < before + 1_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(busy_ns() > 0);
        assert!(rss_kib(&me) > 100);
        assert_eq!(family(me[0])[0], me[0]);
    }
}
