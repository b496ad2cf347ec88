//! Active sessions, their details and messages.

use super::*;
use crate::db::live::{Said, upsert};
use contract::pb;
use diesel::QueryDsl;
use diesel_async::RunQueryDsl;
use prost::Message;
use serde_json::json;

async fn sql(api: &Api, sql: &str) {
    let mut conn = api.state.pool.write().await.unwrap();
    diesel::sql_query(sql).execute(&mut conn).await.unwrap();
}

/// A session that ended, with one request.
async fn ended(api: &Api, user: i64, session: &str, minutes: i64) {
    let at = format!("now() - interval '{minutes} minutes'");
    let row = format!(
        "INSERT INTO sessions VALUES (1, {user}, '{session}', 7, NULL, 'm', 'anthropic', {at}, {at}, 1, \
         10, 5, 2, 3, 0.0115, 800, 200)"
    );
    let record = format!(
        "INSERT INTO usage_records (id, created_at, owner_id, user_id, key_id, proxy_id, session_id, dialect, \
         endpoint, model, streamed, outcome, status, input_tokens, output_tokens, reasoning_tokens, \
         cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, usage_source, cost, cost_multiplier, \
         generation, duration_ms, attempts, request_bytes, response_bytes, messages_count) \
         SELECT gen_random_uuid(), first_seen_at, 1, {user}, 7, 'p', '{session}', 'anthropic', '/v1/messages', 'm', \
         false, 'success', 200, 10, 5, 0, 2, 3, 0, 'reported', 0.0115, 1, 1, 800, \
         '[{{\"provider_id\": 3, \"reason\": \"retry_failed\"}}]', 1, 1, 4 \
         FROM sessions WHERE session_id = '{session}'"
    );
    sql(api, &row).await;
    sql(api, &record).await;
}

async fn say(api: &Api, proxy: &str, open: &[(i64, &str)], age: i64) {
    let open = open.iter().map(|(user, session)| pb::OpenRequest {
        owner_id: 1,
        user_id: *user,
        key_id: 7,
        provider_id: None,
        session_id: (*session).to_owned(),
        model: "gpt-5".to_owned(),
        dialect: "responses".to_owned(),
        started_at_ms: chrono::Utc::now().timestamp_millis() - 2_000,
    });
    let live = pb::Live {
        open: open.collect(),
        failing: vec![pb::Failing { provider_id: 1, failures: 2, epoch: 0, failed_ms: 1_700_000_000_123 }],
    };
    let seen_at = chrono::Utc::now() - chrono::TimeDelta::seconds(age);
    let said = Said { proxy_id: proxy.to_owned(), seen_at, payload: live.encode_to_vec() };
    upsert(&mut api.state.pool.write().await.unwrap(), &[said]).await.unwrap();
}

async fn logged_in(api: &Api, name: &str) -> (i64, Api) {
    let user = api.data("users/addUser", &json!({"name": name}).to_string()).await;
    let login = json!({"key": user["defaultKey"]["key"]}).to_string();
    let login = TestRequest::post().uri("/api/auth/login").set_payload(login);
    let cookie = api.anonymous().send(login).await.header("set-cookie").to_owned();
    let session = cookie.split(';').next().unwrap().trim_start_matches("session=").to_owned();
    (user["id"].as_i64().unwrap(), api.by(&session))
}

#[actix_web::test]
async fn case_39_active_sessions() {
    let api = Api::new().await;
    let ((ann, _), (bob, by_bob)) = (logged_in(&api, "Ann").await, logged_in(&api, "Bob").await);
    ended(&api, ann, "done", 2).await;
    ended(&api, ann, "again", 1).await;
    ended(&api, bob, "old", 10).await;
    say(&api, "p1", &[(ann, "again"), (bob, "fresh")], 1).await;
    say(&api, "p2", &[(bob, "fresh")], 2).await;
    say(&api, "p3", &[(bob, "gone")], 60).await;
    let list = async |api: &Api| api.data("active-sessions/getActiveSessions", "").await;
    let all = list(&api).await;
    let one = |id: &str| {
        all.as_array().unwrap().iter().find(|row| row["sessionId"] == id).cloned().unwrap_or_default()
    };
    assert_eq!(all.as_array().unwrap().len(), 3, "{all}");
    let done = one("done");
    for (field, want) in [
        ("status", json!("completed")),
        ("userName", json!("Ann")),
        ("totalTokens", json!(20)),
        ("costUsd", json!("0.0115")),
        ("apiType", json!("chat")),
        ("requestCount", json!(1)),
        ("concurrentCount", json!(0)),
    ] {
        assert_eq!(done[field], want, "{field}");
    }
    let (again, fresh) = (one("again"), one("fresh"));
    assert_eq!((&again["status"], &again["requestCount"]), (&json!("in_progress"), &json!(2)));
    assert_eq!((&fresh["concurrentCount"], &fresh["apiType"]), (&json!(2), &json!("codex")));
    assert_eq!((&fresh["model"], &fresh["costUsd"]), (&json!("gpt-5"), &json!("0")));
    assert!(fresh["durationMs"].as_i64().is_some_and(|ms| ms >= 2_000));
    assert_eq!(list(&by_bob).await.as_array().unwrap().len(), 1);
}

#[actix_web::test]
async fn case_39_details_and_messages() {
    let api = Api::new().await;
    let ((ann, by_ann), (bob, by_bob)) = (logged_in(&api, "Ann").await, logged_in(&api, "Bob").await);
    ended(&api, ann, "again", 1).await;
    say(&api, "p1", &[(ann, "again"), (bob, "fresh")], 1).await;
    let details = "active-sessions/getSessionDetails";
    let ask = |id: &str| json!({"sessionId": id}).to_string();
    let shown = api.data(details, &ask("again")).await;
    assert_eq!(shown["requests"][0]["providerChain"][0]["reason"], "retry_failed");
    assert_eq!((&shown["currentSequence"], &shown["nextSequence"]), (&json!(1), &json!(null)));
    assert_eq!((&shown["requestMeta"]["messagesCount"], &shown["messages"]), (&json!(4), &json!(null)));
    assert_eq!(by_ann.data(details, &ask("again")).await["requests"][0]["providerChain"], json!([]));
    assert_eq!(api.data(details, &ask("fresh")).await["currentSequence"], json!(null));
    assert_eq!(by_bob.refused(details, &ask("again")).await, code(400, "NOT_FOUND"));
    assert_eq!(api.refused(details, &ask("gone")).await, code(400, "NOT_FOUND"));
    assert_eq!(api.refused(details, "{}").await, code(400, "REQUIRED_FIELD"));
    let far = json!({"sessionId": "again", "requestSequence": 2}).to_string();
    assert_eq!(api.refused(details, &far).await, code(400, "NOT_FOUND"));

    let messages = "active-sessions/getSessionMessages";
    assert_eq!(by_ann.refused(messages, &ask("again")).await, code(400, "NOT_STORED"));
    assert_eq!(by_bob.refused(messages, &ask("again")).await, code(400, "NOT_FOUND"));

    let keeping = Api::made(|settings| settings.messages_ttl = Some(Duration::from_secs(300))).await;
    let ((ann, by_ann), (_, by_bob)) = (logged_in(&keeping, "Ann").await, logged_in(&keeping, "Bob").await);
    ended(&keeping, ann, "again", 1).await;
    assert_eq!(by_ann.refused(messages, &ask("again")).await, code(400, "NOT_STORED"), "nothing came");
    let keep = publish::Keep { sealer: keeping.state.settings.sealer.clone(), ttl: Duration::from_secs(300) };
    let inbox = publish::LiveInbox::new(Some(keep));
    let body =
        json!({"tools": ["x"], "messages": [{"role": "user", "content": "canary"}]}).to_string().into();
    inbox.hear(pb::Spoken { owner_id: 1, user_id: ann, session_id: "again".to_owned(), body });
    let (stop, pool) = (tokio_util::sync::CancellationToken::new(), keeping.state.pool.clone());
    let storing = inbox.store(pool, stop.clone());
    let reading = async {
        let mut answer = by_ann.act(messages, &ask("again")).await;
        while answer.status != 200 {
            tokio::task::yield_now().await;
            answer = by_ann.act(messages, &ask("again")).await;
        }
        stop.cancel();
        answer.body["data"].clone()
    };
    let (shown, ()) = tokio::join!(reading, storing);
    assert_eq!(shown, json!([{"role": "user", "content": "canary"}]));
    assert_eq!(by_bob.refused(messages, &ask("again")).await, code(400, "NOT_FOUND"));
    let mut conn = keeping.state.pool.read().await.unwrap();
    let kept = crate::db::schema::session_messages::table.select(crate::db::schema::session_messages::sealed);
    let kept: Vec<Vec<u8>> = diesel_async::RunQueryDsl::load(kept, &mut conn).await.unwrap();
    assert!(!String::from_utf8_lossy(&kept[0]).contains("canary"), "sealed at rest");

    let provider = api.data("providers/addProvider", r#"{"name":"x","url":"https://h","key":"k"}"#).await;
    assert_eq!(provider["id"], 1);
    let health = api.data("providers/getProvidersHealthStatus", "").await;
    assert_eq!((&health["1"]["circuitState"], &health["1"]["failureCount"]), (&json!("closed"), &json!(2)));
    assert_eq!(health["1"]["lastFailureTime"], json!(1_700_000_000_123_i64));
}
