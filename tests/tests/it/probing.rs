//! A provider whose credential is refused is asked by one proxy of the fleet; if that one dies, by another, until the
//! provider is back without a person.

use crate::answers::Dialect;
use crate::scene::{CLAUDE, Duel};
use anyhow::{Context, Result};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use testkit::client::http;
use testkit::fleet::Fleet;
use testkit::redis::Redis;
use testkit::upstream::Answer;

const PATIENCE: Duration = Duration::from_secs(40);
/// The longest pause between two questions, in ms.
const PAUSE_MS: i64 = 1_000;

/// Questions that each proxy has put; none for one that does not run.
async fn probes(fleet: &Fleet) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for proxy in &fleet.proxies {
        let page = match http().get(format!("{}/metrics", proxy.ops_url())).send().await {
            Ok(answer) => answer.text().await?,
            Err(_) => String::new(),
        };
        let lines = page.lines().filter(|line| line.starts_with("switchyard_proxy_health_probes_total"));
        all.push(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum());
    }
    Ok(all)
}

/// How often a key was to be set: by those who want to ask, while no caller does anything.
fn wishes(redis: &Redis) -> Result<u64> {
    let stats = redis.command(&["INFO", "commandstats"])?;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
    Ok(line.context("no SET yet")?.split(',').next().unwrap_or_default().parse()?)
}

#[tokio::test]
async fn one_proxy_asks_a_refused_provider_and_another_when_that_one_dies() -> Result<()> {
    let plan = Fleet::plan().proxy_env("HEALTH_PROBE_FIRST", "500ms").proxy_env("HEALTH_PROBE_MAX", "1s");
    let mut duel = Duel::open_on(plan, json!({}), json!({})).await?;
    let refusal =
        json!({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}});
    duel.a.always([Answer::status(401).body(refusal.to_string())]);
    // Callers are served by the other one while they bring it to light; a model that was refused rests there.
    let models = AtomicU64::new(0);
    testkit::eventually(PATIENCE, || async {
        let model = format!("{CLAUDE}-{}", models.fetch_add(1, Ordering::Relaxed));
        duel.alice.status(&model).await.is_ok_and(|status| status == 200)
            && probes(&duel.fleet).await.is_ok_and(|probes| probes.iter().sum::<u64>() >= 3)
    })
    .await
    .with_context(|| duel.fleet.logs())?;
    // Whoever asks holds a key that ends by itself.
    let key = format!("sw:only:probe:{}", duel.id_a);
    let redis = duel.fleet.redis.as_ref().context("Redis")?;
    testkit::eventually(PATIENCE, || async {
        let life = redis.command(&["PTTL", &key]).unwrap_or_default();
        life.trim().parse().is_ok_and(|life: i64| (1..=PAUSE_MS).contains(&life))
    })
    .await?;
    // As long as somebody else holds it, nobody asks, though both want to.
    redis.command(&["SET", &key, "held"])?;
    let more = async |more: u64| {
        let before = wishes(redis)?;
        testkit::eventually(PATIENCE, || async { wishes(redis).is_ok_and(|now| now >= before + more) }).await
    };
    // Who was asking when it was taken away has its answer before it wants to ask again.
    more(4).await?;
    let before = probes(&duel.fleet).await?;
    more(4).await?;
    assert_eq!(probes(&duel.fleet).await?, before);
    redis.command(&["DEL", &key])?;
    let asked = probes(&duel.fleet).await?;
    let (dies, lives) = if asked[0] >= asked[1] { (0, 1) } else { (1, 0) };
    duel.fleet.proxies[dies].kill();
    testkit::eventually(PATIENCE, || async {
        probes(&duel.fleet).await.is_ok_and(|now| now[lives] >= asked[lives] + 2)
    })
    .await
    .with_context(|| duel.fleet.logs())?;
    // The credential is accepted again: callers come back by themselves.
    duel.a.reset();
    let caller = duel.alice.at(&duel.fleet.proxies[lives].url());
    testkit::eventually(PATIENCE, || async {
        let body = Dialect::Messages.question(true);
        let served = caller.post("/v1/messages").json(&body).send().await;
        let whole = served.is_ok_and(|answer| answer.status() == 200);
        whole
            && duel.a.requests().iter().any(|seen| String::from_utf8_lossy(&seen.body).contains("Say hello"))
    })
    .await
    .with_context(|| duel.fleet.logs())
}
