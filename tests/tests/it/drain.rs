//! A proxy that is asked to stop finishes what it began, and a rolling restart is noticed by nobody.

use crate::answers::{Dialect, read};
use crate::load::{Load, every_answer_once};
use crate::scene::{CLAUDE, Scene};
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Duration;
use testkit::client::http;
use testkit::fleet::Fleet;
use testkit::upstream::Answer;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_running_stream_is_finished_before_the_end() -> Result<()> {
    let mut scene = Scene::open(Fleet::plan().proxies(1).proxy_env("DRAIN_DELAY", "300ms")).await?;
    // Long enough for the signal, the look at readiness and the refused connection to happen in between.
    scene.upstream.script([Answer::ok().events(60).gap(Duration::from_millis(50))]);
    let answer = scene.alice(0).message(CLAUDE, true).await?;
    assert_eq!(answer.status(), 200);
    let stream = tokio::spawn(read(answer));
    let (base, ops) = (scene.fleet.proxies[0].url(), scene.fleet.proxies[0].ops_url());
    let mut process = scene.fleet.proxies[0].process.take().context("the proxy")?;
    process.signal("TERM")?;
    let http = http();
    testkit::eventually(PATIENCE, || async {
        let ready = http.get(format!("{ops}/readyz")).send().await;
        ready.is_ok_and(|answer| answer.status() == 503)
    })
    .await
    .context("not ready while draining")?;
    assert!(http.get(format!("{ops}/livez")).send().await?.status().is_success(), "alive while draining");
    testkit::eventually(PATIENCE, || async {
        testkit::client::http_without_pool().get(&base).send().await.is_err_and(|error| error.is_connect())
    })
    .await
    .context("no new connections while draining")?;
    let answer = stream.await?;
    assert!(answer.is_whole(Dialect::Messages), "{}", answer.text);
    assert_eq!(process.ended(PATIENCE).await?, Some(0), "{}", scene.fleet.all_logs()?);
    // Flushed before the exit, not after the next start.
    scene.fleet.expect_records("outcome = 'completed' AND status = 200", 1).await
}

#[tokio::test]
async fn a_stream_beyond_the_deadline_is_cut_and_recorded() -> Result<()> {
    let mut scene = Scene::open(Fleet::plan().proxies(1).proxy_env("DRAIN_TIMEOUT", "1s")).await?;
    scene.upstream.script([Answer::ok().events(20).hang(9)]);
    let mut answer = scene.alice(0).message(CLAUDE, true).await?;
    assert!(answer.chunk().await?.is_some());
    assert_eq!(scene.fleet.stop_proxy(0, PATIENCE).await?, Some(0), "{}", scene.fleet.all_logs()?);
    let rest = read(answer).await;
    assert!(!rest.is_whole(Dialect::Messages) && rest.text.contains("shut down"), "{}", rest.text);
    scene.upstream.eventually(|stats| stats.all().in_flight == 0).await;
    scene.fleet.expect_records("outcome <> 'completed'", 1).await?;
    scene.fleet.expect_records("true", 1).await
}

/// A stream of which nothing has come but keep-alives when its proxy is told to stop; all that it says from then on.
async fn behind_a_keep_alive(answer: Answer, limit: &str) -> Result<(Scene, crate::answers::Read)> {
    let plan = Fleet::plan().proxies(1).proxy_env("SSE_KEEPALIVE", "200ms").proxy_env("DRAIN_TIMEOUT", limit);
    let mut scene = Scene::open(plan).await?;
    scene.upstream.script([answer]);
    let mut answer = scene.alice(0).message(CLAUDE, true).await?;
    assert!(answer.chunk().await?.is_some());
    let rest = tokio::spawn(read(answer));
    assert_eq!(scene.fleet.stop_proxy(0, PATIENCE).await?, Some(0), "{}", scene.fleet.all_logs()?);
    Ok((scene, rest.await?))
}

#[tokio::test]
async fn a_stream_behind_a_keep_alive_is_finished_too_or_ends_with_an_error_event() -> Result<()> {
    let (scene, answer) = behind_a_keep_alive(Answer::ok().delay(Duration::from_secs(3)), "30s").await?;
    assert!(answer.is_whole(Dialect::Messages), "{}", answer.text);
    scene.fleet.expect_records("outcome = 'completed'", 1).await?;
    let (scene, answer) = behind_a_keep_alive(Answer::silence(), "1s").await?;
    assert!(!answer.is_whole(Dialect::Messages) && answer.text.contains("event: error"), "{}", answer.text);
    assert!(answer.text.contains("shut down"), "{}", answer.text);
    scene.fleet.expect_records("outcome = 'aborted'", 1).await?;
    scene.fleet.expect_records("true", 1).await
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request() -> Result<()> {
    let mut scene = Scene::open(Fleet::plan().proxy_env("DRAIN_DELAY", "500ms")).await?;
    let load = Load::start(&scene.fleet, &scene.key, 6);
    load.passes(30).await?;
    for at in [0, 1] {
        assert_eq!(scene.fleet.stop_proxy(at, PATIENCE).await?, Some(0), "{}", scene.fleet.all_logs()?);
        load.passes(20).await?;
        scene.fleet.start_proxy(at).await?;
        load.passes(20).await?;
    }
    // The control plane restarts as well.
    let control = scene.fleet.control.take().context("the control plane")?;
    assert_eq!(control.stop(PATIENCE).await?, Some(0), "{}", scene.fleet.all_logs()?);
    load.passes(20).await?;
    scene.fleet.start_control().await?;
    load.passes(20).await?;
    let done = load.stop().await;
    assert_eq!(done.failed, [""; 0]);
    every_answer_once(&scene.fleet, &done).await?;
    // The fleet is whole again: a write reaches both.
    scene.fleet.admin.user(json!({"name": "Bob"})).await?;
    scene.fleet.sync().await
}
