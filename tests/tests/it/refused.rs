//! Whose fault a refusal is: what callers bring about disables nothing, what is really revoked is found by the
//! gateway's own request, alerted, and comes back alone.

use crate::answers::{Dialect, read};
use crate::scene::{CLAUDE, Duel, GPT, Scene};
use anyhow::{Context, Result};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::client::{chat, question};
use testkit::eventually;
use testkit::fleet::{Fleet, Plan};
use testkit::upstream::Answer;

const PATIENCE: Duration = Duration::from_secs(15);

/// A refused credential is asked again at once.
fn plan() -> Plan {
    let plan = Fleet::plan().proxies(1).without_redis().proxy_env("RETRY_PAUSE", "5ms");
    plan.proxy_env("HEALTH_PROBE_FIRST", "200ms").proxy_env("HEALTH_PROBE_MAX", "400ms")
}

fn refusal(status: u16, kind: &str, code: Option<&str>, message: &str) -> Answer {
    let body = json!({"type": "error", "error": {"type": kind, "code": code, "message": message}});
    json_body(Answer::status(status), &body)
}

fn json_body(answer: Answer, body: &Value) -> Answer {
    answer.body(body.to_string()).header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
}

fn revoked() -> Answer {
    refusal(401, "authentication_error", None, "invalid x-api-key")
}

/// What is stored of providers that are not simply well.
fn unwell(fleet: &Fleet) -> Result<String> {
    fleet.sql("SELECT coalesce(string_agg(state || ' ' || reason, ', '), '') FROM provider_health WHERE state <> 'closed'")
}

async fn becomes(fleet: &Fleet, provider: i64, wanted: &str) -> Result<()> {
    let query = format!(
        "SELECT h.state || ' ' || h.reason || ' ' || p.enabled || ' ' || coalesce(p.disabled_reason, '-') \
         FROM provider_health h JOIN providers p ON p.id = h.provider_id WHERE p.id = {provider}"
    );
    eventually(PATIENCE, || async { fleet.sql(&query).is_ok_and(|row| row.trim() == wanted) })
        .await
        .with_context(|| format!("{wanted}; it is {:?}", fleet.sql(&query)))
}

#[tokio::test]
async fn what_a_caller_can_bring_about_disables_nothing() -> Result<()> {
    let scene = Scene::open(plan()).await?;
    scene.fleet.admin.action("system/updateSettings", json!({"upstreamResources": true})).await?;
    let alice = scene.alice(0);
    let scope = "You have insufficient permissions for this operation. Missing scopes: api.usage.read.";
    let cors = "CORS requests must set 'anthropic-dangerous-direct-browser-access' header";
    let organization = "OpenAI-Organization header should match organization for API key";
    let count = question(CLAUDE, false);
    let request = |name: &str| match name {
        "OpenAI-Organization" => {
            alice.post("/v1/chat/completions").header(name, "org-other").json(&chat(GPT, false))
        }
        "Origin" => {
            alice.post("/v1/messages").header(name, "https://chat.example").json(&question(CLAUDE, false))
        }
        "organization" => alice.get("/v1/organization/costs"),
        _ => alice.post("/v1/messages/count_tokens").json(&count),
    };
    for (name, answer) in [
        (
            "OpenAI-Organization",
            refusal(401, "invalid_request_error", Some("mismatched_organization"), organization),
        ),
        ("Origin", refusal(401, "authentication_error", None, cors)),
        ("organization", refusal(403, "invalid_request_error", None, scope)),
        ("count_tokens", revoked()),
        ("count_tokens", refusal(403, "permission_error", None, "not here")),
        ("count_tokens", Answer::status(500)),
    ] {
        scene.upstream.always([answer]);
        for _ in 0..4 {
            let status = request(name).send().await?.status();
            assert_ne!(status, 200, "{name}");
        }
        scene.upstream.reset();
        assert_eq!(alice.status(CLAUDE).await?, 200, "{name}");
        let answer = alice.post("/v1/chat/completions").json(&chat(GPT, false)).send().await?;
        assert_eq!(answer.status(), 200, "{name}");
        let asked = scene.upstream.stats().total;
        assert_eq!(asked, 2, "{name}: the gateway had nothing to ask by itself");
    }
    assert_eq!(unwell(&scene.fleet)?.trim(), "");
    Ok(())
}

#[tokio::test]
async fn a_revoked_credential_is_found_alerted_and_comes_back_alone() -> Result<()> {
    // Names a model that has a price, for the gateway's own question.
    let a = json!({"modelRedirects": {"another": CLAUDE}});
    let duel = Duel::open_on(plan(), a, json!({})).await?;
    duel.a.always([revoked()]);
    // After a refusal such calls for this model go elsewhere, so each one is for another.
    for model in ["claude-1", "claude-2"] {
        assert_eq!(duel.alice.status(model).await?, 200);
    }
    assert_eq!(duel.alice.status("claude-1").await?, 200);
    assert_eq!(duel.asked(), (2, 3), "two refusals, and the third request went past");
    assert_eq!(unwell(&duel.fleet)?.trim(), "", "two are not enough");
    assert_eq!(duel.alice.status("claude-3").await?, 200);
    becomes(&duel.fleet, duel.id_a, "disabled credential true credential").await?;
    let asked = duel.a.requests();
    let own = asked.get(3).context("the gateway asked nothing by itself")?;
    assert_eq!(own.json()["max_tokens"], 1, "{own:?}");
    let shown = duel.fleet.admin.action("providers/getProviders", json!({})).await?;
    let shown =
        shown.as_array().and_then(|all| all.iter().find(|one| one["id"] == duel.id_a)).context("A")?.clone();
    assert_eq!((&shown["isEnabled"], &shown["disabledReason"]), (&json!(true), &json!("credential")));
    let health = duel.fleet.admin.action("providers/getProvidersHealthStatus", json!({})).await?;
    assert_eq!(health[duel.id_a.to_string()]["circuitState"], "open");
    let alerts = duel.fleet.sql("SELECT count(*) FROM notifications WHERE topic = 'circuit-breaker'")?;
    assert_eq!(alerts.trim(), "1");
    // Asked again and again, and still refused: nothing changes, nobody is told twice.
    duel.a.eventually(|stats| stats.total >= 6).await;
    becomes(&duel.fleet, duel.id_a, "disabled credential true credential").await?;
    duel.a.reset();
    becomes(&duel.fleet, duel.id_a, "closed  true -").await?;
    duel.a.reset();
    duel.b.reset();
    assert_eq!(duel.alice.status("claude-1").await?, 200);
    assert_eq!(duel.asked(), (1, 0), "it serves again, also what it had refused");
    // What was refused cost nothing; the question that was answered is the owner's to pay, once.
    duel.fleet.expect_records("user_id <> 0", 5).await?;
    let own = format!("user_id = 0 AND key_id = 0 AND provider_id = {} AND cost > 0", duel.id_a);
    duel.fleet.expect_records(&own, 1).await?;
    duel.fleet.expect_records("user_id = 0", 1).await?;
    let row = &duel.fleet.rows(&own)?[0];
    assert_eq!((&row["endpoint"], &row["user_agent"]), (&json!("/v1/messages"), &json!("switchyard-probe")));
    let sums = |scope: &str| {
        let sum = format!("SELECT trim_scale(sum(cost)) FROM usage_hourly WHERE {scope}");
        duel.fleet.sql(&sum).map(|sum| sum.trim().to_owned())
    };
    let all = duel.fleet.sql("SELECT trim_scale(sum(cost)) FROM usage_records")?;
    assert_eq!(sums("true")?, all.trim(), "in the sums, too");
    assert_eq!(sums("user_id = 0")?, row["cost_text"].as_str().unwrap_or_default());
    let shown = duel.fleet.admin.logs(json!({"statusCode": 200})).await?;
    assert!(shown.iter().any(|log| log["userId"] == 0 && log["userName"].is_null()), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn the_last_provider_of_a_pool_is_never_taken_away() -> Result<()> {
    let scene = Scene::open(plan()).await?;
    scene.upstream.always([revoked()]);
    for _ in 0..3 {
        assert_eq!(scene.alice(0).status(CLAUDE).await?, 503);
    }
    let id: i64 = scene.fleet.sql("SELECT id FROM providers WHERE kind = 'claude'")?.trim().parse()?;
    becomes(&scene.fleet, id, "open credential true credential").await?;
    let before = scene.upstream.stats().total;
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 503);
    assert!(scene.upstream.stats().total > before, "it is still the last resort");
    scene.upstream.reset();
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    becomes(&scene.fleet, id, "closed  true -").await
}

#[tokio::test]
async fn a_callers_own_fault_counts_nowhere_in_any_guise() -> Result<()> {
    let duel = Duel::open(json!({}), json!({})).await?;
    let bad =
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: no"}});
    let large = json!({"error": {"type": "tokens", "code": "rate_limit_exceeded",
        "message": "Request too large for m on tokens per min (TPM): Limit 30000, Requested 45000."}});
    let event = |kind: &str| {
        let data = json!({"type": "error", "error": {"type": kind, "message": "no"}});
        let text = format!("event: error\ndata: {data}\n\n");
        Answer::ok().body(text).header(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))
    };
    for (answer, stream, status, asked) in [
        (json_body(Answer::ok(), &bad), false, 400, 1),
        (json_body(Answer::status(400), &bad), false, 400, 1),
        (event("invalid_request_error"), true, 200, 1),
        (event("request_too_large"), true, 200, 1),
        // Another account may have more room.
        (json_body(Answer::status(429), &large), false, 429, 2),
    ] {
        for upstream in [&duel.a, &duel.b] {
            upstream.reset();
            upstream.always([answer.clone()]);
        }
        for _ in 0..6 {
            let answer = read(duel.alice.message(CLAUDE, stream).await?).await;
            assert_eq!(answer.status, status, "{}", answer.text);
            assert!(answer.text.contains("no") || answer.text.contains("too large"), "{}", answer.text);
        }
        let (a, b) = duel.asked();
        assert_eq!(a + b, 6 * asked, "{status}");
        assert_eq!(unwell(&duel.fleet)?.trim(), "", "{status}");
    }
    for upstream in [&duel.a, &duel.b] {
        upstream.reset();
    }
    assert_eq!(duel.alice.status(CLAUDE).await?, 200);
    assert_eq!(duel.asked(), (1, 0), "A was never put to sleep");
    Ok(())
}

#[tokio::test]
async fn a_refusal_for_want_of_awake_providers_says_when_to_come_back() -> Result<()> {
    let duel = Duel::open(json!({}), json!({})).await?;
    duel.a.always([Answer::status(429).retry_after(300)]);
    duel.b.always([Answer::status(429).retry_after(90)]);
    let answer = duel.alice.message(CLAUDE, false).await?;
    assert_eq!(answer.status(), 503);
    let wait: u64 = answer.headers()["retry-after"].to_str()?.parse()?;
    // Rounded up, and two clocks that are read one after the other may differ by a millisecond.
    assert!((80..=91).contains(&wait), "{wait}");
    let answer = duel.alice.post(Dialect::Chat.path()).json(&Dialect::Chat.question(false)).send().await?;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"), "no provider at all");
    Ok(())
}
