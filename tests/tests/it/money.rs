//! Money where no price or no answer says what it is: names in other spellings, models without a price, hang-ups.

use crate::answers::{Dialect, Read, decimal, read};
use crate::scene::{CLAUDE, GPT, Scene};
use anyhow::{Context, Result};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::client::{Caller, chat, question, turn};
use testkit::fleet::Fleet;
use testkit::upstream::{Answer, Tokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Of the family of [`CLAUDE`], which is all of it: 1,000 and 500 tokens are held at 0.0105 USD.
const INVENTED: &str = "claude-t-invented";

async fn ask(caller: &Caller, model: &str) -> Result<Read> {
    Ok(read(caller.message(model, false).await?).await)
}

#[tokio::test]
async fn a_model_in_another_spelling_is_billed_as_itself() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    scene.upstream.always([Answer::ok().tokens(1000, 100)]);
    let names = ["openai/gpt-t:nitro", "GPT-T", "OpenRouter/openai/Gpt-T:floor", "gpt-t-2026-01-01"];
    for model in names {
        let answer = scene.alice(0).post("/v1/chat/completions").json(&chat(model, false)).send().await?;
        assert_eq!(read(answer).await.status, 200, "{model}");
    }
    scene.fleet.expect_records("true", names.len() as u64).await?;
    let billed =
        format!("billed_model = '{GPT}' AND cost = 0.00225 AND unpriced IS NULL AND held_cost IS NULL");
    scene.fleet.expect_records(&billed, names.len() as u64).await
}

#[tokio::test]
async fn a_model_without_a_price_is_held_to_the_ceiling_and_that_is_remembered() -> Result<()> {
    let plan = Fleet::plan().proxies(1).without_redis();
    let mut scene = Scene::open_for(plan, json!({"dailyQuota": 0.02})).await?;
    scene.upstream.always([Answer::ok().tokens(1000, 500)]);
    for served in [1, 2] {
        assert_eq!(ask(&scene.alice(0), INVENTED).await?.status, 200);
        scene.fleet.expect_records("cost IS NULL AND held_cost = 0.0105", served).await?;
    }
    let answer = ask(&scene.alice(0), INVENTED).await?;
    assert_eq!(answer.status, 402, "{}", answer.text);
    let error = Dialect::Messages.error_in(&answer.json()?)?.clone();
    assert_eq!(
        (error["limit_type"].as_str(), decimal(&error["current"])?),
        (Some("daily_quota"), "0.021".parse()?)
    );
    // What the proxy counted is gone with it; the ledger knows.
    scene.fleet.stop_proxy(0, Duration::from_secs(20)).await?;
    scene.fleet.start_proxy(0).await?;
    scene.fleet.sync().await?;
    for model in [INVENTED, CLAUDE] {
        let answer = ask(&scene.alice(0), model).await?;
        assert_eq!(answer.status, 402, "{model}: {}", answer.text);
    }
    let logs = scene.fleet.admin.logs(json!({})).await?;
    for row in &logs {
        let shown = (&row["costUsd"], &row["unpriced"], &row["heldUsd"], &row["billedModel"]);
        assert_eq!(shown, (&Value::Null, &json!("no_price"), &json!("0.0105"), &Value::Null));
    }
    let usage = json!({"userId": scene.user});
    let usage = scene.fleet.admin.action("users/getUserLimitUsage", usage).await?;
    assert_eq!(decimal(&usage["dailyCost"]["current"])?, "0.021".parse()?);
    let sums = scene.fleet.admin.action("usage-logs/getUsageLogs", json!({})).await?;
    assert_eq!(decimal(&sums["summary"]["totalCost"])?, Decimal::ZERO, "no sum of costs holds it");
    // A unit that is not counted: served, flagged, not held; and refused here only because the money is out.
    let speech = r#"{"claude-speech": {"mode": "chat", "input_cost_per_second": 1e-4}}"#;
    scene.fleet.admin.action("model-prices/uploadPriceTable", json!({"jsonContent": speech})).await?;
    let (_, key) = scene.user(json!({"name": "Bob", "dailyQuota": 0.02})).await?;
    for _ in 0..3 {
        assert_eq!(ask(&scene.fleet.caller(0, &key), "claude-speech").await?.status, 200);
    }
    scene.fleet.expect_records("cost IS NULL AND held_cost IS NULL AND unpriced = 'other_unit'", 3).await
}

#[tokio::test]
async fn an_owner_may_have_models_without_a_price_refused_where_money_is_limited() -> Result<()> {
    let scene =
        Scene::open_for(Fleet::plan().proxies(1).without_redis(), json!({"limitMonthlyUsd": 5})).await?;
    let (_, free) = scene.user(json!({"name": "Bob"})).await?;
    scene.fleet.admin.action("system/updateSettings", json!({"unpriced": "refuse"})).await?;
    scene.fleet.sync().await?;
    for dialect in Dialect::ALL {
        let mut body = dialect.question(true);
        body["model"] = json!("never-heard-of");
        let answer = read(scene.alice(0).post(dialect.path()).json(&body).send().await?).await;
        assert_eq!(answer.status, 402, "{}", answer.text);
        let body = answer.json()?;
        let error = dialect.error_in(&body)?;
        assert_eq!(error["code"], "model_not_priced", "{body}");
        for word in ["never-heard-of", "uploadPriceTable", "syncLiteLLMPrices"] {
            assert!(answer.text.contains(word), "{body}");
        }
    }
    assert_eq!(scene.upstream.stats().total, 0);
    assert_eq!(ask(&scene.alice(0), CLAUDE).await?.status, 200, "what has a price is served");
    assert_eq!(ask(&scene.fleet.caller(0, &free), INVENTED).await?.status, 200, "nothing to count towards");
    scene.fleet.expect_records("true", 2).await?;
    scene.fleet.expect_records("cost IS NULL AND unpriced = 'no_price'", 1).await
}

/// Serves a price table and says how often it was asked for.
async fn price_table(listener: TcpListener, table: String) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut room = vec![0; 4096];
        let _ = stream.read(&mut room).await?;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", table.len());
        stream.write_all(format!("{head}{table}").as_bytes()).await?;
    }
}

#[tokio::test]
async fn a_model_without_a_price_raises_an_alarm_and_is_looked_for_at_once() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/prices", listener.local_addr()?);
    let table =
        r#"{"claude-new": {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}"#;
    tokio::spawn(price_table(listener, table.to_owned()));
    let plan = Fleet::plan().proxies(1).without_redis().control_env("PRICE_URL", &url);
    let scene = Scene::open(plan.control_env("OUTBOUND_ALLOW", "127.0.0.1")).await?;
    scene.upstream.always([Answer::ok().tokens(1000, 500)]);
    assert_eq!(ask(&scene.alice(0), "claude-new").await?.status, 200);
    scene.fleet.expect_records("cost IS NULL AND unpriced = 'no_price'", 1).await?;
    let page = testkit::client::http().get(format!("{}/metrics", scene.fleet.proxies[0].ops_url()));
    let page = page.send().await?.text().await?;
    let alarm =
        page.lines().find(|line| line.contains("unpriced_model_requests_total{model=\"claude-new\"}"));
    assert!(alarm.is_some_and(|line| line.ends_with(" 1")), "{page}");
    let priced = testkit::eventually(Duration::from_secs(20), || async {
        let known = json!({"search": "claude-new"});
        let known = scene.fleet.admin.action("model-prices/getModelPricesPaginated", known).await;
        known.is_ok_and(|known| known["prices"][0]["inputPrice"] == json!(1))
    });
    priced.await.context("the price was not looked for")?;
    scene.fleet.sync().await?;
    assert_eq!(ask(&scene.alice(0), "claude-new").await?.status, 200);
    scene.fleet.expect_records("cost = 0.002 AND unpriced IS NULL", 1).await
}

/// A request that is given up while the upstream is silent.
async fn hang_up(scene: &Scene, body: Value) -> Result<()> {
    let aborted = scene.upstream.stats().all().aborted;
    scene.upstream.script([Answer::silence()]);
    let call = tokio::spawn(scene.alice(0).post("/v1/messages").json(&body).send());
    scene.upstream.eventually(|stats| stats.all().in_flight == 1).await;
    call.abort();
    scene.upstream.eventually(|stats| stats.all().in_flight == 0 && stats.all().aborted == aborted + 1).await;
    Ok(())
}

#[tokio::test]
async fn a_hang_up_before_the_first_byte_costs_the_estimated_input() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    let cached = Tokens { input: Some(100), output: Some(5), cache_read: Some(900), ..Tokens::default() };
    scene.upstream.script([Answer::ok().usage(cached)]);
    let known = scene.alice(0).post("/v1/messages").json(&turn(CLAUDE, "known")).send().await?;
    assert_eq!(read(known).await.status, 200);
    scene.fleet.expect_records("true", 1).await?;
    for (count, (session, stream)) in
        [("known", false), ("known", true), ("new", false)].into_iter().enumerate()
    {
        let mut body = turn(CLAUDE, session);
        body["stream"] = stream.into();
        body["system"] = "x".repeat(4_000).into();
        hang_up(&scene, body).await?;
        scene.fleet.expect_records("status = 499", count as u64 + 1).await?;
    }
    let rows = scene.fleet.rows("status = 499")?;
    for (row, is_cached) in rows.iter().zip([true, true, false]) {
        let count = |name: &str| row[name].as_u64().context("a count");
        let tokens = count("request_bytes")?.div_ceil(4);
        let cache_read = if is_cached { tokens * 9 / 10 } else { 0 };
        let want = ("estimated", tokens - cache_read, cache_read, 0);
        let source = row["usage_source"].as_str().context("source")?;
        assert_eq!(
            (source, count("input_tokens")?, count("cache_read_tokens")?, count("output_tokens")?),
            want,
            "{row}"
        );
        let cost = Decimal::from(30 * (tokens - cache_read) + 3 * cache_read) / Decimal::from(10_000_000);
        assert_eq!(decimal(&row["cost_text"])?, cost.normalize(), "{row}");
    }
    let free =
        Scene::open(Fleet::plan().proxies(1).without_redis().proxy_env("BILL_ABORTED", "free")).await?;
    hang_up(&free, question(CLAUDE, false)).await?;
    free.fleet.expect_records("status = 499 AND cost = 0", 1).await
}
