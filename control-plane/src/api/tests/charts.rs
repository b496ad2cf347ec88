//! Charts of more users than series.

use super::*;
use bigdecimal::BigDecimal;
use chrono::Utc;
use contract::pb;
use serde_json::json;
use std::time::Duration;

/// One request of a user that cost so many cents.
fn record(user: i64, cents: i64) -> pb::UsageRecord {
    pb::UsageRecord {
        id: uuid::Uuid::now_v7().as_bytes().to_vec().into(),
        proxy_id: "p".to_owned(),
        started_at_ms: Utc::now().timestamp_millis(),
        owner_id: 1,
        user_id: user,
        key_id: user,
        dialect: "anthropic".to_owned(),
        endpoint: "/v1/messages".to_owned(),
        model: "m".to_owned(),
        outcome: "completed".to_owned(),
        status: 200,
        tokens: Some(pb::TokenCounts::default()),
        usage_source: "reported".to_owned(),
        cost: Some(format!("{}.{:02}", cents / 100, cents % 100)),
        cost_multiplier: "1".to_owned(),
        ..Default::default()
    }
}

async fn write(api: &Api, records: Vec<pb::UsageRecord>) {
    let mut conn = api.state.pool.write().await.unwrap();
    crate::ingest::testing::write(&mut conn, records).await.unwrap();
}

/// The number of series, the first's id, and the sums of the first and of all others.
async fn seen(api: &Api) -> (usize, Value, String, String) {
    let chart = api.data("statistics/getUserStatistics", r#"{"timeRange":"7days"}"#).await;
    let series = chart["users"].as_array().unwrap();
    let sum = |key: String| -> String {
        let points = chart["chartData"].as_array().unwrap().iter();
        let costs = points.map(|point| point[&key].as_str().unwrap().parse::<BigDecimal>().unwrap());
        costs.sum::<BigDecimal>().normalized().to_string()
    };
    let (first, last) = (&series[0], &series[series.len() - 1]);
    assert_eq!((&last["id"], &last["name"]), (&json!(-1), &json!("__others__")));
    let key = |series: &Value| format!("{}_cost", series["dataKey"].as_str().unwrap());
    (series.len(), first["id"].clone(), sum(key(first)), sum(key(last)))
}

#[actix_web::test]
async fn a_kept_ranking_says_who_is_shown_but_never_how_much() {
    let api = Api::new().await.restarted(|settings| settings.ranking_ttl = Duration::from_secs(600));
    // User n costs n cents; 1 to 5 are among the others.
    write(&api, (1..=105).map(|user| record(user, user)).collect()).await;
    assert_eq!(seen(&api).await, (101, json!(105), "1.05".to_owned(), "0.15".to_owned()));
    // What comes later is counted at once, where the ranking of before has it.
    write(&api, vec![record(1, 1000), record(105, 5)]).await;
    assert_eq!(seen(&api).await, (101, json!(105), "1.1".to_owned(), "10.15".to_owned()));
    let later = api.restarted(|settings| settings.ranking_ttl = Duration::ZERO);
    assert_eq!(seen(&later).await, (101, json!(1), "10.01".to_owned(), "0.2".to_owned()));
}
