//! The tables that are printed, in Markdown.

use super::memory::Memory;
use super::series::{Pairs, Per, Spread};
use std::fmt::Write;

/// What is wanted of a scenario, in words: to ship, wanted, the goal.
pub const CPU_TARGETS: &str = "≤1.30, 1.15, 1.00";
/// The same of paced streams.
pub const PACED_TARGETS: &str = "≤1.20, 1.05, 0.85";
/// For what has no target of its own.
pub const NO_TARGET: &str = "–";

/// The rows of one scenario.
pub fn cpu_rows(scenario: &str, per: Per, pairs: &[Pairs], targets: &str) -> String {
    let mut out = String::new();
    for row in pairs {
        let of = |pick: fn(&super::series::Pair) -> f64| Spread::of(row.kept.iter().map(pick));
        let (cpu, rate) = (of(super::series::Pair::cpu), of(super::series::Pair::rate));
        let unit = if per == Per::Event { "µs/event" } else { "µs" };
        let target = if row.name.starts_with("governed") { targets } else { NO_TARGET };
        let _ = writeln!(
            out,
            "| {scenario} | {} | **{}** | {target} | {:.1} → {:.1} {unit} | {} | {:.0} → {:.0} | {:.0} % | {:.1} | {:.2}/{:.2} | {}{} |",
            row.name,
            ratio(cpu),
            of(|pair| pair.nginx_cpu).median,
            of(|pair| pair.ours.cpu).median,
            ratio(rate),
            of(|pair| pair.nginx_rate).median,
            of(|pair| pair.ours.rate).median,
            of(|pair| pair.ours.used * 100.0).median,
            of(|pair| pair.ours.helpers).median,
            of(|pair| pair.ours.p50 / 1e3).median,
            of(|pair| pair.ours.p99 / 1e3).median,
            row.kept.len(),
            remarks(row),
        );
    }
    out
}

fn remarks(row: &Pairs) -> String {
    let worst = Spread::of(row.kept.iter().map(|pair| pair.foreign * 100.0));
    match (row.rejected, row.disturbed) {
        (0, false) => String::new(),
        (rejected, false) => format!(", {rejected} rejected"),
        (rejected, true) => format!(", {rejected} rejected, DISTURBED by up to {:.0} %", worst.max),
    }
}

/// Median and range of a ratio.
pub fn ratio(spread: Spread) -> String {
    format!("{:.2} [{:.2}..{:.2}]", spread.median, spread.min, spread.max)
}

/// Head of the rows of [`cpu_rows`].
pub const CPU_HEAD: &str = "| load | variant | CPU in units of nginx | target: ship, wanted, goal | CPU nginx → ours | \
requests/s in units of nginx | requests/s nginx → ours | own core used | Redis µs | p50/p99 ms under load | pairs |\n\
|---|---|---|---|---|---|---|---|---|---|---|\n";

/// Added latency of one scenario: name and nanoseconds of each server beyond the direct way.
pub struct Added {
    /// The scenario.
    pub scenario: String,
    /// Median of the direct way, in nanoseconds.
    pub direct: f64,
    /// Of each server.
    pub servers: Vec<(String, Spread)>,
}

/// A table of added latency.
pub fn added(rows: &[Added]) -> String {
    let mut out = String::from(
        "| one at a time | server | p50 beyond the direct way, µs | direct, µs |\n|---|---|---|---|\n",
    );
    for row in rows {
        for (name, spread) in &row.servers {
            let [median, min, max] = [spread.median, spread.min, spread.max].map(|ns| ns / 1e3);
            let direct = row.direct / 1e3;
            let _ = writeln!(
                out,
                "| {} | {name} | +{median:.0} [{min:.0}..{max:.0}] | {direct:.0} |",
                row.scenario
            );
        }
    }
    out
}

/// A table of memory.
pub fn memory(rows: &[Memory], streams: usize) -> String {
    let mut out = format!(
        "| server | RSS idle, MiB | with {streams} open streams, MiB | KiB per open stream (≤ 40) | \
         KiB per idle connection (≤ 20) |\n|---|---|---|---|---|\n"
    );
    for row in rows {
        let _ = writeln!(
            out,
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} |",
            row.name,
            super::series::float(row.idle) / 1024.0,
            super::series::float(row.open) / 1024.0,
            row.per_stream,
            row.per_idle
        );
    }
    out
}

/// How two variants of the same scenario differ: the ratio of the medians.
pub fn compared(what: &str, scenario: &str, pairs: &[Pairs], this: &str, that: &str) -> String {
    let median = |name: &str| {
        let row = pairs.iter().find(|row| row.name == name)?;
        Some(Spread::of(row.kept.iter().map(super::series::Pair::cpu)).median)
    };
    match (median(this), median(that)) {
        (Some(a), Some(b)) => format!("- {what}, {scenario}: CPU × {:.2} ({this} over {that})\n", a / b),
        _ => String::new(),
    }
}
