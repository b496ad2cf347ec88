//! Parts die under load. No answer is lost, none is counted twice, and callers of what still lives notice nothing.

use crate::load::{Load, every_answer_once};
use crate::scene::{CLAUDE, Scene};
use anyhow::{Context, Result};
use serde_json::json;
use std::time::{Duration, Instant};
use testkit::chaos::{Chaos, Target};
use testkit::fleet::{self, Fleet};
use testkit::upstream::Answer;

/// Callers at once.
const WORKERS: usize = 6;
/// How long a proxy may take to end by itself.
const DRAIN: Duration = Duration::from_secs(30);

/// How long the control plane stays away: long enough for every back-off to reach its end.
const OUTAGE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_killed_proxy_loses_no_completed_answer() -> Result<()> {
    let mut scene = Scene::open(Fleet::plan()).await?;
    let load = Load::start(&scene.fleet, &scene.key, WORKERS);
    for _ in 0..2 {
        load.passes(60).await?;
        scene.fleet.proxies[0].kill();
        load.passes(20).await?;
        scene.fleet.start_proxy(0).await?;
    }
    load.passes(60).await?;
    let done = load.stop().await;
    // Answers that were under way at the kills broke; nothing else did.
    assert!(done.failed.len() <= 2 * WORKERS, "{:?}", done.failed);
    every_answer_once(&scene.fleet, &done).await
}

#[tokio::test]
async fn without_the_control_plane_nobody_notices_not_even_a_restarted_proxy() -> Result<()> {
    let mut scene = Scene::open(Fleet::plan().proxy_env("DRAIN_DELAY", "500ms")).await?;
    let load = Load::start(&scene.fleet, &scene.key, WORKERS);
    load.passes(30).await?;
    scene.fleet.kill_control();
    let begin = Instant::now();
    load.passes(30).await?;
    let code = scene.fleet.stop_proxy(1, DRAIN).await?;
    assert_eq!(code, Some(0), "{}", scene.fleet.logs());
    scene.fleet.start_proxy(1).await.context("start from the table on disk")?;
    assert_eq!(scene.alice(1).status(CLAUDE).await?, 200);
    while begin.elapsed() < OUTAGE {
        load.passes(10).await?;
    }
    scene.fleet.start_control().await?;
    load.passes(30).await?;
    let done = load.stop().await;
    assert_eq!(done.failed, [""; 0]);
    every_answer_once(&scene.fleet, &done).await?;
    // One more than the load: Alice's own question above.
    scene.fleet.expect_records("true", u64::try_from(done.completed.len())? + 1).await?;
    scene.fleet.sync().await
}

#[tokio::test]
async fn without_postgres_requests_go_on_and_admins_are_told() -> Result<()> {
    let database = fleet::database()?;
    let chaos = Chaos::start(Target::Unix(database.socket.clone())).await?;
    let url = format!("postgres://test@127.0.0.1:{}/{}", chaos.port, database.name);
    let plan = Fleet::plan().database_through(database, url);
    let plan =
        plan.control_env("DATABASE_WAIT_MS", "1000").control_env("DATABASE_CONNECT_TIMEOUT_MS", "1000");
    let scene = Scene::open(plan).await?;
    let load = Load::start(&scene.fleet, &scene.key, WORKERS);
    load.passes(30).await?;
    chaos.cut();
    load.passes(100).await?;
    let (status, body) = scene.fleet.admin.attempt("users/addUser", json!({"name": "Nobody"})).await?;
    assert_eq!((status, &body["ok"]), (503, &json!(false)), "{body}");
    assert!(body["error"].is_string(), "{body}");
    load.passes(50).await?;
    chaos.restore();
    let done = load.stop().await;
    assert_eq!(done.failed, [""; 0]);
    every_answer_once(&scene.fleet, &done).await?;
    testkit::eventually(DRAIN, || async { scene.fleet.admin.user(json!({"name": "Bob"})).await.is_ok() })
        .await?;
    scene.fleet.sync().await
}

#[tokio::test]
async fn without_redis_requests_go_on_and_an_empty_one_learns_what_was_spent() -> Result<()> {
    let mut scene = Scene::open(Fleet::plan()).await?;
    let (bob, key) = scene.user(json!({"name": "Bob", "dailyQuota": 0.01})).await?;
    scene.upstream.script([Answer::ok().tokens(2000, 400)]);
    assert_eq!(scene.fleet.caller(0, &key).status(CLAUDE).await?, 200);
    scene.fleet.expect_records(&format!("user_id = {bob} AND cost = 0.012"), 1).await?;
    for at in [0, 1] {
        assert_eq!(scene.fleet.caller(at, &key).status(CLAUDE).await?, 402);
    }
    let load = Load::start(&scene.fleet, &scene.key, WORKERS);
    load.passes(30).await?;
    scene.fleet.redis.as_mut().context("Redis")?.kill();
    load.passes(100).await?;
    scene.fleet.redis.as_mut().context("Redis")?.restart().await?;
    load.passes(50).await?;
    // Bob asks until the empty Redis knows of him; he is never served.
    let redis = scene.fleet.redis.as_ref().context("Redis")?;
    testkit::eventually(DRAIN, || async {
        for at in [0, 1] {
            let status = scene.fleet.caller(at, &key).status(CLAUDE).await;
            assert_eq!(status.ok(), Some(402), "at proxy {at}");
        }
        redis.dump().is_ok_and(|dump| !dump.trim().is_empty())
    })
    .await?;
    let done = load.stop().await;
    assert_eq!(done.failed, [""; 0]);
    every_answer_once(&scene.fleet, &done).await?;
    scene.fleet.expect_records(&format!("user_id = {bob}"), 1).await
}
