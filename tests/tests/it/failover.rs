//! Which provider serves, what happens when one does not, and what its health remembers. All on one proxy.

use crate::answers::{Dialect, Read, read};
use crate::scene::{CLAUDE, Duel, Scene};
use anyhow::{Context, Result};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::client::turn;
use testkit::fleet::Fleet;
use testkit::upstream::Answer;

async fn ask(duel: &Duel, stream: bool) -> Result<Read> {
    Ok(read(duel.alice.message(CLAUDE, stream).await?).await)
}

/// The statuses of that many requests.
async fn statuses(duel: &Duel, count: usize) -> Result<Vec<u16>> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(duel.alice.status(CLAUDE).await?);
    }
    Ok(all)
}

#[tokio::test]
async fn priority_decides_then_weight_in_exact_ratio() -> Result<()> {
    let duel = Duel::open(json!({}), json!({"weight": 3})).await?;
    statuses(&duel, 6).await?;
    assert_eq!(duel.asked(), (6, 0));
    duel.edit(duel.id_a, json!({"isEnabled": false})).await?;
    statuses(&duel, 6).await?;
    assert_eq!(duel.asked(), (6, 6));
    duel.edit(duel.id_a, json!({"isEnabled": true, "priority": 1, "weight": 1})).await?;
    statuses(&duel, 40).await?;
    assert_eq!(duel.asked(), (16, 36), "weights 1 and 3 over 40 conversations");
    Ok(())
}

#[tokio::test]
async fn a_conversation_stays_with_its_provider() -> Result<()> {
    let duel = Duel::open(json!({}), json!({"priority": 0})).await?;
    let say = async |count: usize| -> Result<()> {
        for _ in 0..count {
            let answer = duel.alice.post("/v1/messages").json(&turn(CLAUDE, "one")).send().await?;
            assert_eq!(answer.status(), 200);
            answer.bytes().await?;
        }
        Ok(())
    };
    say(1).await?;
    let bound = if duel.asked() == (1, 0) { duel.id_a } else { duel.id_b };
    say(10).await?;
    let (asked_a, asked_b) = duel.asked();
    assert_eq!((asked_a.min(asked_b), asked_a.max(asked_b)), (0, 11));
    // Its provider goes away: the conversation moves, and stays where it is when the first one comes back.
    for enabled in [false, true] {
        duel.edit(bound, json!({"isEnabled": enabled})).await?;
        say(5).await?;
    }
    let (asked_a, asked_b) = duel.asked();
    assert_eq!((asked_a.min(asked_b), asked_a.max(asked_b)), (10, 11));
    Ok(())
}

#[tokio::test]
async fn groups_are_strict() -> Result<()> {
    let duel = Duel::open(json!({"groupTag": "g1,g2"}), json!({})).await?;
    let admin = &duel.fleet.admin;
    let in_group = async |name: &str, group: &str| -> Result<u16> {
        let (_, key) = admin.user(json!({"name": name, "providerGroup": group})).await?;
        duel.fleet.sync().await?;
        duel.fleet.caller(0, &key).status(CLAUDE).await
    };
    assert_eq!(in_group("one", "g1").await?, 200);
    assert_eq!(in_group("two", "g2,g9").await?, 200);
    assert_eq!(duel.asked(), (2, 0));
    assert_eq!(in_group("none", "g3").await?, 503);
    assert_eq!(duel.asked(), (2, 0));
    assert_eq!(duel.alice.status(CLAUDE).await?, 200);
    assert_eq!(duel.asked(), (2, 1), "a caller without a group gets the untagged one");
    Ok(())
}

#[tokio::test]
async fn allow_lists_meet_the_asked_model_and_redirects_do_not_chain() -> Result<()> {
    let a = json!({"allowedModels": [CLAUDE], "modelRedirects": {CLAUDE: "model-a"}});
    let duel = Duel::open(a, json!({"modelRedirects": {CLAUDE: "model-b", "model-a": "wrong"}})).await?;
    duel.a.script([Answer::status(404)]);
    assert_eq!(ask(&duel, false).await?.status, 200);
    assert_eq!(duel.a.requests()[0].model, "model-a");
    assert_eq!(duel.b.requests()[0].model, "model-b");
    assert_eq!(duel.alice.status("model-a").await?, 200);
    assert_eq!(duel.asked(), (1, 2), "the allow list of A does not hold the redirected name");
    Ok(())
}

#[tokio::test]
async fn a_failing_provider_is_tried_twice_then_the_next_and_sleeps_after_five_requests() -> Result<()> {
    let duel = Duel::open(json!({}), json!({})).await?;
    duel.a.always([Answer::status(500)]);
    assert_eq!(statuses(&duel, 5).await?, [200; 5]);
    assert_eq!(duel.asked(), (10, 5));
    assert_eq!(statuses(&duel, 3).await?, [200; 3]);
    let (a, b) = duel.asked();
    assert!(a <= 10, "an open breaker lets nothing through: A was asked {a} times");
    assert_eq!(b, 8);
    duel.fleet.expect_records("status = 200", 8).await?;
    let rows = duel.fleet.rows("true")?;
    let trail = rows[0]["attempts"].as_array().context("the trail")?;
    let steps: Vec<(Option<&str>, Option<i64>)> =
        trail.iter().map(|step| (step["reason"].as_str(), step["provider_id"].as_i64())).collect();
    assert_eq!(
        steps,
        [
            (Some("retry_failed"), Some(duel.id_a)),
            (Some("retry_failed"), Some(duel.id_a)),
            (Some("retry_success"), Some(duel.id_b))
        ],
        "{trail:?}"
    );
    // The control plane hears of it and tells everybody.
    testkit::eventually(Duration::from_secs(15), || async {
        let state =
            duel.fleet.sql(&format!("SELECT state FROM provider_health WHERE provider_id = {}", duel.id_a));
        state.is_ok_and(|state| state == "open")
    })
    .await
}

#[tokio::test]
async fn the_breaker_counts_in_a_row_and_closes_after_good_trials() -> Result<()> {
    let breaker = json!({
        "circuitBreakerFailureThreshold": 2, "circuitBreakerOpenDuration": 1000,
        "circuitBreakerHalfOpenSuccessThreshold": 2, "maxRetryAttempts": 1,
    });
    let duel = Duel::open(breaker, json!({})).await?;
    let bad = || Answer::status(500);
    duel.a.script([bad(), Answer::ok(), bad(), Answer::ok()]);
    statuses(&duel, 4).await?;
    assert_eq!(duel.asked(), (4, 2), "never two failures in a row: still closed");
    duel.a.script([bad(), bad()]);
    statuses(&duel, 3).await?;
    assert_eq!(duel.asked(), (6, 5), "open after two in a row");
    // Half-open after a second: one failed trial reopens at once.
    duel.a.script([bad()]);
    until_asked(&duel, 7).await?;
    assert_eq!(duel.alice.status(CLAUDE).await?, 200);
    assert_eq!(duel.asked().0, 7, "reopened by one failure");
    // Two good trials close it; then it takes two failures again.
    until_asked(&duel, 9).await?;
    duel.a.script([bad()]);
    assert_eq!(statuses(&duel, 2).await?, [200, 200]);
    assert_eq!(duel.asked().0, 11, "closed: one failure does not open it");
    Ok(())
}

/// Asks until A has seen `count` requests.
async fn until_asked(duel: &Duel, count: u64) -> Result<()> {
    testkit::eventually(Duration::from_secs(20), || async {
        if duel.asked().0 < count {
            let _ = duel.alice.status(CLAUDE).await;
        }
        duel.asked().0 >= count
    })
    .await
}

#[tokio::test]
async fn a_callers_own_fault_comes_back_at_once_and_an_unknown_model_moves_on() -> Result<()> {
    let duel = Duel::open(json!({"circuitBreakerFailureThreshold": 1}), json!({})).await?;
    let refusal =
        r#"{"type":"error", "error":{"type":"invalid_request_error","message":"prompt is too long"}}"#;
    for status in [400, 413, 422] {
        duel.a.script([Answer::status(status).body(refusal)]);
        let answer = ask(&duel, false).await?;
        assert_eq!((answer.status, answer.text.as_str()), (status, refusal));
    }
    assert_eq!(duel.asked(), (3, 0));
    duel.a.script([Answer::status(404), Answer::status(404)]);
    assert_eq!(statuses(&duel, 2).await?, [200, 200]);
    assert_eq!(duel.asked(), (5, 2));
    assert_eq!(duel.alice.status(CLAUDE).await?, 200);
    assert_eq!(duel.asked(), (6, 2), "neither opened the breaker");
    duel.fleet
        .expect_records("outcome = 'rejected' AND status IN (400, 413, 422) AND coalesce(cost, 0) = 0", 3)
        .await?;
    duel.fleet.expect_records("outcome = 'completed'", 3).await
}

#[tokio::test]
async fn a_busy_provider_sleeps_for_the_time_it_names() -> Result<()> {
    let duel = Duel::open(json!({}), json!({})).await?;
    duel.a.script([Answer::status(429).retry_after(300)]);
    assert_eq!(statuses(&duel, 4).await?, [200; 4]);
    assert_eq!(duel.asked(), (1, 4));
    Ok(())
}

#[tokio::test]
async fn errors_in_the_guise_of_success_fail_over_without_a_byte() -> Result<()> {
    let duel =
        Duel::open(json!({"circuitBreakerFailureThreshold": 0, "maxRetryAttempts": 1}), json!({})).await?;
    let sse = HeaderValue::from_static("text/event-stream");
    let cases: [(bool, Answer, &str); 9] = [
        (false, Answer::fake200(), "a web page"),
        (false, Answer::fake200_json(), "an error object"),
        (false, Answer::empty200(), "an empty answer"),
        (true, Answer::fake200(), "a web page for a stream"),
        (true, Answer::fake200_json(), "an error object for a stream"),
        (true, Answer::error_event(), "an error as the first event"),
        (true, Answer::ok().error_after(2), "an error before the first content"),
        (true, Answer::ok().cut(1), "a cut before the first content"),
        (true, Answer::ok().body("").header(CONTENT_TYPE, sse), "an empty stream"),
    ];
    for (at, (stream, step, what)) in cases.into_iter().enumerate() {
        duel.a.script([step]);
        let answer = ask(&duel, stream).await?;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
        assert!(
            answer.text.contains("credential …bbbb") || answer.text.contains("bbbb"),
            "{what}: {}",
            answer.text
        );
        assert!(
            !answer.text.contains("overloaded") && !answer.text.contains("html"),
            "{what}: {}",
            answer.text
        );
        assert!(!stream || answer.is_whole(Dialect::Messages), "{what}: {}", answer.text);
        let round = u64::try_from(at)? + 1;
        assert_eq!(duel.asked(), (round, round), "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unreachable_or_hanging_up_provider_fails_over() -> Result<()> {
    let mut duel = Duel::open(json!({"circuitBreakerFailureThreshold": 0}), json!({})).await?;
    duel.a.script([Answer::refuse(), Answer::refuse()]);
    assert_eq!(statuses(&duel, 1).await?, [200]);
    duel.a.script([Answer::ok().cut(1), Answer::ok().cut(1)]);
    assert_eq!(ask(&duel, false).await?.status, 200, "a document that breaks in the middle");
    let gone = std::mem::replace(&mut duel.a, testkit::upstream::Upstream::start().await);
    gone.stop().await;
    assert_eq!(statuses(&duel, 2).await?, [200, 200]);
    assert_eq!(duel.b.stats().total, 4);
    Ok(())
}

#[tokio::test]
async fn a_cut_in_mid_stream_ends_in_an_error_event_of_each_dialect() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    for dialect in Dialect::ALL {
        for (step, what) in [
            (Answer::ok().events(20).cut(9), "cut"),
            (Answer::ok().events(20).end_early(9), "ended without its end marker"),
        ] {
            scene.upstream.reset();
            scene.upstream.script([step]);
            let request = scene.alice(0).post(dialect.path()).json(&dialect.question(true));
            let answer = read(request.send().await?).await;
            assert_eq!(answer.status, 200);
            assert!(!answer.is_whole(dialect), "{dialect:?} {what}: {}", answer.text);
            let events = answer.events();
            let last = events.last().context("no event at all")?;
            let error = match dialect {
                Dialect::Messages => last.name == "error" && last.data["error"]["type"].is_string(),
                Dialect::Chat => last.data["error"]["message"].is_string(),
                Dialect::Responses => {
                    (last.name == "error" || last.name == "response.failed")
                        && last.data.to_string().contains("message")
                }
            };
            assert!(error, "{dialect:?} {what}: {}", answer.text);
            assert_eq!(scene.upstream.stats().total, 1, "no second try after bytes were sent");
        }
    }
    scene.fleet.expect_records("outcome = 'cut' AND status = 502 AND output_tokens > 0", 6).await
}

#[tokio::test]
async fn silence_costs_the_first_byte_timeout_and_no_more() -> Result<()> {
    let timeout = json!({"firstByteTimeoutStreamingMs": 1000, "maxRetryAttempts": 1});
    let duel = Duel::open(timeout, json!({})).await?;
    let begin = Instant::now();
    for step in [Answer::silence(), Answer::ok().hang(0), Answer::ok().hang(2)] {
        duel.a.script([step]);
        let answer = ask(&duel, true).await?;
        assert!(answer.status == 200 && answer.is_whole(Dialect::Messages), "{}", answer.text);
    }
    // Far below the 5 s and more that a stalled upstream would take, far above what busy machines add.
    assert!(begin.elapsed() >= Duration::from_secs(3), "it waited for A");
    assert_eq!(duel.asked(), (3, 3));
    assert_eq!(duel.a.eventually(|stats| stats.all().in_flight == 0).await.all().aborted, 3);
    Ok(())
}

#[tokio::test]
async fn when_nobody_can_serve_the_caller_learns_it_in_its_dialect() -> Result<()> {
    let duel = Duel::open(json!({}), json!({})).await?;
    duel.a.always([Answer::status(500)]);
    duel.b.always([Answer::status(502)]);
    for stream in [false, true] {
        let answer = ask(&duel, stream).await?;
        assert_eq!(answer.status, 503, "{}", answer.text);
        let body = answer.json()?;
        assert_eq!(Dialect::Messages.error_in(&body)?["type"], "overloaded_error");
    }
    duel.fleet.expect_records("outcome = 'exhausted' AND status = 503 AND coalesce(cost, 0) = 0", 2).await?;
    // No provider of this dialect exists at all.
    for dialect in [Dialect::Chat, Dialect::Responses] {
        let answer = read(duel.alice.post(dialect.path()).json(&dialect.question(false)).send().await?).await;
        assert_eq!(answer.status, 503, "{}", answer.text);
        let body = answer.json()?;
        assert!(dialect.error_in(&body)?["code"].is_string(), "{body}");
    }
    assert_eq!(duel.asked(), (4, 4));
    Ok(())
}

#[tokio::test]
async fn a_hang_up_before_the_first_content_is_billed_by_what_the_upstream_said() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    scene.upstream.script([Answer::ok().hang(2)]);
    let waiting = scene.alice(0);
    let call = tokio::spawn(async move { waiting.message(CLAUDE, true).await });
    scene.upstream.eventually(|stats| stats.all().in_flight == 1).await;
    // The proxy has seen the first events when it has answered somebody who came after them.
    for _ in 0..3 {
        assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    }
    call.abort();
    scene.upstream.eventually(|stats| stats.all().in_flight == 0 && stats.all().aborted == 1).await;
    scene.fleet.expect_records("status = 499 AND outcome = 'aborted'", 1).await?;
    let rows = scene.fleet.rows("status = 499")?;
    assert_eq!(rows[0]["usage_source"], "estimated", "{rows:?}");
    assert!(rows[0]["input_tokens"].as_i64() > Some(0), "{rows:?}");
    assert_eq!(rows[0]["attempts"][0]["reason"], "client_abort", "{rows:?}");
    Ok(())
}

#[tokio::test]
async fn a_caller_who_hangs_up_cancels_the_upstream_and_leaves_one_record() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    // In mid-stream.
    scene.upstream.script([Answer::ok().events(50).hang(20)]);
    let mut answer = scene.alice(0).message(CLAUDE, true).await?;
    let first = answer.chunk().await?;
    assert!(first.is_some());
    drop(answer);
    scene.upstream.eventually(|stats| stats.all().in_flight == 0 && stats.all().aborted == 1).await;
    scene.fleet.expect_records("status = 499 AND outcome = 'aborted'", 1).await?;
    // Before the head.
    scene.upstream.script([Answer::silence()]);
    let waiting = scene.alice(0);
    let call = tokio::spawn(async move { waiting.message(CLAUDE, false).await });
    scene.upstream.eventually(|stats| stats.all().in_flight == 1).await;
    call.abort();
    scene.upstream.eventually(|stats| stats.all().in_flight == 0 && stats.all().aborted == 2).await;
    scene.fleet.expect_records("status = 499 AND outcome = 'aborted'", 2).await?;
    scene.fleet.expect_records("true", 2).await?;
    let rows = scene.fleet.rows("true")?;
    let sources: Vec<&Value> = rows.iter().map(|row| &row["usage_source"]).collect();
    assert_eq!(sources[0], "estimated", "what was streamed was used: {rows:?}");
    // The provider is as healthy as before.
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    Ok(())
}
