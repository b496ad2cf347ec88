//! What a provider's further fields do, from the admin's write to what the upstream sees and the caller pays.

use crate::answers::read;
use crate::scene::{CLAUDE, Duel, GPT, Scene};
use anyhow::Result;
use serde_json::{Value, json};
use testkit::client::{question, response};
use testkit::fleet::Fleet;
use testkit::upstream::{Answer, Tokens};

#[tokio::test]
async fn a_claude_provider_forces_its_parameters_and_counts_its_cache() -> Result<()> {
    let forced = json!({
        "anthropic_max_tokens_preference": 4000, "anthropicThinkingBudgetPreference": "2000",
        "cacheTtlPreference": "1h", "context_1m_preference": "disabled", "swap_cache_ttl_billing": true,
    });
    let duel = Duel::open(forced, json!({})).await?;
    let tokens = Tokens {
        input: Some(10),
        output: Some(5),
        cache_write: Some(200),
        cache_write_1h: Some(150),
        ..Tokens::default()
    };
    duel.a.script([Answer::ok().usage(tokens)]);
    let mut body = question(CLAUDE, false);
    body["system"] = json!([{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]);
    let betas = "context-1m-2025-08-07,interleaved-thinking-2025-05-14";
    let sent = duel.alice.post("/v1/messages").header("anthropic-beta", betas).json(&body).send().await?;
    let answer = read(sent).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let seen = &duel.a.requests()[0];
    let mut want = body;
    want["max_tokens"] = json!(4000);
    want["thinking"] = json!({"type": "enabled", "budget_tokens": 2000});
    want["system"][0]["cache_control"]["ttl"] = json!("1h");
    assert_eq!(seen.json(), want);
    assert_eq!(
        seen.header("anthropic-beta"),
        "interleaved-thinking-2025-05-14,extended-cache-ttl-2025-04-11"
    );
    duel.fleet
        .expect_records("status = 200 AND cache_write_5m_tokens = 150 AND cache_write_1h_tokens = 200", 1)
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_codex_provider_forces_its_parameters() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    let providers = scene.fleet.admin.action("providers/getProviders", json!({})).await?;
    let codex = providers.as_array().into_iter().flatten().find(|provider| provider["type"] == "codex");
    let id = codex.map(|provider| provider["id"].clone());
    let forced = json!({
        "providerId": id, "codexReasoningEffortPreference": "high", "codexServiceTierPreference": "flex",
        "codexParallelToolCallsPreference": "false", "codexImageGenerationPreference": "enabled",
    });
    scene.fleet.admin.action("providers/editProvider", forced).await?;
    scene.fleet.sync().await?;
    let body = response(GPT, false);
    assert_eq!(scene.alice(0).post("/v1/responses").json(&body).send().await?.status(), 200);
    let mut want: Value = body;
    want["reasoning"]["effort"] = json!("high");
    want["service_tier"] = json!("flex");
    want["parallel_tool_calls"] = json!(false);
    want["tools"] = json!([{"type": "image_generation"}]);
    assert_eq!(scene.upstream.requests()[0].json(), want);
    Ok(())
}

#[tokio::test]
async fn clients_and_proxies_decide_who_is_asked() -> Result<()> {
    let duel = Duel::open(json!({"blockedClients": ["Codex"]}), json!({})).await?;
    let ask = async |agent: &str| -> Result<()> {
        let asked =
            duel.alice.post("/v1/messages").header("user-agent", agent).json(&question(CLAUDE, false));
        assert_eq!(read(asked.send().await?).await.status, 200);
        Ok(())
    };
    ask("claude-cli/2").await?;
    assert_eq!(duel.asked(), (1, 0));
    ask("codex_cli_rs/0.5").await?;
    assert_eq!(duel.asked(), (1, 1));
    // Nobody listens there: the next provider, unless the proxy may be passed by.
    let nowhere = json!({"proxyUrl": "http://127.0.0.1:1", "proxyFallbackToDirect": false});
    duel.edit(duel.id_a, nowhere).await?;
    ask("claude-cli/2").await?;
    assert_eq!(duel.asked(), (1, 2));
    duel.edit(duel.id_a, json!({"proxyFallbackToDirect": true})).await?;
    ask("claude-cli/2").await?;
    assert_eq!(duel.asked(), (2, 2));
    Ok(())
}
