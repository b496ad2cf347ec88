//! Slices of load, one after the other: every slice of ours between two of nginx.

use super::load::{Connections, Outcome, Request};
use super::machine;
use anyhow::{Result, bail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// After a slice, until what it left behind (settlements, records) has been worked off.
const SETTLE: Duration = Duration::from_millis(30);
/// A slice in which more than this share of the requests failed measures something else.
const FAILED: f64 = 0.001;
/// How often a disturbed pair is tried again, per pair that is wanted.
const PATIENCE: usize = 2;

/// What CPU time is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// A whole answer.
    Answer,
    /// An event of a stream.
    Event,
}

/// How a slice is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Length of the load.
    pub time: Duration,
    /// Over which time the connections begin.
    pub stagger: Duration,
    /// Unit of the result.
    pub per: Per,
    /// Pairs per subject.
    pub pairs: usize,
}

/// One server under load.
pub struct Target {
    /// For the report.
    pub name: String,
    /// Its processes.
    pub pids: Vec<u32>,
    /// Processes that work for it elsewhere (Redis); counted apart.
    pub helpers: Vec<u32>,
    connections: Connections,
}

impl Target {
    /// Connects once per request.
    pub async fn open(
        name: &str,
        address: SocketAddr,
        pids: Vec<u32>,
        helpers: Vec<u32>,
        requests: &[Request],
    ) -> Result<Self> {
        let connections = Connections::open(address, requests).await?;
        Ok(Self { name: name.to_owned(), pids, helpers, connections })
    }
}

/// What one slice showed.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Microseconds of CPU per unit.
    pub cpu: f64,
    /// The same of the helpers.
    pub helpers: f64,
    /// Answers per second.
    pub rate: f64,
    /// Share of its core that the server used.
    pub used: f64,
    /// Microseconds of the median answer.
    pub p50: f64,
    /// Microseconds of the slow answers.
    pub p99: f64,
    /// CPU time of strangers, as a share of one core.
    pub foreign: f64,
}

/// A slice of ours and what nginx did before and after it.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Ours.
    pub ours: Slice,
    /// CPU of nginx, mean of the neighbours.
    pub nginx_cpu: f64,
    /// Answers per second of nginx, mean of the neighbours.
    pub nginx_rate: f64,
    /// The most foreign CPU in the three slices.
    pub foreign: f64,
}

impl Pair {
    /// CPU of ours in units of nginx.
    pub fn cpu(&self) -> f64 {
        self.ours.cpu / self.nginx_cpu
    }

    /// Rate of ours in units of nginx.
    pub fn rate(&self) -> f64 {
        self.ours.rate / self.nginx_rate
    }
}

/// The pairs of one subject.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Of the target.
    pub name: String,
    /// The pairs that count.
    pub kept: Vec<Pair>,
    /// How many were disturbed and thrown away.
    pub rejected: usize,
    /// Whether too few were undisturbed, so that disturbed ones are kept.
    pub disturbed: bool,
}

/// What decides whether a slice counts.
#[derive(Clone, Debug)]
pub struct Quiet {
    /// All processes of this benchmark, this one included.
    pub own: Vec<u32>,
    /// Largest share of a core that strangers may use.
    pub limit: f64,
}

impl Quiet {
    /// Loads `target` once.
    pub async fn slice(&self, target: &mut Target, plan: Plan) -> Result<Slice> {
        let before = (machine::cpu_ns(&target.pids), machine::cpu_ns(&target.helpers));
        let (busy, own) = (machine::busy_ns(), machine::cpu_ns(&self.own));
        let begin = Instant::now();
        let outcome = target.connections.run(plan.time, plan.stagger).await?;
        tokio::time::sleep(SETTLE).await;
        let cpu = machine::cpu_ns(&target.pids) - before.0;
        let helpers = machine::cpu_ns(&target.helpers) - before.1;
        let strangers = (machine::busy_ns() - busy).saturating_sub(machine::cpu_ns(&self.own) - own);
        check(&target.name, &outcome)?;
        let units = float(if plan.per == Per::Event { outcome.events } else { outcome.answers });
        Ok(Slice {
            cpu: float(cpu) / 1e3 / units,
            helpers: float(helpers) / 1e3 / units,
            rate: float(outcome.answers) / outcome.elapsed.as_secs_f64(),
            used: float(cpu) / 1e9 / outcome.elapsed.as_secs_f64(),
            p50: outcome.quantile(0.5),
            p99: outcome.quantile(0.99),
            foreign: float(strangers) / 1e9 / begin.elapsed().as_secs_f64(),
        })
    }

    /// `plan.pairs` pairs of every subject, in turn.
    pub async fn series(
        &self,
        nginx: &mut Target,
        subjects: &mut [Target],
        plan: Plan,
    ) -> Result<Vec<Pairs>> {
        let mut all: Vec<(Vec<Pair>, Vec<Pair>)> = subjects.iter().map(|_| Default::default()).collect();
        // The first slices warm caches and connections up.
        for target in std::iter::once(&mut *nginx).chain(subjects.iter_mut()) {
            self.slice(target, Plan { time: plan.time / 2, ..plan }).await?;
        }
        let mut before = self.slice(nginx, plan).await?;
        for _ in 0..plan.pairs * PATIENCE {
            for (subject, (quiet, disturbed)) in subjects.iter_mut().zip(&mut all) {
                if quiet.len() >= plan.pairs {
                    continue;
                }
                let ours = self.slice(subject, plan).await?;
                let after = self.slice(nginx, plan).await?;
                let pair = Pair {
                    ours,
                    nginx_cpu: f64::midpoint(before.cpu, after.cpu),
                    nginx_rate: f64::midpoint(before.rate, after.rate),
                    foreign: ours.foreign.max(before.foreign).max(after.foreign),
                };
                before = after;
                if pair.foreign > self.limit { disturbed.push(pair) } else { quiet.push(pair) }
            }
        }
        let named = subjects.iter().zip(all);
        Ok(named.map(|(subject, (quiet, disturbed))| keep(&subject.name, quiet, disturbed)).collect())
    }
}

/// The undisturbed pairs if there are three; otherwise the least disturbed ones besides.
fn keep(name: &str, quiet: Vec<Pair>, mut disturbed: Vec<Pair>) -> Pairs {
    let (mut kept, rejected) = (quiet, disturbed.len());
    let missing = 3_usize.saturating_sub(kept.len());
    disturbed.sort_by(|a, b| a.foreign.total_cmp(&b.foreign));
    disturbed.truncate(missing);
    let rejected = rejected - disturbed.len();
    let is_disturbed = !disturbed.is_empty();
    kept.append(&mut disturbed);
    Pairs { name: name.to_owned(), kept, rejected, disturbed: is_disturbed }
}

fn check(name: &str, outcome: &Outcome) -> Result<()> {
    let complaint = outcome.complaint.as_deref().unwrap_or("no request was sent");
    if outcome.answers == 0 || float(outcome.failed) > FAILED * float(outcome.answers) {
        bail!("{name}: {} answers, {} failures, the first: {complaint}", outcome.answers, outcome.failed);
    }
    if outcome.failed > 0 {
        eprintln!("  {name}: {} of {} failed, the first: {complaint}", outcome.failed, outcome.answers);
    }
    Ok(())
}

/// Counters as numbers to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counters of a short run are far below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// Median and range.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of any values; NaN if there are none.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = values.collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(f64::NAN);
        let last = all.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { median, min: at(0), max: at(last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let spread = Spread::of([3.0, 1.0, 2.0, 10.0].into_iter());
        assert!((spread.median - 2.5).abs() < 1e-9 && spread.min < 1.1 && spread.max > 9.9);
        assert!((Spread::of([7.0].into_iter()).median - 7.0).abs() < 1e-9);
    }

    #[test]
    fn disturbed_pairs_count_only_where_others_are_missing() {
        let slice = Slice { cpu: 1.0, helpers: 0.0, rate: 1.0, used: 1.0, p50: 1.0, p99: 1.0, foreign: 0.0 };
        let pair = |foreign| Pair { ours: slice, nginx_cpu: 1.0, nginx_rate: 1.0, foreign };
        let enough = keep("a", vec![pair(0.0); 3], vec![pair(0.5)]);
        assert_eq!((enough.kept.len(), enough.rejected, enough.disturbed), (3, 1, false));
        let few = keep("a", vec![pair(0.0)], vec![pair(0.9), pair(0.2), pair(0.3)]);
        assert_eq!((few.kept.len(), few.rejected, few.disturbed), (3, 1, true));
        assert!(few.kept.iter().all(|pair| pair.foreign < 0.5));
    }
}
