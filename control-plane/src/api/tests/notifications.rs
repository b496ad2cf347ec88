//! Notification settings and the test of a webhook.

use super::*;
use crate::db::schema::settings;
use crate::outbound::testing::Mock;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

const GET: &str = "notifications/getNotificationSettingsAction";
const UPDATE: &str = "notifications/updateNotificationSettingsAction";
const TEST: &str = "notifications/testWebhookAction";

#[actix_web::test]
async fn settings_have_their_defaults_and_keep_secrets() {
    let api = Api::new().await;
    let settings = api.data(GET, "").await;
    for (field, want) in [
        ("enabled", json!(false)),
        ("useLegacyMode", json!(false)),
        ("circuitBreakerEnabled", json!(false)),
        ("circuitBreakerWebhook", json!(null)),
        ("dailyLeaderboardTime", json!("09:00")),
        ("dailyLeaderboardTopN", json!(5)),
        ("costAlertThreshold", json!("0.80")),
        ("costAlertCheckInterval", json!(60)),
        ("cacheHitRateAlertEnabled", json!(false)),
    ] {
        assert_eq!(settings[field], want, "{field}");
    }
    let update = json!({"enabled": true, "circuitBreakerEnabled": true,
        "circuitBreakerWebhook": "https://hooks.example/x?key=canary", "circuitBreakerWebhookSecret": "canary",
        "cost_alert_threshold": 0.9, "daily_leaderboard_top_n": 20});
    let answer = api.act(UPDATE, &update.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let data = &answer.body["data"];
    assert_eq!(data["circuitBreakerWebhook"], "[REDACTED]");
    assert_eq!((&data["costAlertThreshold"], &data["dailyLeaderboardTopN"]), (&json!("0.90"), &json!(20)));
    let mut conn = api.state.pool.read().await.unwrap();
    let rows = settings::table.filter(settings::key.eq("notifications")).select(settings::value);
    let rows: Vec<Value> = rows.load(&mut conn).await.unwrap();
    assert!(!format!("{rows:?}{}", answer.text).contains("canary"));
    // What was shown can be sent back and keeps everything.
    let same = api.data(UPDATE, &data.to_string()).await;
    assert_eq!(&same, data);
    let again: Vec<Value> = settings::table
        .filter(settings::key.eq("notifications"))
        .select(settings::value)
        .load(&mut conn)
        .await
        .unwrap();
    assert_eq!(rows, again);
    assert_eq!(
        api.data(UPDATE, r#"{"circuitBreakerWebhook":""}"#).await["circuitBreakerWebhook"],
        json!(null)
    );

    let older = json!({"webhookUrl": "https://hooks.example/y", "enabledEvents": ["cost_alert"]});
    let settings = api.data(UPDATE, &older.to_string()).await;
    assert_eq!(settings["dailyLeaderboardWebhook"], "[REDACTED]");
    let on = ["circuitBreakerEnabled", "dailyLeaderboardEnabled", "costAlertEnabled", "enabled"];
    assert_eq!(on.map(|name| settings[name] == true), [false, false, true, true]);

    for (body, want) in [
        (json!({"dailyLeaderboardTopN": 21}), "INVALID_RANGE"),
        (json!({"costAlertCheckInterval": 9}), "INVALID_RANGE"),
        (json!({"costAlertThreshold": "1.1"}), "INVALID_RANGE"),
        (json!({"dailyLeaderboardTime": "9 Uhr"}), "INVALID_FORMAT"),
        (json!({"dailyLeaderboardTime": "24:00"}), "INVALID_FORMAT"),
        (json!({"circuitBreakerWebhook": "ftp://x"}), "INVALID_FORMAT"),
        (json!({"circuitBreakerWebhookType": "x"}), "INVALID_FORMAT"),
        (json!({"enabledEvents": ["x"]}), "INVALID_FORMAT"),
        (json!({"cacheHitRateAlertEnabled": true}), "NOT_SUPPORTED"),
    ] {
        assert_eq!(api.refused(UPDATE, &body.to_string()).await, code(400, want), "{body}");
    }
}

#[actix_web::test]
async fn case_40_a_test_is_one_delivery() {
    let api = Api::new().await;
    let mock = Mock::start(200, r#"{"errcode":0}"#).await;
    let body = json!({"webhookUrl": mock.url, "type": "cost-alert"});
    let answer = api.act(TEST, &body.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.body.clone()), (200, json!({"ok": true})), "{}", answer.text);
    assert_eq!(mock.requests().len(), 1);
    assert!(mock.requests()[0].contains(r#""type":"cost-alert""#));
    let typed = json!({"webhookUrl": mock.url, "webhookType": "dingtalk", "webhookSecret": "SEC"});
    assert_eq!(api.act(TEST, &typed.to_string()).await.status, 200);
    assert!(mock.requests()[1].contains("&sign=") || mock.requests()[1].contains("?timestamp="));
    for nowhere in ["http://169.254.169.254/", "http://2130706434/", "http://[::ffff:10.0.0.1]/"] {
        let saved = json!({"circuitBreakerWebhook": nowhere}).to_string();
        assert_eq!(api.refused(UPDATE, &saved).await, code(400, "URL_NOT_ALLOWED"), "{nowhere}");
    }
    // The stored one, by its mask.
    let stored = json!({"circuitBreakerWebhook": mock.url, "circuitBreakerWebhookType": "feishu"});
    api.data(UPDATE, &stored.to_string()).await;
    let masked = json!({"webhookUrl": "[REDACTED]", "type": "circuit-breaker"});
    assert_eq!(api.act(TEST, &masked.to_string()).await.status, 200);
    assert!(mock.requests()[2].contains("msg_type"));

    let refusing = Mock::start(200, r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#).await;
    let failing = Mock::start(500, "").await;
    for (url, kind, want) in [
        (refusing.url.as_str(), "wechat", "DELIVERY_FAILED"),
        (failing.url.as_str(), "auto", "DELIVERY_FAILED"),
        ("http://127.0.0.1:1/", "auto", "DELIVERY_FAILED"),
        ("http://127.0.0.2/", "auto", "URL_NOT_ALLOWED"),
        ("http://[::1]:23000/", "auto", "URL_NOT_ALLOWED"),
        ("http://169.254.169.254/latest/meta-data", "auto", "URL_NOT_ALLOWED"),
        ("nonsense", "auto", "INVALID_FORMAT"),
        ("", "auto", "REQUIRED_FIELD"),
    ] {
        // A stored one is not what an emptied field asks for.
        let body = json!({"webhookUrl": url, "webhookType": kind, "type": "circuit-breaker"}).to_string();
        assert_eq!(api.refused(TEST, &body).await, code(400, want), "{url}");
    }
    assert_eq!(failing.requests().len(), 1, "one attempt");
}
