//! Records of usage: none is lost when a disk is full, broken or gone, none when a proxy is killed, none counts twice;
//! and a proxy that starts refuses nobody.

use crate::answers::{Dialect, read};
use crate::scene::{CLAUDE, GPT, Scene};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testkit::client::{chat, http, response};
use testkit::disk::SmallDisk;
use testkit::fleet::Fleet;
use testkit::upstream::Answer;

const PATIENCE: Duration = Duration::from_secs(30);
/// Requests until a spool must have noticed.
const MANY: usize = 200;

/// What keeps a proxy from writing its records.
enum Fault {
    Full(SmallDisk),
    Removed(std::path::PathBuf),
}

impl Fault {
    fn begin(&self) -> Result<()> {
        match self {
            Self::Full(disk) => Ok(disk.fill()?),
            Self::Removed(spool) => {
                fs::remove_dir_all(spool)?;
                // No folder can be made over it.
                Ok(fs::write(spool, "")?)
            }
        }
    }

    fn end(&self) -> Result<()> {
        match self {
            Self::Full(disk) => Ok(disk.empty()?),
            Self::Removed(spool) => Ok(fs::remove_file(spool)?),
        }
    }
}

impl Scene {
    async fn ready(&self) -> Result<(u16, String)> {
        let answer = http().get(format!("{}/readyz", self.fleet.proxies[0].ops_url())).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    async fn metric(&self, name: &str) -> Result<f64> {
        let page =
            http().get(format!("{}/metrics", self.fleet.proxies[0].ops_url())).send().await?.text().await?;
        let start = format!("switchyard_proxy_{name} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&start)).context("no such metric")?;
        Ok(line.parse()?)
    }

    /// Asks until it is refused; how many were served.
    async fn ask_until_refused(&self) -> Result<u64> {
        for served in 0..MANY {
            match self.alice(0).status(CLAUDE).await? {
                200 => {}
                status => {
                    ensure!(status == 503, "{status}");
                    return Ok(served as u64);
                }
            }
        }
        anyhow::bail!("never refused")
    }

    /// Everybody is refused in their own dialect, and told when to come back.
    async fn everybody_is_refused(&self) -> Result<()> {
        let alice = self.alice(0);
        let claude = alice.message(CLAUDE, true).await?;
        let gpt = alice.post("/v1/chat/completions").json(&chat(GPT, true)).send().await?;
        let responses = alice.post("/v1/responses").json(&response(GPT, false)).send().await?;
        for (answer, kind) in
            [(claude, "overloaded_error"), (gpt, "server_error"), (responses, "server_error")]
        {
            assert_eq!(answer.status(), 503);
            assert!(answer.headers()["retry-after"].to_str()?.parse::<u64>()? > 0);
            let body: Value = answer.json().await?;
            let text = body["error"]["message"].as_str().unwrap_or_default();
            assert!(text.contains("cannot record usage"), "{body}");
            assert!(body.to_string().contains(kind) || body["error"]["type"].is_string(), "{body}");
            assert!(!body.to_string().contains("spool/"), "{body}");
        }
        Ok(())
    }
}

/// One proxy whose volume is a small disk, or an ordinary one where the spool's folder goes.
async fn scene_with(fault: impl FnOnce(&std::path::Path) -> Option<Fault>) -> Result<Option<(Scene, Fault)>> {
    let plan = Fleet::plan().proxies(1).without_redis().proxy_env("SPOOL_SLOTS", "64");
    let mut scene = Scene::open(plan).await?;
    scene.fleet.stop_proxy(0, PATIENCE).await?;
    let volume = scene.fleet.proxies[0].volume.clone();
    fs::remove_dir_all(&volume)?;
    fs::create_dir_all(&volume)?;
    let Some(fault) = fault(&volume) else {
        println!("skipped: this machine does not let us mount a small disk");
        return Ok(None);
    };
    scene.fleet.start_proxy(0).await?;
    scene.fleet.sync().await?;
    Ok(Some((scene, fault)))
}

async fn a_fault_of_the_disk(scene: &Scene, fault: &Fault) -> Result<()> {
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    // One that is under way all the while.
    scene.upstream.script([Answer::ok().events(40).gap(Duration::from_millis(50))]);
    let stream = tokio::spawn(read(scene.alice(0).message(CLAUDE, true).await?));
    fault.begin()?;
    let served = scene.ask_until_refused().await?;
    scene.everybody_is_refused().await?;
    let (status, why) = scene.ready().await?;
    assert_eq!((status, why.as_str()), (503, "the spool cannot be written\n"));
    testkit::eventually(PATIENCE, || async { scene.metric("spool_failed").await.is_ok_and(|up| up > 0.0) })
        .await?;
    assert!(scene.metric("spool_failures_total").await? >= 1.0);
    let answer = stream.await?;
    assert!(answer.is_whole(Dialect::Messages), "{}", answer.text);
    testkit::eventually(PATIENCE, || async {
        scene.metric("spool_unwritten_records").await.is_ok_and(|count| count >= 1.0)
    })
    .await?;
    fault.end()?;
    testkit::eventually(PATIENCE, || async { scene.ready().await.is_ok_and(|(status, _)| status == 200) })
        .await
        .with_context(|| scene.fleet.logs())?;
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    // The first, those until it was noticed, the stream, the last: each once.
    scene.fleet.expect_records("outcome = 'completed'", served + 3).await?;
    scene.fleet.expect_records("true", served + 3).await?;
    assert_eq!(scene.metric("records_lost_total").await?, 0.0);
    Ok(())
}

#[tokio::test]
async fn a_full_disk_refuses_until_there_is_room_and_loses_nothing() -> Result<()> {
    let made = scene_with(|volume| SmallDisk::over(volume, "4m").map(Fault::Full)).await?;
    let Some((mut scene, fault)) = made else { return Ok(()) };
    a_fault_of_the_disk(&scene, &fault).await?;
    scene.fleet.proxies[0].kill();
    Ok(())
}

#[tokio::test]
async fn a_spool_whose_folder_was_removed_refuses_until_it_can_be_made_again() -> Result<()> {
    let made = scene_with(|volume| Some(Fault::Removed(volume.join("spool")))).await?;
    let (scene, fault) = made.context("a scene")?;
    a_fault_of_the_disk(&scene, &fault).await
}

#[tokio::test]
async fn at_its_bound_a_spool_refuses_everybody_until_the_control_plane_is_back() -> Result<()> {
    let plan = Fleet::plan().proxies(1).without_redis().proxy_env("SPOOL_MAX_BYTES", "20000");
    let mut scene = Scene::open(plan).await?;
    scene.fleet.kill_control();
    let served = scene.ask_until_refused().await?;
    scene.everybody_is_refused().await?;
    let (status, why) = scene.ready().await?;
    assert_eq!((status, why.as_str()), (503, "the spool is full\n"));
    testkit::eventually(PATIENCE, || async {
        scene.metric("spool_fill").await.is_ok_and(|fill| fill >= 1.0)
    })
    .await?;
    assert_eq!(scene.metric("spool_full").await?, 1.0);
    let log = scene.fleet.all_logs()?;
    assert!(log.contains("the spool fills up"), "{log}");
    scene.fleet.start_control().await?;
    testkit::eventually(PATIENCE, || async { scene.ready().await.is_ok_and(|(status, _)| status == 200) })
        .await?;
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    scene.fleet.expect_records("true", served + 1).await
}

#[tokio::test]
async fn requests_in_flight_at_a_kill_are_recorded_once_and_billed_like_hang_ups() -> Result<()> {
    let mut scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    scene.upstream.script([Answer::ok().hang(9), Answer::silence(), Answer::ok().hang(3)]);
    for (at, stream) in [true, false, true].into_iter().enumerate() {
        let alice = scene.alice(0);
        tokio::spawn(async move {
            let answer = alice.message(CLAUDE, stream).await?;
            answer.bytes().await.map_err(anyhow::Error::from)
        });
        scene.upstream.eventually(|stats| stats.all().in_flight == at as u64 + 1).await;
    }
    scene.fleet.proxies[0].kill();
    scene.fleet.start_proxy(0).await?;
    scene.fleet.expect_records("outcome = 'interrupted'", 3).await?;
    let rows = scene.fleet.rows("outcome = 'interrupted'")?;
    for row in &rows {
        assert_eq!((&row["usage_source"], &row["status"]), (&"estimated".into(), &502.into()), "{row}");
        let input = row["input_tokens"].as_i64().context("tokens")?;
        assert!(
            input > 10 && row["provider_id"].is_number() && row["request_bytes"].as_i64() > Some(40),
            "{row}"
        );
        // 3 USD for a million.
        let cost: f64 = row["cost_text"].as_str().context("a cost")?.parse()?;
        assert!((cost - input as f64 * 3e-6).abs() < 1e-12, "{row}");
        assert_eq!((&row["model"], &row["endpoint"]), (&CLAUDE.into(), &"/v1/messages".into()), "{row}");
    }
    assert_eq!(rows.iter().filter(|row| row["streamed"] == true).count(), 2);
    assert_eq!(scene.metric("interrupted_requests_total").await?, 3.0);
    let shown = scene.fleet.admin.logs(serde_json::json!({"statusCode": 502})).await?;
    assert!(shown.len() == 3 && shown.iter().all(|log| log["outcome"] == "interrupted"), "{shown:?}");
    // Once more, with nothing under way: a slot speaks once.
    scene.fleet.proxies[0].kill();
    scene.fleet.start_proxy(0).await?;
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    assert_eq!(scene.metric("interrupted_requests_total").await?, 0.0);
    scene.fleet.expect_records("outcome = 'completed'", 2).await?;
    scene.fleet.expect_records("true", 5).await
}

#[tokio::test]
async fn a_proxy_that_starts_refuses_nobody() -> Result<()> {
    let mut scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    // An orderly end keeps the newest table, in which there is Alice; a kill within a second of a change would not.
    scene.fleet.stop_proxy(0, PATIENCE).await?;
    scene.fleet.start_proxy(0).await?;
    let (alice, stop) = (scene.alice(0).without_pool(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let asking = tokio::spawn(async move {
        let mut seen = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            // Nobody who listens, or a connection that a kill broke: a balancer goes elsewhere.
            if let Ok(status) = alice.status(CLAUDE).await {
                seen.push(status);
            }
        }
        seen
    });
    for _ in 0..4 {
        scene.fleet.proxies[0].kill();
        scene.fleet.start_proxy(0).await?;
        // Ready is to mean that callers can connect.
        assert_eq!(scene.alice(0).without_pool().status(CLAUDE).await?, 200);
    }
    stop.store(true, Ordering::Relaxed);
    let seen = asking.await?;
    assert!(seen.iter().all(|status| *status == 200), "{seen:?}");
    assert!(!seen.is_empty());
    Ok(())
}
