//! The usage log.

use super::*;
use crate::db::rollup;
use serde_json::json;

async fn record(api: &Api, user: &Value, at: &str, cost: &str, status: i16) {
    let mut conn = api.state.pool.write().await.unwrap();
    let id = uuid::Uuid::now_v7();
    let insert = format!(
        "INSERT INTO usage_records (id, created_at, owner_id, user_id, key_id, proxy_id, dialect, endpoint, model, \
         upstream_model, streamed, outcome, status, input_tokens, output_tokens, reasoning_tokens, cache_read_tokens, \
         cache_write_5m_tokens, cache_write_1h_tokens, usage_source, cost, cost_multiplier, generation, duration_ms, \
         attempts, request_bytes, response_bytes, messages_count) VALUES \
         ('{id}', '{at}', 1, {}, {}, 'p', 'anthropic', '/v1/messages', 'm', 'n', true, 'completed', {status}, \
         10, 20, 0, 30, 1, 2, 'reported', {cost}, 1, 1, 5, '[{{\"provider_id\":7,\"provider_name\":\"A\", \
         \"reason\":\"request_success\",\"status\":200}}]', 1, 1, 1)",
        user["id"], user["defaultKey"]["id"],
    );
    diesel_async::RunQueryDsl::execute(diesel::sql_query(insert), &mut conn).await.unwrap();
    rollup::add_in_tx(&mut conn, &[(id, at.parse().unwrap())]).await.unwrap();
}

#[actix_web::test]
async fn case_38_and_10_logs() {
    let api = Api::new().await;
    let a = api.data("users/addUser", r#"{"name":"A"}"#).await;
    let b = api.data("users/addUser", r#"{"name":"B"}"#).await;
    // In Shanghai: before January, its first and last second, and after it.
    record(&api, &a, "2024-12-31T15:59:59Z", "100", 200).await;
    record(&api, &a, "2024-12-31T16:00:00Z", "0.1", 200).await;
    record(&api, &b, "2025-01-31T15:59:59Z", "0.2", 200).await;
    record(&api, &a, "2025-01-15T00:00:00Z", "NULL", 429).await;
    record(&api, &a, "2025-01-31T16:00:00Z", "100", 200).await;
    let january = r#"{"startDate":"2025-01-01","endDate":"2025-01-31","limit":2}"#;
    let answer = api.act("usage-logs/getUsageLogs", january).await;
    let data = &answer.body["data"];
    assert_eq!((&data["total"], data["logs"].as_array().unwrap().len()), (&json!(3), 2), "{}", answer.text);
    assert!(answer.text.contains(r#""totalCost":0.3,"#), "{}", answer.text);
    assert_eq!(data["summary"]["totalTokens"], 3 * 63);
    let newest = &data["logs"][0];
    for (field, want) in [
        ("userName", json!("B")),
        ("keyName", json!("default")),
        ("costUsd", json!("0.2")),
        ("model", json!("n")),
        ("originalModel", json!("m")),
        ("statusCode", json!(200)),
        ("totalTokens", json!(63)),
        ("cacheTtlApplied", json!("mixed")),
    ] {
        assert_eq!(newest[field], want, "{field}");
    }
    assert_eq!(newest["providerChain"][0]["reason"], "request_success");
    assert_eq!(data["logs"][1]["costUsd"], json!(null));
    let cursor = data["nextCursor"].as_str().unwrap();
    let next =
        json!({"startDate": "2025-01-01", "endDate": "2025-01-31", "limit": 2, "cursor": cursor}).to_string();
    let next = api.data("usage-logs/getUsageLogs", &next).await;
    assert_eq!(
        (next["logs"][0]["costUsd"].as_str(), next["logs"].as_array().unwrap().len()),
        (Some("0.1"), 1)
    );
    assert_eq!(next["nextCursor"], json!(null));
    let page = r#"{"startDate":"2025-01-01","endDate":"2025-01-31","pageSize":2,"page":2}"#;
    assert_eq!(api.data("usage-logs/getUsageLogs", page).await["logs"], next["logs"]);

    let alice = api.by(a["defaultKey"]["key"].as_str().unwrap());
    let asked = json!({"userId": b["id"]}).to_string();
    let own = alice.data("usage-logs/getUsageLogs", &asked).await;
    assert_eq!(own["total"], 4, "own rows only, whoever is asked for");
    assert_eq!(
        (&own["logs"][0]["providerChain"], &own["logs"][0]["providerName"]),
        (&json!([]), &json!(null))
    );
    assert_eq!(
        (&own["logs"][0]["costMultiplier"], &own["logs"][0]["costBreakdown"]),
        (&json!(null), &json!({}))
    );
    assert_eq!(newest["costMultiplier"], "1");
    let by_provider = alice.refused("usage-logs/getUsageLogs", r#"{"providerId":1}"#).await;
    assert_eq!(by_provider, code(403, "PERMISSION_DENIED"));
    for (body, total) in [
        (json!({"userId": b["id"]}), 1),
        (json!({"statusCode": 429}), 1),
        (json!({"excludeStatusCode200": true}), 1),
        (json!({"model": "n"}), 5),
        (json!({"model": "x"}), 0),
        (json!({"startTime": 1_738_339_200_000_i64}), 1),
        (json!({"endpoint": "/v1/messages", "keyId": a["defaultKey"]["id"]}), 4),
        (json!({"minRetryCount": 1}), 0),
    ] {
        assert_eq!(api.data("usage-logs/getUsageLogs", &body.to_string()).await["total"], total, "{body}");
    }
    assert_eq!(api.refused("usage-logs/getUsageLogs", r#"{"startDate":"soon"}"#).await.0, 400);
    assert_eq!(api.refused("usage-logs/getUsageLogs", r#"{"limit":0}"#).await.0, 400);
}
