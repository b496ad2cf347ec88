//! The main job: a governed request through two proxies, passed byte for byte, priced and recorded.

use crate::answers::{Dialect, decimal, read};
use crate::scene::{
    CHAT_CREDENTIAL, CLAUDE, CLAUDE_CREDENTIAL, GPT, RESPONSES_CREDENTIAL, Scene, UNPRICED, extend,
};
use anyhow::{Context, Result};
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use testkit::client::{http, question};
use testkit::fleet::Fleet;
use testkit::upstream::{Answer, Tokens};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A body whose form no serialiser would give back: spaces, escapes, number forms, unknown members.
const ODD: &str = r#" { "model" : "claude-t","max_tokens":100, "messages":[ {"role":"user","content":"caf\u00e9 \/ \ud83d\ude00 claude-t"}],  "x_unknown":{"b":1.50,"a":[1e2,-0.0], "model":"claude-t"},	"stream":false }
"#;

#[tokio::test]
async fn streams_of_three_dialects_through_two_proxies_are_priced_to_the_last_digit() -> Result<()> {
    let scene = Scene::open(Fleet::plan()).await?;
    let claude = Tokens {
        input: Some(1000),
        output: Some(500),
        cache_write: Some(200),
        cache_read: Some(1000),
        ..Tokens::default()
    };
    let gpt = Tokens { input: Some(600), output: Some(100), cache_read: Some(400), ..Tokens::default() };
    scene.upstream.script_for(CLAUDE_CREDENTIAL, [Answer::ok().usage(claude)], true);
    scene.upstream.script_for(CHAT_CREDENTIAL, [Answer::ok().usage(gpt)], true);
    scene.upstream.script_for(RESPONSES_CREDENTIAL, [Answer::ok().usage(gpt)], true);
    for at in 0..2 {
        for dialect in Dialect::ALL {
            let answer = scene.alice(at).post(dialect.path()).json(&dialect.question(true)).send().await?;
            let answer = read(answer).await;
            assert_eq!(answer.status, 200, "{dialect:?}: {}", answer.text);
            assert!(answer.header("content-type").starts_with("text/event-stream"));
            assert!(answer.is_whole(dialect), "{dialect:?}: {}", answer.text);
        }
    }
    scene.fleet.expect_records("true", 6).await?;
    let logs = scene.fleet.admin.logs(json!({"userId": scene.user})).await?;
    let cases = [
        ("/v1/messages", CLAUDE, "0.01155", [1000, 500, 200, 1000]),
        ("/v1/chat/completions", GPT, "0.0018", [600, 100, 0, 400]),
        ("/v1/responses", GPT, "0.0018", [600, 100, 0, 400]),
    ];
    for (endpoint, model, cost, tokens) in cases {
        let found: Vec<&Value> = logs.iter().filter(|row| row["endpoint"] == endpoint).collect();
        assert_eq!(found.len(), 2, "one record per proxy for {endpoint}: {logs:?}");
        for row in found {
            assert_eq!(decimal(&row["costUsd"])?, cost.parse()?, "{row}");
            assert_eq!((row["model"].as_str(), row["originalModel"].as_str()), (Some(model), Some(model)));
            assert_eq!((row["statusCode"].as_i64(), row["userName"].as_str()), (Some(200), Some("Alice")));
            let counted = ["inputTokens", "outputTokens", "cacheCreationInputTokens", "cacheReadInputTokens"];
            assert_eq!(counted.map(|name| row[name].as_i64().unwrap_or(-1)), tokens, "{row}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn prices_multiply_tier_and_stay_absent_where_there_are_none() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1)).await?;
    let usage = |input, output, cache_write, cache_write_1h, cache_read| {
        let some = |n: u64| Some(n);
        Answer::ok().usage(Tokens {
            input: some(input),
            output: some(output),
            cache_write: some(cache_write),
            cache_write_1h: some(cache_write_1h),
            cache_read: some(cache_read),
            reasoning: None,
        })
    };
    let cases = [
        (usage(1000, 500, 200, 0, 1000), CLAUDE, Some("0.01155")),
        (usage(1000, 500, 0, 200, 1000), CLAUDE, Some("0.012")),
        (usage(150_000, 1000, 0, 0, 60_000), CLAUDE, Some("0.9585")),
        (usage(140_000, 1000, 0, 0, 60_000), CLAUDE, Some("0.453")),
        (usage(1000, 500, 0, 0, 0), UNPRICED, None),
    ];
    for (step, model, _) in cases.clone() {
        scene.upstream.script([step]);
        assert_eq!(scene.alice(0).status(model).await?, 200);
    }
    let providers = scene.fleet.admin.action("providers/getProviders", json!({})).await?;
    let claude = providers.as_array().and_then(|all| all.iter().find(|one| one["providerType"] == "claude"));
    let edit = json!({"providerId": claude.context("the provider")?["id"], "costMultiplier": 0.2});
    scene.fleet.admin.action("providers/editProvider", edit).await?;
    scene.fleet.sync().await?;
    scene.upstream.script([usage(1000, 500, 200, 0, 1000)]);
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    scene.fleet.expect_records("true", 6).await?;
    let rows = scene.fleet.rows("true")?;
    let costs: Vec<Option<&str>> = rows.iter().map(|row| row["cost_text"].as_str()).collect();
    let expected: Vec<Option<&str>> =
        cases.iter().map(|(_, _, cost)| *cost).chain([Some("0.00231")]).collect();
    assert_eq!(costs, expected);
    Ok(())
}

#[tokio::test]
async fn a_chat_stream_shows_usage_only_to_callers_who_asked_and_prices_both() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1)).await?;
    scene.upstream.always([Answer::ok().tokens(1000, 100)]);
    for asked in [false, true] {
        let mut body = Dialect::Chat.question(true);
        if asked {
            extend(&mut body, &json!({"stream_options": {"include_usage": true}}));
        }
        let answer = read(scene.alice(0).post("/v1/chat/completions").json(&body).send().await?).await;
        assert!(answer.is_whole(Dialect::Chat), "{}", answer.text);
        let chunks = answer.events();
        let usage = chunks.iter().filter(|chunk| chunk.data["usage"].is_object()).count();
        assert_eq!(usage, usize::from(asked), "{}", answer.text);
        let empty = chunks.iter().filter(|chunk| chunk.data["choices"].as_array().is_some_and(Vec::is_empty));
        assert_eq!(empty.count(), usize::from(asked), "{}", answer.text);
    }
    scene.fleet.expect_records("cost = 0.00225 AND usage_source = 'reported'", 2).await
}

#[tokio::test]
async fn bytes_pass_unchanged_but_for_model_and_credentials() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1)).await?;
    let document = b"{ \"id\":\"msg_1\", \"type\":\"message\",\"odd\": 1.50, \"content\":[{\"type\":\"text\",\"text\":\"h\\u00e9\"}],\n \"usage\":{\"input_tokens\":3,\"output_tokens\":2} }";
    scene.upstream.script([Answer::ok().body(document.as_slice())]);
    let request = scene.alice(0).post("/v1/messages?beta=true").body(ODD);
    let request = request.header(CONTENT_TYPE, "application/json").header("anthropic-version", "2023-06-01");
    let request =
        request.header("anthropic-beta", "a-1,b-2").header("x-app", "cli").header("user-agent", "t/1");
    let answer = request.header("accept-encoding", "gzip, br, zstd").send().await?;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.bytes().await?.as_ref(), document);
    let seen = scene.upstream.requests().pop().context("the upstream saw nothing")?;
    assert_eq!(String::from_utf8_lossy(&seen.body), ODD);
    assert_eq!((seen.path.as_str(), seen.query.as_deref()), ("/v1/messages", Some("beta=true")));
    let passed = ["anthropic-version", "anthropic-beta", "x-app", "user-agent"].map(|name| seen.header(name));
    assert_eq!(passed, ["2023-06-01", "a-1,b-2", "cli", "t/1"]);
    assert!(["", "identity"].contains(&seen.header("accept-encoding")));
    assert_eq!(seen.header("authorization"), format!("Bearer {CLAUDE_CREDENTIAL}"));
    assert_eq!(seen.header("x-api-key"), CLAUDE_CREDENTIAL);
    let values = seen.headers.values().filter_map(|value| value.to_str().ok());
    assert!(!values.collect::<Vec<_>>().join(" ").contains(&scene.key), "the client key went upstream");

    let stream = "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\r\n\r\n: a comment\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"h\\u00e9\"}}\n\nevent: unheard_of\ndata: {\"type\":\"unheard_of\", \"n\": 1.0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let kind = HeaderValue::from_static("text/event-stream");
    scene.upstream.script([Answer::ok().body(stream).header(CONTENT_TYPE, kind)]);
    let answer = read(scene.alice(0).message(CLAUDE, true).await?).await;
    assert_eq!(answer.text, stream);
    scene.fleet.expect_records("input_tokens = 3 AND output_tokens = 2 AND outcome = 'completed'", 2).await
}

#[tokio::test]
async fn a_redirect_changes_the_model_alone_and_is_billed_as_asked() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1)).await?;
    let redirects =
        json!({"apiKey": "sk-glm-0001", "groupTag": "glm", "modelRedirects": {CLAUDE: "glm-4.6-\"x\""}});
    scene.fleet.admin.provider("claude", &scene.upstream.url(), redirects).await?;
    let (_, key) = scene.user(json!({"name": "Bob", "providerGroup": "glm"})).await?;
    scene.upstream.script([Answer::ok().tokens(1000, 500)]);
    let request = scene.fleet.caller(0, &key).post("/v1/messages").body(ODD);
    assert_eq!(request.header(CONTENT_TYPE, "application/json").send().await?.status(), 200);
    let seen = scene.upstream.requests().pop().context("the upstream saw nothing")?;
    assert_eq!(String::from_utf8_lossy(&seen.body), ODD.replacen("claude-t", r#"glm-4.6-\"x\""#, 1));
    scene.fleet.expect_records("cost = 0.0105", 1).await?;
    let logs = scene.fleet.admin.logs(json!({})).await?;
    assert_eq!(
        (logs[0]["originalModel"].as_str(), logs[0]["model"].as_str()),
        (Some(CLAUDE), Some("glm-4.6-\"x\""))
    );
    Ok(())
}

#[tokio::test]
async fn credentials_come_in_four_places_and_only_once() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    let url = format!("{}/v1/messages", scene.fleet.proxies[0].url());
    let key = scene.key.as_str();
    let bearer = format!("Bearer {key}");
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str);
    let cases: [Case<'_>; 9] = [
        ("", &[("authorization", &bearer)], 200, ""),
        ("", &[("x-api-key", key)], 200, ""),
        ("", &[("x-goog-api-key", key)], 200, ""),
        (&format!("?key={key}"), &[], 200, ""),
        ("", &[("x-api-key", key), ("authorization", &bearer)], 200, ""),
        ("", &[], 401, ""),
        ("", &[("x-api-key", "sk-00000000000000000000000000000000")], 401, "invalid_api_key"),
        ("", &[("x-api-key", key), ("authorization", "Bearer sk-another")], 401, ""),
        ("?key=sk-another", &[("x-api-key", key)], 401, ""),
    ];
    for (query, headers, status, code) in cases {
        let mut request = http().post(format!("{url}{query}")).json(&question(CLAUDE, false));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = read(request.send().await?).await;
        assert_eq!(answer.status, status, "{query} {headers:?}: {}", answer.text);
        if status == 401 {
            let body = answer.json()?;
            let error = Dialect::Messages.error_in(&body)?;
            assert_eq!(error["type"], "authentication_error");
            assert!(code.is_empty() || error["code"] == code, "{body}");
        }
    }
    let seen = scene.upstream.requests();
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|one| one.query.as_deref().is_none_or(|query| !query.contains(key))));
    Ok(())
}

#[tokio::test]
async fn compressed_bodies_arrive_plain() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    let plain = ODD.as_bytes();
    for (encoding, body) in [
        ("gzip", packed(GzipEncoder::new(plain)).await?),
        ("deflate", packed(ZlibEncoder::new(plain)).await?),
        ("br", packed(BrotliEncoder::new(plain)).await?),
        ("zstd", packed(ZstdEncoder::new(plain)).await?),
        ("identity", plain.to_vec()),
    ] {
        let request = scene.alice(0).post("/v1/messages").header("content-encoding", encoding).body(body);
        let answer = read(request.header(CONTENT_TYPE, "application/json").send().await?).await;
        assert_eq!(answer.status, 200, "{encoding}: {}", answer.text);
        let seen = scene.upstream.requests().pop().context("the upstream saw nothing")?;
        assert_eq!(seen.body.as_ref(), plain, "{encoding}");
        assert_eq!(seen.header("content-encoding"), "", "{encoding}");
    }
    Ok(())
}

async fn packed(mut encoder: impl AsyncRead + Unpin) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    encoder.read_to_end(&mut out).await?;
    Ok(out)
}

#[tokio::test]
async fn small_paths_of_real_clients_are_answered() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    let base = scene.fleet.proxies[0].url();
    let probe = http().request(Method::HEAD, format!("{base}/")).send().await?;
    assert_eq!(probe.status(), 200);

    let request = http().get(format!("{base}/v1/models")).bearer_auth(&scene.key);
    let openai = read(request.send().await?).await.json()?;
    assert_eq!(openai["object"], "list", "{openai}");
    let listed =
        |list: &Value, id: &str| list["data"].as_array().is_some_and(|all| all.iter().any(|m| m["id"] == id));
    assert!(listed(&openai, CLAUDE) && listed(&openai, GPT), "{openai}");
    let request = scene.alice(0).get("/v1/models").header("anthropic-version", "2023-06-01");
    let anthropic = read(request.send().await?).await.json()?;
    assert!(listed(&anthropic, CLAUDE) && anthropic["has_more"].is_boolean(), "{anthropic}");
    assert_eq!(http().get(format!("{base}/v1/models")).send().await?.status(), 401);

    let body = json!({"model": "text-embedding-3-small", "input": ["a", "b"]});
    let answer = read(scene.alice(0).post("/v1/embeddings").json(&body).send().await?).await;
    assert_eq!((answer.status, answer.json()?["data"].as_array().map(Vec::len)), (200, Some(2)));
    let seen = scene.upstream.requests().pop().context("the upstream saw nothing")?;
    assert_eq!((seen.path.as_str(), seen.credential.as_str()), ("/v1/embeddings", CHAT_CREDENTIAL));

    let body = question(CLAUDE, false);
    let counted = read(scene.alice(0).post("/v1/messages/count_tokens").json(&body).send().await?).await;
    assert_eq!(counted.status, 200, "{}", counted.text);
    assert!(counted.json()?["input_tokens"].is_u64());
    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    scene.fleet.expect_records("endpoint = '/v1/messages'", 1).await?;
    scene.fleet.expect_records("endpoint = '/v1/messages/count_tokens' AND cost > 0", 0).await?;
    let logs = scene.fleet.admin.logs(json!({})).await?;
    assert!(logs.iter().all(|row| row["endpoint"] != "/v1/messages/count_tokens"), "{logs:?}");
    Ok(())
}
