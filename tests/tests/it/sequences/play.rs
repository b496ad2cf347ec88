//! Plays sequences on a fleet.

use super::check::{Saw, Sights, saw};
use super::steps::{Ask, Blow, Fault, Kind, Sequence, Step};
use crate::answers::read;
use crate::scene::{CLAUDE, prices};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use testkit::chaos::{Chaos, Target};
use testkit::client::{Caller, http};
use testkit::fleet::Fleet;
use testkit::redis::Redis;
use testkit::upstream::{Answer, Upstream};
use tokio::task::JoinSet;

/// How long processes may take over anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet on which one sequence after another is played.
pub struct Stage {
    pub fleet: Fleet,
    pub redis: Redis,
    /// Between the proxies and Redis.
    chaos: Chaos,
    upstream: Upstream,
    /// How often each proxy has counted alone.
    alone: Vec<u64>,
    played: Vec<(Sequence, Cast, Sights)>,
}

/// Who takes part in one sequence.
#[derive(Clone)]
pub struct Cast {
    pub users: [i64; 2],
    /// Ids and clear texts.
    pub keys: [(i64, String); 3],
    /// The credential of the provider that is asked first.
    first: String,
}

/// Requests since the counters of requests were lost last.
struct Stretch {
    begun: Instant,
    most: u64,
    sessions: Vec<String>,
}

impl Stretch {
    fn new(most: u64) -> Self {
        Self { begun: Instant::now(), most, sessions: Vec::new() }
    }
}

impl Stage {
    /// Sessions of the requests that the upstream had in full.
    pub fn had(&self) -> BTreeSet<String> {
        let name = |seen: &testkit::upstream::Seen| {
            seen.headers.get("x-session-id").and_then(|name| name.to_str().ok().map(str::to_owned))
        };
        self.upstream.requests().iter().filter_map(name).collect()
    }

    pub async fn open() -> Result<Self> {
        let redis = Redis::start().await?;
        let chaos = Chaos::start(Target::Port(redis.port)).await?;
        let url = format!("redis://127.0.0.1:{}", chaos.port);
        let plan = Fleet::plan().without_redis().proxy_env("REDIS_URL", &url);
        // Settlements are lost early and missed soon.
        let plan = plan.proxy_env("SETTLE_BACKLOG", "2").proxy_env("COMPARE_EVERY", "10s");
        let plan = plan.proxy_env("REDIS_TIMEOUT", "2s").proxy_env("REPORT_LINGER", "50ms");
        let plan = plan.proxy_env("RETRY_PAUSE", "5ms").proxy_env("DRAIN_TIMEOUT", "20s");
        let fleet = plan.start().await?;
        prices(&fleet).await?;
        let upstream = Upstream::start().await;
        let stage = Self { fleet, redis, chaos, upstream, alone: vec![0, 0], played: Vec::new() };
        stage.counts_together().await?;
        Ok(stage)
    }

    /// Users, keys and providers of a sequence.
    async fn cast(&self, seed: u64) -> Result<Cast> {
        let (admin, group) = (&self.fleet.admin, format!("g{seed}"));
        let first = format!("sk-first-{seed}-aaaa{:04}", seed % 10_000);
        for (priority, credential) in [&first, &format!("sk-second-{seed}-bbbb")].into_iter().enumerate() {
            let more = json!({
                "name": format!("{group} {priority}"), "apiKey": credential, "priority": priority, "groupTag": group,
                "circuitBreakerFailureThreshold": 5 * (1 - priority),
            });
            admin.provider("claude", &self.upstream.url(), more).await?;
        }
        let user =
            json!({"name": format!("{group} a"), "providerGroup": group, "rpm": 60, "dailyQuota": 1000});
        let (one, key) = admin.user(user).await?;
        let user = json!({"name": format!("{group} b"), "providerGroup": group, "dailyQuota": 0.02});
        let (other, third) = admin.user(user).await?;
        let second = admin.key(one, "second", json!({"providerGroup": group})).await?;
        let id = |user: i64, name: &str| -> Result<i64> {
            let query = format!("SELECT id FROM keys WHERE user_id = {user} AND name {name} 'second'");
            Ok(self.fleet.sql(&query)?.trim().parse()?)
        };
        self.fleet.sync().await?;
        let keys = [(id(one, "<>")?, key), second, (id(other, "<>")?, third)];
        Ok(Cast { users: [one, other], keys, first })
    }

    /// A metric of each proxy, over all its labels.
    async fn metric(&self, name: &str) -> Result<Vec<u64>> {
        let http = http();
        let mut all = Vec::new();
        for proxy in &self.fleet.proxies {
            let page = http.get(format!("{}/metrics", proxy.ops_url())).send().await?.text().await?;
            let lines = page.lines().filter(|line| line.starts_with(name));
            let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
            all.push(values.sum());
        }
        Ok(all)
    }

    /// Waits until no proxy counts alone.
    async fn counts_together(&self) -> Result<()> {
        let together = || async {
            let local = self.metric("switchyard_proxy_limits_local").await;
            local.is_ok_and(|local| local.iter().all(|local| *local == 0))
        };
        testkit::eventually(PATIENCE, together).await.context("a proxy goes on counting alone")
    }

    /// Whether a proxy counted alone since this was asked last: Redis was away, or slow because the machine is busy.
    async fn counted_alone(&mut self) -> Result<bool> {
        let now = self.metric("switchyard_proxy_limiter_fallbacks_total").await?;
        let before = std::mem::replace(&mut self.alone, now);
        Ok(self.alone.iter().zip(before).any(|(now, before)| *now > before))
    }

    /// Plays a sequence and compares what callers saw with the ledger.
    pub async fn play(&mut self, sequence: &Sequence) -> Result<()> {
        let begun = Instant::now();
        let cast = self.cast(sequence.seed).await?;
        let (mut sights, mut stretches) = (Sights::new(), vec![Stretch::new(60)]);
        for (number, step) in sequence.steps.iter().enumerate() {
            let said = || format!("at step {number}, {step:?}");
            match step {
                Step::Limits { rpm, quota } => {
                    self.limit(&cast, *rpm, *quota).await.with_context(said)?;
                    let stretch = stretches.last_mut().context("a stretch")?;
                    stretch.most = stretch.most.max(*rpm);
                }
                Step::Crowd { asks, fault, blow } => {
                    let name = |at: usize| format!("q{}-{number}-{at}", sequence.seed);
                    let seen = self.crowd(&cast, &name, asks, (*fault, *blow)).await.with_context(said)?;
                    let most = stretches.last().context("a stretch")?.most;
                    if self.counted_alone().await? || blow.concerns_redis() {
                        stretches.push(Stretch::new(most));
                    } else {
                        let limited =
                            seen.iter().filter(|(_, (key, _))| *key < 2).map(|(name, _)| name.clone());
                        stretches.last_mut().context("a stretch")?.sessions.extend(limited);
                    }
                    sights.extend(seen);
                }
            }
        }
        let records = self.check(&cast, &sights).await?;
        println!("seed {}: {:?}", sequence.seed, begun.elapsed());
        for stretch in &stretches {
            bounded(stretch, &records)?;
        }
        self.played.push((sequence.clone(), cast, sights));
        Ok(())
    }

    async fn limit(&self, cast: &Cast, rpm: u64, quota: u64) -> Result<()> {
        let mut body = json!({"userId": cast.users[0], "rpm": rpm});
        body["dailyQuota"] = serde_json::from_str(&format!("{}.{:03}", quota / 1000, quota % 1000))?;
        self.fleet.admin.action("users/editUser", body).await?;
        self.fleet.sync().await
    }

    async fn crowd(
        &mut self,
        cast: &Cast,
        name: &dyn Fn(usize) -> String,
        asks: &[Ask],
        (fault, blow): (Fault, Blow),
    ) -> Result<Sights> {
        let script = match fault {
            Fault::None => None,
            Fault::Broken => Some(Answer::status(500)),
            Fault::Limited => Some(Answer::status(429).retry_after(1)),
            Fault::HangsUp => Some(Answer::refuse()),
            Fault::CutEarly => Some(Answer::ok().cut(0)),
        };
        self.upstream.script_for(&cast.first, script, true);
        let mut tasks = JoinSet::new();
        for (at, ask) in asks.iter().copied().enumerate() {
            let caller = self.fleet.caller(ask.proxy, &cast.keys[ask.key].1).without_pool();
            let name = name(at);
            tasks.spawn(async move { (name.clone(), ask.key, request(&caller, &name, ask).await) });
        }
        let mut sights = Sights::new();
        let mut take = |ended: Result<_, tokio::task::JoinError>| -> Result<()> {
            let (name, key, saw): (String, usize, Result<Saw>) = ended?;
            let saw = saw.with_context(|| name.clone())?;
            sights.insert(name, (key, saw));
            Ok(())
        };
        if let Some(ended) = tasks.join_next().await {
            take(ended)?;
        }
        self.strike(blow).await?;
        while let Some(ended) = tasks.join_next().await {
            take(ended)?;
        }
        self.mend(blow).await?;
        self.upstream.script_for(&cast.first, [], false);
        Ok(sights)
    }

    async fn strike(&mut self, blow: Blow) -> Result<()> {
        match blow {
            Blow::None => {}
            Blow::Kill(at) => self.fleet.proxies[at].kill(),
            Blow::Stop(at) => {
                let code = self.fleet.stop_proxy(at, PATIENCE).await?;
                ensure!(code == Some(0), "a stopped proxy ended with {code:?}\n{}", self.fleet.logs());
            }
            Blow::Control => self.fleet.kill_control(),
            Blow::Both(at) => {
                self.fleet.kill_control();
                self.fleet.proxies[at].kill();
            }
            Blow::Unreachable => self.chaos.cut(),
            Blow::Flush => drop(self.redis.command(&["FLUSHALL"])?),
            Blow::Restart => self.redis.kill(),
        }
        Ok(())
    }

    async fn mend(&mut self, blow: Blow) -> Result<()> {
        match blow {
            Blow::None | Blow::Flush => return Ok(()),
            Blow::Kill(at) | Blow::Stop(at) => self.fleet.start_proxy(at).await?,
            Blow::Control => self.fleet.start_control().await?,
            Blow::Both(at) => {
                // From the table on its disk.
                self.fleet.start_proxy(at).await?;
                self.fleet.start_control().await?;
            }
            Blow::Unreachable => self.chaos.restore(),
            Blow::Restart => self.redis.restart().await?,
        }
        self.fleet.sync().await?;
        self.counts_together().await
    }

    /// A request that the upstream refuses: it uses the counters and costs nothing.
    pub async fn touch(&self, cast: &Cast, key: usize, proxy: usize) -> Result<Saw> {
        let ask = Ask { key, proxy, stream: false, words: 1, kind: Kind::Refused };
        let caller = self.fleet.caller(proxy, &cast.keys[key].1);
        request(&caller, "end", ask).await
    }

    /// After all sequences: nothing came later or twice, and the counters of everybody are what the ledger says.
    pub async fn end(self) -> Result<()> {
        for (sequence, cast, sights) in &self.played {
            self.check(cast, sights).await.with_context(|| format!("in the end, {sequence}"))?;
            for user in cast.users {
                let free = json!({"userId": user, "rpm": 1_000_000, "dailyQuota": 1000});
                self.fleet.admin.action("users/editUser", free).await?;
            }
        }
        self.fleet.sync().await?;
        let begun = Instant::now();
        for (sequence, cast, _) in &self.played {
            self.check_counters(sequence, cast).await?;
        }
        println!("all counters are right after {:?}", begun.elapsed());
        Ok(())
    }
}

/// Nobody was served more than the limit allows in the time that passed.
fn bounded(stretch: &Stretch, records: &BTreeMap<String, usize>) -> Result<()> {
    let admitted: usize = stretch.sessions.iter().filter_map(|name| records.get(name)).sum();
    let minutes = 1 + stretch.begun.elapsed().as_secs() / 60;
    let most = stretch.most * minutes;
    ensure!(admitted as u64 <= most, "{admitted} requests were admitted, where {most} may be");
    Ok(())
}

fn body(ask: Ask) -> Value {
    let question = "why ".repeat(ask.words);
    json!({
        "model": CLAUDE, "max_tokens": 100, "stream": ask.stream,
        "messages": [{"role": "user", "content": question}],
    })
}

async fn request(caller: &Caller, name: &str, ask: Ask) -> Result<Saw> {
    let directive = match ask.kind {
        Kind::Plain => None,
        Kind::Slow => Some("gap=10,events=20"),
        Kind::Refused => Some("status=400"),
        Kind::Cut => Some("cut=6"),
        Kind::Left => Some("hang=6"),
    };
    let mut request = caller.post("/v1/messages").header("x-session-id", name).json(&body(ask));
    if let Some(directive) = directive {
        request = request.header("x-demo", directive);
    }
    let mut answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Ok(Saw::Nobody),
        Err(_) => return Ok(Saw::Broken),
    };
    if ask.kind == Kind::Left && answer.status() == 200 {
        // Whether something came or the connection broke: the caller is gone after it.
        let _ = answer.chunk().await;
        return Ok(Saw::Left);
    }
    saw(&read(answer).await, ask.stream)
}
