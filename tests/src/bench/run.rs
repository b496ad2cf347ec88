//! The order of a run: start everything, measure each scenario, print as it comes.

use super::bodies::{BODIES, Body};
use super::latency::Caller;
use super::load::{Request, quantile};
use super::memory;
use super::nginx::Nginx;
use super::profile::Recording;
use super::report::{self, Added};
use super::series::{Pairs, Per, Plan, Quiet, Spread, Target, float};
use super::subject::{Subject, conversation};
use super::{LOAD_CORE, bodies, instructions, machine, upstream};
use anyhow::{Result, bail};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections of the closed-loop loads.
const CONNECTIONS: usize = 64;
/// Streams at a time of the paced load.
const PACED: usize = 600;
/// Keys of the large table.
const CROWD: u64 = 100_000;
/// Streams of the memory measurement.
const OPEN: usize = 5_000;

/// What the command line can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Full,
    /// Fewer and shorter slices.
    Quick,
    /// Only nginx against a second nginx: how far the method can be trusted on this machine now.
    Method,
    /// No comparison, but a profile of the governed proxy.
    Profile,
    /// No comparison, but the proxy's own instructions per request.
    Instructions,
}

impl Extent {
    /// From a word of the command line.
    pub fn parse(word: Option<&str>) -> Result<Self> {
        Ok(match word {
            None | Some("full") => Self::Full,
            Some("quick") => Self::Quick,
            Some("method") => Self::Method,
            Some("profile") => Self::Profile,
            Some("instructions") => Self::Instructions,
            Some(other) => bail!("unknown argument {other}: full, quick, method, profile or instructions"),
        })
    }
}

/// The servers of a run.
struct Bench {
    extent: Extent,
    quiet: Quiet,
    upstream: SocketAddr,
    nginx: Nginx,
    /// With ten keys in its table, then with many.
    subjects: Vec<Subject>,
    folder: tempfile::TempDir,
}

/// Runs and prints.
pub async fn run(extent: Extent) -> Result<()> {
    machine::pin(std::process::id(), LOAD_CORE)?;
    let folder = tempfile::tempdir()?;
    let upstream = upstream::start()?;
    if extent == Extent::Instructions {
        return instructions::print(upstream, folder.path()).await;
    }
    let nginx = Nginx::start(folder.path(), upstream).await?;
    let limit = std::env::var("BENCH_FOREIGN").ok().and_then(|text| text.parse().ok()).unwrap_or(0.10);
    let own = nginx.pids().into_iter().chain([std::process::id()]).collect();
    let mut bench =
        Bench { extent, quiet: Quiet { own, limit }, upstream, nginx, subjects: Vec::new(), folder };
    println!("{}; nginx: 1 worker, keep-alive, no buffering, no access log", machine::describe());
    if extent == Extent::Method {
        return bench.method().await;
    }
    let sizes: &[u64] = if extent == Extent::Profile { &[0] } else { &[0, CROWD] };
    for size in sizes {
        eprintln!("starting a fleet with {} keys", size + 11);
        let subject = Subject::start(upstream).await?;
        if *size > 0 {
            subject.grow(*size).await?;
        }
        bench.quiet.own.extend(subject.all_pids());
        bench.subjects.push(subject);
    }
    if extent == Extent::Profile {
        return bench.profile().await;
    }
    bench.compare().await
}

impl Bench {
    fn plan(&self, per: Per) -> Plan {
        let quick = self.extent == Extent::Quick;
        let time = if per == Per::Event { Duration::from_secs(3) } else { Duration::from_secs(1) };
        let pairs = match (quick, per) {
            (true, Per::Answer) => 3,
            (false, Per::Answer) => 7,
            (true, Per::Event) => 2,
            (false, Per::Event) => 4,
        };
        let stagger = if per == Per::Event { Duration::from_secs(1) } else { Duration::ZERO };
        Plan { time, stagger, per, pairs }
    }

    async fn nginx_target(&self, requests: &[Request]) -> Result<Target> {
        Target::open("nginx", self.nginx.address, self.nginx.pids(), Vec::new(), requests).await
    }

    /// nginx against nginx: the ratios should be 1.
    async fn method(&mut self) -> Result<()> {
        let second = Nginx::start(self.folder.path(), self.upstream).await?;
        self.quiet.own.extend(second.pids());
        print!("{}", report::CPU_HEAD);
        let modes = [
            ("json", Per::Answer, CONNECTIONS),
            ("burst", Per::Answer, CONNECTIONS),
            ("paced", Per::Event, PACED),
        ];
        for (mode, per, count) in modes {
            for (size, body) in BODIES {
                if mode == "paced" && size == BODIES[1].0 {
                    continue;
                }
                let requests: Vec<Request> =
                    (0..count).map(|at| conversation(mode, "key", at, body)).collect();
                let mut nginx = self.nginx_target(&requests).await?;
                let other =
                    Target::open("second nginx", second.address, second.pids(), Vec::new(), &requests);
                let mut subjects = [other.await?];
                let pairs = self.quiet.series(&mut nginx, &mut subjects, self.plan(per)).await?;
                print!("{}", report::cpu_rows(&format!("{mode} {size}"), per, &pairs, report::NO_TARGET));
            }
        }
        let servers = [("nginx", self.nginx.address, "key".to_owned())];
        println!("\n{}", report::added(&self.latencies(&servers)?));
        Ok(())
    }

    async fn compare(&mut self) -> Result<()> {
        println!("\n{}", report::memory(&self.memory().await?, OPEN));
        self.settle(true)?;
        let [small, crowd] = &self.subjects[..] else { bail!("two fleets were started") };
        let servers = [
            ("nginx", self.nginx.address, "key".to_owned()),
            ("governed, 11 keys", small.address(), small.governed_key()),
            ("ungoverned", small.address(), small.free_key()),
            ("governed, 100,011 keys", crowd.address(), crowd.governed_key()),
        ];
        println!("{}", report::added(&self.latencies(&servers)?));
        println!("{}", report::CPU_HEAD.trim_end());
        let mut notes = String::new();
        for (size, body) in BODIES {
            notes += &self.scenario("json", &format!("JSON, {size}"), Per::Answer, body).await?;
        }
        for (size, body) in BODIES {
            notes +=
                &self.scenario("burst", &format!("50 events at once, {size}"), Per::Answer, body).await?;
        }
        let name = "50 events, one per 20 ms, 1 KB";
        notes += &self.scenario("paced", name, Per::Event, bodies::small).await?;
        println!("\n{notes}");
        self.settle(false)?;
        self.reporting().await
    }

    /// One load at nginx, the governed proxy with few keys, with many, and without limits.
    async fn scenario(&mut self, mode: &str, name: &str, per: Per, body: Body) -> Result<String> {
        let count = if per == Per::Event { PACED } else { CONNECTIONS };
        let [small, crowd] = &self.subjects[..] else { bail!("two fleets were started") };
        let mut targets = Vec::new();
        for (variant, subject, requests) in [
            ("governed, 11 keys", small, small.governed(mode, count, body)),
            ("governed, 100,011 keys", crowd, crowd.governed(mode, count, body)),
            ("ungoverned", small, small.free(mode, count, body)),
        ] {
            let (pids, helpers) = (subject.pids(), subject.helpers());
            targets.push(Target::open(variant, subject.address(), pids, helpers, &requests).await?);
        }
        let mut nginx = self.nginx_target(&small.free(mode, count, body)).await?;
        let pairs: Vec<Pairs> = self.quiet.series(&mut nginx, &mut targets, self.plan(per)).await?;
        let wanted = if mode == "paced" { report::PACED_TARGETS } else { report::CPU_TARGETS };
        print!("{}", report::cpu_rows(name, per, &pairs, wanted));
        let limits = report::compared("limits (≤ 1.15)", name, &pairs, "governed, 11 keys", "ungoverned");
        let growth = "growth (1.0 within noise)";
        Ok(limits + &report::compared(growth, name, &pairs, "governed, 100,011 keys", "governed, 11 keys"))
    }

    /// p50 of one request at a time, beyond the direct way to the upstream.
    fn latencies(&self, servers: &[(&str, SocketAddr, String)]) -> Result<Vec<Added>> {
        let rounds = if self.extent == Extent::Quick { 4 } else { 8 };
        let mut rows = Vec::new();
        for (mode, what) in [("json", "JSON"), ("burst", "first event")] {
            for (size, body) in BODIES {
                rows.push(latency_row(
                    self.upstream,
                    servers,
                    (&format!("{what}, {size}"), mode, body),
                    rounds,
                )?);
            }
        }
        Ok(rows)
    }

    async fn memory(&self) -> Result<Vec<memory::Memory>> {
        let mut rows = Vec::new();
        let [small, crowd] = &self.subjects[..] else { bail!("two fleets were started") };
        for (name, subject) in [("governed, 11 keys", small), ("governed, 100,011 keys", crowd)] {
            let json = subject.governed("json", OPEN, bodies::small);
            let open = subject.governed("open", OPEN, bodies::small);
            rows.push(memory::measure(name, subject.address(), &subject.pids(), &json, &open).await?);
        }
        let (json, open) = (small.free("json", OPEN, bodies::small), small.free("open", OPEN, bodies::small));
        rows.push(memory::measure("nginx", self.nginx.address, &self.nginx.pids(), &json, &open).await?);
        Ok(rows)
    }

    /// Stops or continues the control planes.
    fn settle(&self, quiet: bool) -> Result<()> {
        self.subjects.iter().try_for_each(|subject| subject.quiet(quiet))
    }

    /// What the records cost that waited in the spool: CPU of the proxy per record, while it reports them.
    async fn reporting(&self) -> Result<()> {
        let subject = &self.subjects[0];
        let begin = subject.records()?;
        let waited = crate::eventually(Duration::from_secs(30), || async {
            subject.records().is_ok_and(|records| records > begin)
        });
        waited.await?;
        let (records, cpu) = (subject.records()?, machine::cpu_ns(&subject.pids()));
        tokio::time::sleep(Duration::from_secs(8)).await;
        let (cpu, records) = (machine::cpu_ns(&subject.pids()) - cpu, subject.records()? - records);
        println!(
            "Reporting: {:.1} µs CPU of the proxy per record, {:.0} records/s taken in by the control plane",
            float(cpu) / 1e3 / float(records.max(1)),
            float(records) / 8.0
        );
        Ok(())
    }

    async fn profile(&mut self) -> Result<()> {
        self.settle(true)?;
        let subject = &self.subjects[0];
        for (name, mode, body) in [
            ("JSON, 1 KB", "json", BODIES[0].1),
            ("JSON, 76 KB", "json", BODIES[1].1),
            ("50 events at once, 1 KB", "burst", BODIES[0].1),
        ] {
            let requests = subject.governed(mode, CONNECTIONS, body);
            let (pids, helpers) = (subject.pids(), subject.helpers());
            let mut target = Target::open(name, subject.address(), pids.clone(), helpers, &requests).await?;
            let plan = Plan { time: Duration::from_secs(1), ..self.plan(Per::Answer) };
            self.quiet.slice(&mut target, plan).await?;
            let time = Duration::from_secs(6);
            let recording = Recording::start(pids[0], time, self.folder.path())?;
            let slice = self.quiet.slice(&mut target, Plan { time, ..plan }).await?;
            println!("\n## {name}: {:.1} µs/answer (sampled), {:.0}/s", slice.cpu, slice.rate);
            println!("{}", recording.report()?);
        }
        self.settle(false)
    }
}

fn latency_row(
    upstream: SocketAddr,
    servers: &[(&str, SocketAddr, String)],
    scenario: (&str, &str, Body),
    rounds: usize,
) -> Result<Added> {
    let time = Duration::from_millis(400);
    let (name, mode, body) = scenario;
    let p50 = |caller: &mut Caller, request: &Request| -> Result<f64> {
        let times = caller.measure(request, time)?;
        Ok(quantile(if mode == "json" { &times.whole } else { &times.first }, 0.5))
    };
    let plain = conversation(mode, "key", 0, body);
    let mut direct = Caller::open(upstream)?;
    let mut callers = Vec::new();
    for (_, address, key) in servers {
        callers.push((Caller::open(*address)?, conversation(mode, key, 0, body), Vec::new()));
    }
    let mut directs = vec![p50(&mut direct, &plain)?];
    for round in 0..=rounds {
        for (caller, request, found) in &mut callers {
            let before = *directs.last().unwrap_or(&f64::NAN);
            let ours = p50(caller, request)?;
            let after = p50(&mut direct, &plain)?;
            directs.push(after);
            // The first round warms up.
            if round > 0 {
                found.push(ours - f64::midpoint(before, after));
            }
        }
    }
    let found = callers.into_iter().map(|(_, _, found)| Spread::of(found.into_iter()));
    let servers = servers.iter().map(|(name, ..)| (*name).to_owned()).zip(found).collect();
    Ok(Added { scenario: name.to_owned(), direct: Spread::of(directs.into_iter()).median, servers })
}
