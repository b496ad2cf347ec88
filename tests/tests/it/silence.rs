//! What callers of streams get while an upstream is silent, and how what fails behind a keep-alive is told.

use crate::answers::{Dialect, Read, read};
use crate::scene::{CLAUDE, Duel, Scene};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::fleet::{Fleet, Plan};
use testkit::upstream::Answer;

const WAIT: Duration = Duration::from_millis(1200);

/// A proxy that keeps silent for a quarter of a second, instead of ten.
fn plan() -> Plan {
    Fleet::plan()
        .proxies(1)
        .without_redis()
        .proxy_env("SSE_KEEPALIVE", "250ms")
        .proxy_env("RETRY_PAUSE", "5ms")
}

fn keep_alive(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Messages => "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        Dialect::Chat | Dialect::Responses => ": \n\n",
    }
}

async fn ask(scene: &Scene, dialect: Dialect, stream: bool) -> Result<Read> {
    Ok(read(scene.alice(0).post(dialect.path()).json(&dialect.question(stream)).send().await?).await)
}

/// The answer without the keep-alives at its beginning, and how many those are.
fn without_beats(answer: &Read, dialect: Dialect) -> (usize, &str) {
    let (mut rest, mut beats) = (answer.text.as_str(), 0);
    while let Some(after) = rest.strip_prefix(keep_alive(dialect)) {
        (rest, beats) = (after, beats + 1);
    }
    (beats, rest)
}

#[tokio::test]
async fn a_slow_stream_is_kept_alive_before_its_content_and_between_its_events() -> Result<()> {
    let scene = Scene::open(plan()).await?;
    for dialect in Dialect::ALL {
        for step in [Answer::ok().delay(WAIT), Answer::ok().delay_body(WAIT)] {
            scene.upstream.script([step]);
            let answer = ask(&scene, dialect, true).await?;
            let (beats, rest) = without_beats(&answer, dialect);
            assert!(answer.status == 200 && answer.is_whole(dialect), "{dialect:?}: {}", answer.text);
            assert!(beats >= 2 && !rest.contains(keep_alive(dialect)), "{dialect:?}: {}", answer.text);
            assert_eq!(answer.header("content-type"), "text/event-stream");
            assert!(answer.request_id.is_some());
        }
        scene.upstream.script([Answer::ok().events(2).gap(WAIT)]);
        let answer = ask(&scene, dialect, true).await?;
        assert!(answer.is_whole(dialect), "{dialect:?}: {}", answer.text);
        assert!(answer.text.matches(keep_alive(dialect)).count() >= 2, "{dialect:?}: {}", answer.text);
        for frame in answer.text.split("\n\n").filter(|frame| !frame.is_empty() && *frame != ": ") {
            assert_eq!(frame.matches("data: ").count(), 1, "{dialect:?}: each frame is whole: {frame}");
        }
        // Who does not ask for a stream waits for the truth.
        scene.upstream.script([Answer::status(400).delay(WAIT)]);
        assert_eq!(ask(&scene, dialect, false).await?.status, 400);
    }
    scene
        .fleet
        .expect_records("outcome = 'completed' AND usage_source = 'reported' AND ttft_ms > 1000", 9)
        .await?;
    scene.fleet.expect_records("true", 12).await
}

#[tokio::test]
async fn failover_goes_on_behind_a_keep_alive_and_a_silent_provider_is_learnt() -> Result<()> {
    let a = json!({"firstByteTimeoutStreamingMs": 1000, "maxRetryAttempts": 1, "circuitBreakerFailureThreshold": 3});
    let duel = Duel::open_on(plan(), a, json!({})).await?;
    // Nothing at all; events without content; an error that would have been a status.
    for step in [Answer::silence(), Answer::ok().hang(2), Answer::status(500).delay(WAIT / 2)] {
        duel.a.script([step]);
        let answer = read(duel.alice.message(CLAUDE, true).await?).await;
        let (beats, rest) = without_beats(&answer, Dialect::Messages);
        assert!(answer.status == 200 && answer.is_whole(Dialect::Messages), "{}", answer.text);
        assert!(beats > 0 && rest.starts_with("event: message_start"), "{}", answer.text);
        assert_eq!(rest.matches("message_start\ndata").count(), 1, "nothing of A: {}", answer.text);
        assert!(rest.contains("bbbb"), "{}", answer.text);
    }
    assert_eq!(duel.asked(), (3, 3));
    assert_eq!(read(duel.alice.message(CLAUDE, true).await?).await.status, 200);
    assert_eq!(duel.asked(), (3, 4), "after three silences A sleeps");
    duel.fleet.expect_records("outcome = 'completed' AND status = 200", 4).await
}

#[tokio::test]
async fn what_fails_behind_a_keep_alive_is_told_as_the_status_would_have_told_it() -> Result<()> {
    let scene = Scene::open(plan().proxy_env("MAX_ATTEMPTS_PER_PROVIDER", "1")).await?;
    let providers = scene.fleet.admin.action("providers/getProviders", json!({})).await?;
    for provider in providers.as_array().context("providers")? {
        let edit = json!({"providerId": provider["id"], "circuitBreakerFailureThreshold": 0});
        scene.fleet.admin.action("providers/editProvider", edit).await?;
    }
    scene.fleet.sync().await?;
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"too long","code":"context_length_exceeded"}}"#;
    for dialect in Dialect::ALL {
        scene.upstream.script([Answer::status(400).body(refusal).delay(WAIT)]);
        let error = last_error(&ask(&scene, dialect, true).await?, dialect)?;
        assert_eq!(error["code"], "context_length_exceeded", "{dialect:?}: {error}");
        assert_eq!(error["message"], "too long", "{dialect:?}: {error}");
        scene.upstream.script([Answer::status(503).delay(WAIT)]);
        let error = last_error(&ask(&scene, dialect, true).await?, dialect)?;
        match dialect {
            Dialect::Messages => assert_eq!(error["type"], "overloaded_error"),
            Dialect::Chat => assert_eq!(error["type"], "service_unavailable_error"),
            Dialect::Responses => {
                assert_eq!(error["code"], "rate_limit_exceeded");
                assert!(error["message"].to_string().contains("try again in 1s"), "{error}");
            }
        }
    }
    scene.fleet.expect_records("outcome = 'rejected' AND status = 400 AND coalesce(cost, 0) = 0", 3).await?;
    scene.fleet.expect_records("outcome = 'exhausted' AND status = 503 AND coalesce(cost, 0) = 0", 3).await?;
    scene.fleet.expect_records("true", 6).await
}

/// The error in which a stream ends, as its client reads it.
fn last_error(answer: &Read, dialect: Dialect) -> Result<Value> {
    assert_eq!(answer.status, 200, "{dialect:?}: {}", answer.text);
    assert!(!answer.broken && without_beats(answer, dialect).0 > 0, "{dialect:?}: {}", answer.text);
    let events = answer.events();
    let last = events.last().with_context(|| answer.text.clone())?;
    Ok(match dialect {
        Dialect::Messages => {
            assert_eq!((last.name.as_str(), &last.data["type"]), ("error", &json!("error")));
            last.data["error"].clone()
        }
        Dialect::Chat => last.data["error"].clone(),
        Dialect::Responses => {
            assert_eq!(last.name, "response.failed");
            last.data["response"]["error"].clone()
        }
    })
}

#[tokio::test]
async fn a_caller_who_leaves_behind_a_keep_alive_ends_everything_at_once() -> Result<()> {
    let scene = Scene::open(plan()).await?;
    scene.upstream.script([Answer::silence()]);
    let mut answer = scene.alice(0).message(CLAUDE, true).await?;
    assert_eq!(answer.chunk().await?.as_deref(), Some(keep_alive(Dialect::Messages).as_bytes()));
    drop(answer);
    scene.upstream.eventually(|stats| stats.all().in_flight == 0 && stats.all().aborted == 1).await;
    scene.fleet.expect_records("status = 499 AND outcome = 'aborted' AND ttft_ms IS NULL", 1).await?;
    scene.fleet.expect_records("true", 1).await
}
