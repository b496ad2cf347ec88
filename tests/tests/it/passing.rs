//! What passes from one side to the other and what does not: headers and texts in both directions, words that an owner
//! does not want, and what lies on a proxy's disk.

use crate::answers::{Dialect, read};
use crate::scene::{CLAUDE, Duel, GPT, Scene};
use anyhow::{Context, Result, ensure};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use testkit::client::http;
use testkit::fleet::{Fleet, Plan};
use testkit::upstream::Answer;

const MIB: usize = 1024 * 1024;

fn small() -> Plan {
    Fleet::plan().proxies(1).without_redis()
}

#[tokio::test]
async fn upstreams_see_no_account_and_no_way_of_the_caller() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let hidden = [
        "origin",
        "referer",
        "openai-organization",
        "openai-project",
        "x-goog-user-project",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "via",
        "true-client-ip",
        "cf-connecting-ip",
        "cf-ray",
        "fastly-client-ip",
        "x-envoy-external-address",
        "x-amzn-trace-id",
        "x-original-url",
    ];
    for dialect in Dialect::ALL {
        let mut request =
            scene.alice(0).post(dialect.path()).json(&dialect.question(false)).header("x-app", "cli");
        for name in hidden {
            request = request.header(name, "evil");
        }
        ensure!(request.send().await?.status() == 200);
        let seen = scene.upstream.requests().pop().context("a request")?;
        let leaked: Vec<&str> = hidden.into_iter().filter(|name| !seen.header(name).is_empty()).collect();
        assert_eq!(leaked, [""; 0], "{dialect:?}");
        assert_eq!(seen.header("x-app"), "cli");
    }
    Ok(())
}

#[tokio::test]
async fn callers_see_no_account_and_no_policy_of_the_upstream() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let hidden = [
        "openai-organization",
        "anthropic-organization-id",
        "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-requests-limit",
        "strict-transport-security",
        "nel",
        "access-control-allow-origin",
        "content-security-policy",
        "server",
        "via",
        "cf-ray",
        "set-cookie",
        "x-powered-by",
    ];
    for (status, stream) in [(200, false), (200, true), (400, false)] {
        let mut step = if status == 200 { Answer::ok() } else { Answer::status(400) };
        for name in hidden {
            step = step.header(HeaderName::from_static(name), HeaderValue::from_static("theirs"));
        }
        step = step.header(HeaderName::from_static("request-id"), HeaderValue::from_static("req_1"));
        scene.upstream.script([step]);
        let answer = read(scene.alice(0).message(CLAUDE, stream).await?).await;
        assert_eq!(answer.status, status);
        let leaked: Vec<&str> =
            hidden.into_iter().filter(|name| answer.headers.contains_key(*name)).collect();
        assert_eq!(leaked, [""; 0], "{status} {stream}");
        assert_eq!(answer.header("request-id"), "req_1", "which support asks for");
    }
    Ok(())
}

const TELLTALE: &str =
    "bad key sk-proj-ab***wxyz of org-a1b2c3d4e5 at https://relay.acme.io/v1, ask ops@acme.io";
const TOLD: [&str; 4] = ["wxyz", "org-a1b2", "acme.io", "ops@"];

fn error_body(text: &str) -> String {
    json!({"type": "error", "error": {"type": "api_error", "message": text}}).to_string()
}

#[tokio::test]
async fn texts_tell_callers_less_than_admins() -> Result<()> {
    let duel = Duel::open(json!({"maxRetryAttempts": 1}), json!({"isEnabled": false})).await?;
    let silent = |text: &str| TOLD.iter().all(|told| !text.contains(told));
    // Of an upstream's fault the caller gets our words with its text, admins all but the key.
    duel.a.script([Answer::status(500).body(error_body(TELLTALE))]);
    let answer = read(duel.alice.message(CLAUDE, false).await?).await;
    assert!(
        answer.status == 503 && silent(&answer.text) && answer.text.contains("bad key"),
        "{}",
        answer.text
    );
    duel.fleet.expect_records("status = 503", 1).await?;
    let trail = duel.fleet.sql("SELECT attempts FROM usage_records WHERE status = 503")?;
    assert!(
        trail.contains("relay.acme.io") && trail.contains("org-a1b2c3d4e5") && !trail.contains("wxyz"),
        "{trail}"
    );
    // Of its own fault the upstream's answer, byte for byte where it may.
    for (text, whole) in [("messages.0.content.1.type: Field required", true), (TELLTALE, false)] {
        let body = error_body(text);
        duel.a.script([Answer::status(400).body(body.clone())]);
        let answer = read(duel.alice.message(CLAUDE, false).await?).await;
        assert!(answer.status == 400 && silent(&answer.text), "{}", answer.text);
        assert_eq!(answer.text == body, whole, "{}", answer.text);
        assert!(answer.json()?["error"]["message"].is_string());
    }
    // Too long to be looked through as a whole: in our words.
    duel.a.script([Answer::status(400).body(format!("{}{TELLTALE}", " ".repeat(4 * MIB)))]);
    let answer = read(duel.alice.message(CLAUDE, false).await?).await;
    assert!(answer.status == 400 && silent(&answer.text) && answer.text.len() < 1000, "{}", answer.text);
    Dialect::Messages.error_in(&answer.json()?)?;
    // In a stream, after its first content.
    let event = format!("event: error\ndata: {}\n\n", error_body(TELLTALE));
    let content = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"at x.acme.com\"}}\n\n";
    let stream = HeaderValue::from_static("text/event-stream");
    let step =
        Answer::status(200).header(http::header::CONTENT_TYPE, stream).body([content, &event].concat());
    duel.a.script([step]);
    let answer = read(duel.alice.message(CLAUDE, true).await?).await;
    assert!(answer.text.contains("at x.acme.com"), "what a model says stays: {}", answer.text);
    assert!(silent(&answer.text) && answer.text.contains("bad key"), "{}", answer.text);
    Ok(())
}

#[tokio::test]
async fn words_are_found_wherever_a_person_wrote_them() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let admin = &scene.fleet.admin;
    let word = json!({"word": "bad word", "matchType": "contains"});
    admin.action("sensitive-words/createSensitiveWordAction", word).await?;
    let send = async |path: &str, body: &str| -> Result<u16> {
        let request =
            scene.alice(0).post(path).header("content-type", "application/json").body(body.to_owned());
        Ok(request.send().await?.status().as_u16())
    };
    let claude = |rest: &str| format!(r#"{{"model":"{CLAUDE}","max_tokens":9,{rest}}}"#);
    let gpt = |rest: &str| format!(r#"{{"model":"{GPT}",{rest}}}"#);
    let hello = r#""messages":[{"role":"user","content":"hello"}]"#;
    let blocked = [
        ("/v1/messages", claude(r#""Messages":[{"role":"user","content":"a BAD word"}],"messages":[]"#)),
        (
            "/v1/messages",
            claude(&format!(r#""messages":[{{"role":"user","content":"a bad word"}}],{hello}"#)),
        ),
        ("/v1/messages", claude(r#""messages":[{"role":"user","content":"a \u0062ad\u0020word"}]"#)),
        (
            "/v1/messages",
            claude(
                r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"bad word"}}]}]"#,
            ),
        ),
        (
            "/v1/messages",
            claude(
                r#""messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"bad word"}]}]"#,
            ),
        ),
        (
            "/v1/chat/completions",
            gpt(r#""messages":[{"role":"tool","tool_call_id":"t","content":"bad word"}]"#),
        ),
        (
            "/v1/responses",
            gpt(r#""input":[{"type":"function_call_output","call_id":"c","output":"bad word"}]"#),
        ),
        ("/v1/responses", gpt(r#""input":"bad word""#)),
        ("/v1/embeddings", gpt(r#""input":["hello","bad word"]"#)),
        ("/v1/completions", gpt(r#""prompt":"hello","suffix":"bad word""#)),
        ("/v1/rerank", gpt(r#""query":"hello","documents":["a",{"text":"bad word"}]"#)),
        ("/v1/images/generations", gpt(r#""prompt":"bad word""#)),
    ];
    let before = scene.upstream.stats().total;
    for (path, body) in &blocked {
        assert_eq!(send(path, body).await?, 400, "{path} {body}");
    }
    assert_eq!(scene.upstream.stats().total, before, "what is blocked never leaves");
    let system =
        claude(&format!(r#""system":"bad word","tools":[{{"name":"t","description":"bad word"}}],{hello}"#));
    let spoken =
        claude(r#""messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"bad word"}]"#);
    assert_eq!(send("/v1/messages", &system).await?, 200, "a vendor's words");
    assert_eq!(send("/v1/messages", &spoken).await?, 200, "the model's words");
    admin.action("system/updateSettings", json!({"wordScope": "all"})).await?;
    scene.fleet.sync().await?;
    assert_eq!(send("/v1/messages", &system).await?, 400, "a vendor's words, where the owner says so");
    assert_eq!(send("/v1/messages", &spoken).await?, 200);
    Ok(())
}

#[tokio::test]
async fn looking_for_words_costs_no_memory() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let word = json!({"word": "bad word", "matchType": "contains"});
    scene.fleet.admin.action("sensitive-words/createSensitiveWordAction", word).await?;
    let process = scene.fleet.proxies[0].process.as_ref().context("the proxy")?;
    // Programs of tests are slow; a tree of so many numbers would be two hundred MiB all the same.
    let numbers = format!(r#"{{"model":"{GPT}","input":[{}0]}}"#, "0,".repeat(6 * MIB));
    let text = format!(r#"{{"model":"{GPT}","input":"{}"}}"#, "a good\\nword ".repeat(MIB));
    ensure!(scene.alice(0).status(CLAUDE).await? == 200);
    let before = process.peak_rss_kib().unwrap_or_default() / 1024;
    for body in [numbers, text] {
        let length = body.len() / MIB;
        let request =
            scene.alice(0).post("/v1/embeddings").header("content-type", "application/json").body(body);
        let answer = request.send().await?;
        assert_eq!(answer.status(), 200);
        let peak = process.peak_rss_kib().unwrap_or_default() / 1024;
        // The body itself, while it is gathered and sent.
        assert!(
            peak < before + 4 * u64::try_from(length)?,
            "{before}, then {peak} MiB for a body of {length} MiB"
        );
    }
    Ok(())
}

#[tokio::test]
async fn no_other_model_is_reached_by_a_fallback() -> Result<()> {
    let scene = Scene::open_for(small(), json!({"allowedModels": [GPT, "gpt-too"]})).await?;
    let ask = async |more: Value| -> Result<u16> {
        let mut body = json!({"model": GPT, "messages": [{"role": "user", "content": "hello"}]});
        crate::scene::extend(&mut body, &more);
        Ok(scene.alice(0).post("/v1/chat/completions").json(&body).send().await?.status().as_u16())
    };
    for (more, status) in [
        (json!({"models": [GPT, "gpt-too"]}), 200),
        (json!({"models": ["gpt-dear"]}), 400),
        (json!({"Models": ["gpt-dear"]}), 400),
        (json!({"fallbacks": [{"model": "gpt-dear"}]}), 400),
        (json!({"context_window_fallbacks": [{GPT: ["gpt-dear"]}]}), 400),
    ] {
        assert_eq!(ask(more.clone()).await?, status, "{more}");
    }
    Ok(())
}

#[tokio::test]
async fn a_providers_headers_lie_sealed_on_a_proxys_disk() -> Result<()> {
    const TOKEN: &str = "canary-4f1d-access-token-9b7e";
    let plan = Fleet::plan().proxies(1).without_redis();
    let fleet = plan.start().await?;
    let upstream = testkit::upstream::Upstream::start().await;
    crate::scene::prices(&fleet).await?;
    let (_, key) = fleet.admin.user(json!({"name": "Alice"})).await?;
    let more = json!({"apiKey": "sk-upstream-a-aaaa", "customHeaders": {"cf-access-token": TOKEN}});
    fleet.admin.provider("claude", &upstream.url(), more).await?;
    fleet.sync().await?;
    ensure!(fleet.caller(0, &key).status(CLAUDE).await? == 200);
    assert_eq!(upstream.requests()[0].header("cf-access-token"), TOKEN, "it is sent");
    let kept = fleet.proxies[0].volume.join("table.last");
    testkit::eventually(std::time::Duration::from_secs(10), || async { kept.exists() }).await?;
    let table = std::fs::read(&kept)?;
    assert!(table.windows(6).any(|window| window == b"claude"), "the provider is in it");
    assert!(!table.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()));
    Ok(())
}

#[tokio::test]
async fn two_credentials_are_one_too_many() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let ask = async |headers: &[(&str, &str)]| -> Result<u16> {
        let mut request = http().post(format!("{}/v1/messages", scene.fleet.proxies[0].url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.json(&Dialect::Messages.question(false)).send().await?.status().as_u16())
    };
    let bearer = format!("Bearer {}", scene.key);
    assert_eq!(ask(&[("authorization", &bearer), ("authorization", &bearer)]).await?, 200);
    assert_eq!(ask(&[("authorization", &bearer), ("authorization", "Bearer sk-other")]).await?, 401);
    assert_eq!(ask(&[("x-api-key", &scene.key), ("x-api-key", "sk-other")]).await?, 401);
    Ok(())
}
