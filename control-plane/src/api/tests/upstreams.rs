//! Providers and prices.

use super::*;
use crate::db::schema::{audit_log, providers};
use contract::ids::ProviderId;
use contract::table::credential_aad;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

async fn credential(api: &Api, id: i64) -> String {
    let mut conn = api.state.pool.read().await.unwrap();
    let sealed: Vec<u8> =
        providers::table.find(id).select(providers::credential).first(&mut conn).await.unwrap();
    let clear = api.state.settings.sealer.open(&sealed, &credential_aad(ProviderId(id))).unwrap();
    String::from_utf8(clear).unwrap()
}

#[actix_web::test]
async fn case_11_providers() {
    let api = Api::new().await;
    let seed = json!({"name": "GLM Provider", "baseUrl": "https://api.provider.com/v1", "apiKey": "sk-xxx",
        "type": "claude", "weight": 10, "priority": 1, "isEnabled": true});
    let added = api.act("providers/addProvider", &seed.to_string()).await;
    assert_eq!(added.status, 200, "{}", added.text);
    let id = added.body["data"]["id"].as_i64().unwrap();
    let listed = api.act("providers/getProviders", "").await;
    let shown = &listed.body["data"][0];
    for (field, want) in [
        ("type", json!("claude")),
        ("providerType", json!("claude")),
        ("weight", json!(10)),
        ("priority", json!(1)),
        ("url", json!("https://api.provider.com/v1")),
        ("baseUrl", json!("https://api.provider.com/v1")),
        ("maskedKey", json!("••••••")),
        ("costMultiplier", json!(1)),
        ("todayCallCount", json!(0)),
        ("proxyUrl", json!(null)),
    ] {
        assert_eq!(shown[field], want, "{field}");
    }
    assert!(!listed.text.contains("sk-xxx") && !added.text.contains("sk-xxx"));
    let edited =
        api.data("providers/editProvider", &json!({"providerId": id, "weight": 20}).to_string()).await;
    assert_eq!((&edited["weight"], &edited["url"]), (&json!(20), &json!("https://api.provider.com/v1")));
    let masked = json!({"providerId": id, "key": "••••••", "website_url": "https://a.example", "tpm": 5});
    let edited = api.data("providers/editProvider", &masked.to_string()).await;
    assert_eq!((&edited["websiteUrl"], &edited["tpm"]), (&json!("https://a.example"), &json!(5)));
    assert_eq!(credential(&api, id).await, "sk-xxx");
    // What was shown can be sent back.
    let mut echo = api.data("providers/getProviders", "").await[0].clone();
    echo["providerId"] = json!(id);
    let mut moved = echo.clone();
    moved["url"] = json!("https://moved.example/v1");
    let moved = api.data("providers/editProvider", &moved.to_string()).await;
    assert_eq!((&moved["url"], &moved["baseUrl"]), (&moved["baseUrl"], &json!("https://moved.example/v1")));
    let same = api.data("providers/editProvider", &echo.to_string()).await;
    assert_eq!((&same["tpm"], &same["weight"]), (&json!(5), &json!(20)));
    let fresh = json!({"providerId": id, "apiKey": "sk-new-credential"}).to_string();
    assert_eq!(api.data("providers/editProvider", &fresh).await["maskedKey"], "sk-n••••••tial");
    assert_eq!(credential(&api, id).await, "sk-new-credential");

    let mut conn = api.state.pool.read().await.unwrap();
    let log: Vec<(String, Option<i64>, Value)> = audit_log::table
        .select((audit_log::action, audit_log::generation, audit_log::details))
        .order(audit_log::id)
        .load(&mut conn)
        .await
        .unwrap();
    assert_eq!(log[0].0, "providers/addProvider");
    assert!(log.len() == 6 && log.iter().all(|entry| entry.1.is_some()));
    assert!(!format!("{log:?}").contains("sk-"));

    assert_eq!(api.act("providers/removeProvider", &json!({"providerId": id}).to_string()).await.status, 200);
    assert_eq!(api.data("providers/getProviders", "").await, json!([]));
    let gone = json!({"providerId": id}).to_string();
    assert_eq!(api.refused("providers/removeProvider", &gone).await, code(400, "NOT_FOUND"));
}

#[actix_web::test]
async fn case_11_bounds_and_the_other_names() {
    let api = Api::new().await;
    let snake = json!({"name": "p", "url": "http://127.0.0.1:1/v1", "key": "sk-1234567890", "provider_type": "codex",
        "is_enabled": false, "group_tag": "g2,g1", "limit_daily_usd": 1.5, "cost_multiplier": 0.3,
        "model_redirects": {"a": "b"}, "allowed_models": ["a"], "circuit_breaker_failure_threshold": 0,
        "first_byte_timeout_streaming_ms": 1000, "custom_headers": {"X-A": "b"}, "proxy_url": "http://h:1"});
    let added = api.act("providers/addProvider", &snake.to_string()).await;
    assert_eq!(added.status, 200, "{}", added.text);
    assert!(added.text.contains(r#""costMultiplier":0.3,"#));
    let shown = &added.body["data"];
    for (field, want) in [
        ("providerType", json!("codex")),
        ("isEnabled", json!(false)),
        ("groupTag", json!("g1,g2")),
        ("limitDailyUsd", json!(1.5)),
        ("modelRedirects", json!([{"matchType": "exact", "source": "a", "target": "b"}])),
        ("circuitBreakerFailureThreshold", json!(0)),
        ("proxyUrl", json!("http://h:1")),
        ("maskedKey", json!("sk-1••••••7890")),
    ] {
        assert_eq!(shown[field], want, "{field}");
    }
    let base = json!({"name": "x", "url": "https://h", "key": "k"});
    for (field, value, code) in [
        ("weight", json!(0), "INVALID_RANGE"),
        ("weight", json!(101), "INVALID_RANGE"),
        ("type", json!("unknown"), "INVALID_FORMAT"),
        ("url", json!("abc"), "INVALID_FORMAT"),
        ("url", json!("https://u:p@h"), "INVALID_FORMAT"),
        ("key", json!("[REDACTED]"), "INVALID_FORMAT"),
        ("key", json!(null), "REQUIRED_FIELD"),
        ("priority", json!(-1), "INVALID_RANGE"),
        ("max_retry_attempts", json!(11), "INVALID_RANGE"),
        ("first_byte_timeout_streaming_ms", json!(999), "INVALID_RANGE"),
        ("active_time_start", json!("22:00"), "INVALID_FORMAT"),
        ("isEnabled", json!("yes"), "INVALID_TYPE"),
        ("customHeaders", json!({"authorization": "x"}), "INVALID_FORMAT"),
    ] {
        let mut body = base.clone();
        body[field] = value;
        assert_eq!(
            api.refused("providers/addProvider", &body.to_string()).await,
            super::code(400, code),
            "{field}"
        );
    }
}

#[actix_web::test]
async fn case_37_prices() {
    let api = Api::new().await;
    let upload = |text: &str| json!({"jsonContent": text}).to_string();
    let first = upload(
        r#"{"m":{"mode":"chat","input_cost_per_token":3e-6,"output_cost_per_token":1.5e-5,
        "cache_read_input_token_cost":3e-07},"bad":5}"#,
    );
    let answer = api.data("model-prices/uploadPriceTable", &first).await;
    assert_eq!(
        (&answer["added"], &answer["failed"], &answer["total"]),
        (&json!(["m"]), &json!(["bad"]), &json!(2))
    );
    assert_eq!(api.data("model-prices/uploadPriceTable", &first).await["unchanged"], json!(["m"]));
    let changed = upload(r#"{"m":{"mode":"chat","input_cost_per_token":0.0000031}}"#);
    assert_eq!(api.data("model-prices/uploadPriceTable", &changed).await["updated"], json!(["m"]));
    assert_eq!(api.data("model-prices/uploadPriceTable", &first).await["updated"], json!(["m"]));
    for bad in [upload("[]"), upload("{"), json!({}).to_string(), json!({"jsonContent": 5}).to_string()] {
        assert_eq!(api.refused("model-prices/uploadPriceTable", &bad).await.0, 400, "{bad}");
    }
    let many: serde_json::Map<String, Value> = (0..149)
        .map(|n| (format!("claude-{n:03}"), json!({"mode": "chat", "input_cost_per_token": "0.000001"})))
        .collect();
    api.data("model-prices/uploadPriceTable", &upload(&Value::Object(many).to_string())).await;
    let page = api.data("model-prices/getModelPricesPaginated", r#"{"search":"CLAUDE","page":3}"#).await;
    assert_eq!(
        (&page["total"], &page["totalPages"], &page["pageSize"]),
        (&json!(149), &json!(3), &json!(50))
    );
    assert_eq!(page["prices"].as_array().unwrap().len(), 49);
    let answer = api.act("model-prices/getModelPricesPaginated", r#"{"search":"m","pageSize":500}"#).await;
    let row =
        answer.body["data"]["prices"].as_array().unwrap().iter().find(|row| row["modelName"] == "m").unwrap();
    assert_eq!(
        (&row["inputPrice"], &row["outputPrice"], &row["source"]),
        (&json!(3), &json!(15), &json!("litellm"))
    );
    assert!(answer.text.contains(r#""cacheReadInputPrice":0.3,"#) && answer.text.contains(r#":0.0000003"#));
}

#[actix_web::test]
async fn a_new_credential_wakes_a_refused_provider_and_leaves_alone_what_a_person_set() {
    use crate::db::health;
    use contract::ids::ProviderId;
    use contract::table::{CircuitState, Health};
    let api = Api::new().await;
    let add = r#"{"name":"x","url":"https://h","key":"sk-revoked-1"}"#;
    let id = api.data("providers/addProvider", add).await["id"].as_i64().unwrap();
    for (is_enabled, epoch) in [(true, 1), (false, 5_000)] {
        let set = json!({"providerId": id, "isEnabled": is_enabled}).to_string();
        api.data("providers/editProvider", &set).await;
        let (state, reason) = (CircuitState::Disabled, "credential".to_owned());
        let refused =
            Health { provider_id: ProviderId(id), state, until_ms: None, reason, failures: 3, epoch };
        let mut conn = api.state.pool.write().await.unwrap();
        assert_eq!(health::store_in_tx(&mut conn, &[refused]).await.unwrap(), 1);
        drop(conn);
        let weight =
            api.data("providers/editProvider", &json!({"providerId": id, "weight": 2}).to_string()).await;
        assert_eq!(
            (&weight["isEnabled"], &weight["disabledReason"]),
            (&json!(is_enabled), &json!("credential"))
        );
        let fresh = json!({"providerId": id, "apiKey": format!("sk-fresh-{epoch}")}).to_string();
        let fresh = api.data("providers/editProvider", &fresh).await;
        assert_eq!((&fresh["isEnabled"], &fresh["disabledReason"]), (&json!(is_enabled), &json!(null)));
    }
}

#[actix_web::test]
async fn health_is_shown_to_anybody_and_reset_by_admins() {
    use crate::db::health;
    use contract::ids::ProviderId;
    use contract::table::{CircuitState, Health};
    let api = Api::new().await;
    let add = r#"{"name":"x","url":"https://secret.example","key":"sk-revoked-1"}"#;
    let id = api.data("providers/addProvider", add).await["id"].as_i64().unwrap();
    let user = api.data("users/addUser", r#"{"name":"Alice"}"#).await;
    let login = json!({"key": user["defaultKey"]["key"]}).to_string();
    let login = TestRequest::post().uri("/api/auth/login").set_payload(login);
    let cookie = api.anonymous().send(login).await.header("set-cookie").to_owned();
    let alice = api.by(cookie.split(';').next().unwrap().trim_start_matches("session="));
    let shown = async || alice.data("providers/getProvidersHealthStatus", "").await[id.to_string()].clone();
    let well = json!({"circuitState": "closed", "failureCount": 0, "lastFailureTime": null,
        "circuitOpenUntil": null, "recoveryMinutes": null, "reason": null});
    assert_eq!(shown().await, well);

    let report = async |state, until_ms: Option<i64>, epoch| {
        let reason = "failures".to_owned();
        let health = Health { provider_id: ProviderId(id), state, until_ms, reason, failures: 5, epoch };
        let mut conn = api.state.pool.write().await.unwrap();
        health::store_in_tx(&mut conn, &[health]).await.unwrap();
    };
    let now = chrono::Utc::now().timestamp_millis();
    report(CircuitState::Open, Some(now + 1_790_000), 1).await;
    let open = shown().await;
    assert_eq!((&open["circuitState"], &open["failureCount"]), (&json!("open"), &json!(5)));
    assert_eq!((&open["circuitOpenUntil"], &open["recoveryMinutes"]), (&json!(now + 1_790_000), &json!(30)));
    assert!(open["lastFailureTime"].as_i64().is_some_and(|at| at >= now));
    report(CircuitState::Open, Some(now - 1), 2).await;
    assert_eq!(shown().await["circuitState"], "half-open", "its time is over");

    report(CircuitState::Disabled, None, 3).await;
    assert_eq!(shown().await["circuitState"], "open");
    let ask = json!({"providerId": id}).to_string();
    assert_eq!(alice.refused("providers/resetProviderCircuit", &ask).await, code(403, "PERMISSION_DENIED"));
    let provider = api.data("providers/getProviders", "").await[0].clone();
    assert_eq!((&provider["isEnabled"], &provider["disabledReason"]), (&json!(true), &json!("credential")));
    let reset = api.act("providers/resetProviderCircuit", &ask).await;
    assert_eq!(reset.status, 200, "{}", reset.text);
    assert!(reset.body["generation"].is_i64());
    assert_eq!(
        (&shown().await["circuitState"], &shown().await["failureCount"]),
        (&json!("closed"), &json!(0))
    );
    let provider = api.data("providers/getProviders", "").await[0].clone();
    assert_eq!((&provider["isEnabled"], &provider["disabledReason"]), (&json!(true), &json!(null)));
    let gone = r#"{"providerId":999}"#;
    assert_eq!(api.refused("providers/resetProviderCircuit", gone).await, code(400, "NOT_FOUND"));
}
