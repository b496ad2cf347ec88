//! Prices that come from elsewhere.

use super::*;
use crate::api::actions::model_prices::keep_synced;
use crate::db::schema::prices;
use crate::outbound::testing::Mock;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;
use std::time::Duration;

async fn set_source(api: &Api, model: &str, source: &str) {
    let mut conn = api.state.pool.write().await.unwrap();
    let row = prices::table.filter(prices::model_name.eq(model));
    let changed = diesel::update(row).set(prices::source.eq(source)).execute(&mut conn).await.unwrap();
    assert_eq!(changed, 1);
}

#[actix_web::test]
async fn a_sync_takes_the_remote_table_and_leaves_manual_prices() {
    let table = json!({
        "sample_spec": {"mode": "x"},
        "bundled-model": {"mode": "chat", "input_cost_per_token": 2e-6},
        "mine": {"mode": "chat", "input_cost_per_token": 9e-6},
        "new-claude": {"mode": "chat", "litellm_provider": "anthropic", "input_cost_per_token": 3e-6},
        "new-embedding": {"mode": "embedding", "input_cost_per_token": 1e-7},
        "broken": {"mode": "chat", "input_cost_per_token": -1},
    });
    let mock = Mock::start(200, &table.to_string()).await;
    let api = Api::made(|settings| settings.outbound = outbound(&mock.url)).await;
    let mine = json!({"jsonContent": r#"{"mine":{"mode":"chat","input_cost_per_token":1e-6}}"#});
    api.data("model-prices/uploadPriceTable", &mine.to_string()).await;
    set_source(&api, "mine", "manual").await;

    let answer = api.data("model-prices/syncLiteLLMPrices", "").await;
    assert_eq!(answer["source"], "remote");
    assert_eq!(answer["added"], json!(["new-claude", "new-embedding"]));
    assert_eq!(answer["updated"], json!(["bundled-model"]));
    assert_eq!((&answer["skippedConflicts"], &answer["failed"]), (&json!(["mine"]), &json!(["broken"])));
    assert_eq!(answer["reason"], Value::Null);
    assert!(mock.requests()[0].starts_with("GET /hook HTTP/1.1"));

    let rows = api.data("model-prices/getModelPrices", "").await;
    let price = |model: &str| {
        rows.as_array()
            .unwrap()
            .iter()
            .find(|row| row["modelName"] == model)
            .map(|row| row["inputPrice"].clone())
    };
    assert_eq!((price("mine"), price("bundled-model")), (Some(json!(1)), Some(json!(2))));

    let available = "model-prices/getAvailableModelsByProviderType";
    assert_eq!(api.data(available, "").await, json!(["bundled-model", "mine", "new-claude"]));
    assert_eq!(api.data(available, r#"{"providerType":"claude"}"#).await, json!(["new-claude"]));
    assert_eq!(api.refused(available, r#"{"providerType":"x"}"#).await, code(400, "INVALID_FORMAT"));

    let listed = api.data("model-prices/syncLiteLLMPrices", r#"{"overwriteManual":["mine"]}"#).await;
    assert_eq!(listed["updated"], json!(["mine"]));
}

#[actix_web::test]
async fn a_sync_without_the_remote_table_falls_back_and_takes_nothing_back() {
    let mock = Mock::start(500, "no").await;
    let api = Api::made(|settings| settings.outbound = outbound(&mock.url)).await;
    let ours =
        json!({"jsonContent": r#"{"claude-sonnet-4-20250514":{"mode":"chat","input_cost_per_token":1}}"#});
    api.data("model-prices/uploadPriceTable", &ours.to_string()).await;
    let answer = api.data("model-prices/syncLiteLLMPrices", "").await;
    assert_eq!(
        (&answer["source"], &answer["reason"]),
        (&json!("bundled"), &json!("the answer was HTTP 500"))
    );
    assert!(answer["added"].as_array().unwrap().len() > 100);
    assert_eq!(answer["updated"], json!([]), "what came from elsewhere stays");
    let garbage = Mock::start(200, "[]").await;
    let api = Api::made(|settings| settings.outbound = outbound(&garbage.url)).await;
    assert_eq!(api.data("model-prices/syncLiteLLMPrices", "").await["source"], "bundled");
    let internal = Api::made(|settings| settings.outbound = outbound("http://127.0.0.2:1/")).await;
    let reason = internal.data("model-prices/syncLiteLLMPrices", "").await["reason"].clone();
    assert!(reason.as_str().unwrap().contains("OUTBOUND_ALLOW"), "{reason}");
}

#[actix_web::test]
async fn a_model_without_a_price_starts_one_sync_in_five_minutes() {
    let mock = Mock::start(200, r#"{"new-claude": {"mode": "chat", "input_cost_per_token": 3e-6}}"#).await;
    let api = Api::made(|settings| settings.outbound = outbound(&mock.url)).await;
    let other = api.restarted(|settings| settings.outbound = outbound(&mock.url));
    let models = ["new-claude".to_owned()];
    for state in [&api.state, &other.state, &api.state] {
        keep_synced::run_for(state, &models).await.unwrap();
    }
    assert_eq!(mock.requests().len(), 1, "over all replicas");
    let shown = api.data("model-prices/getModelPricesPaginated", r#"{"search":"new-claude"}"#).await;
    assert_eq!(shown["prices"][0]["inputPrice"], json!(3), "{shown}");
    keep_synced::run(&api.state, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(mock.requests().len(), 1, "the next in its turn is a period later");
    let earlier = "UPDATE notification_checks SET checked_at = checked_at - interval '2 hours'";
    diesel::sql_query(earlier).execute(&mut api.state.pool.write().await.unwrap()).await.unwrap();
    keep_synced::run(&api.state, Duration::from_secs(3600)).await.unwrap();
    keep_synced::run_for(&api.state, &models).await.unwrap();
    assert_eq!(mock.requests().len(), 2, "one in its turn counts, too");
}

#[actix_web::test]
async fn prices_are_kept_up_unasked_and_uploaded_ones_stay() {
    let table = json!({
        "bundled-model": {"mode": "chat", "input_cost_per_token": 2e-6},
        "ours": {"mode": "chat", "input_cost_per_token": 9e-6},
        "pinned": {"mode": "chat", "input_cost_per_token": 9e-6},
        "new-claude": {"mode": "chat", "input_cost_per_token": 3e-6},
    });
    let mock = Mock::start(200, &table.to_string()).await;
    let api = Api::made(|settings| settings.outbound = outbound(&mock.url)).await;
    let ours = json!({"jsonContent": r#"{"ours":{"mode":"chat","input_cost_per_token":1e-6},
        "pinned":{"mode":"chat","input_cost_per_token":1e-6}}"#});
    api.data("model-prices/uploadPriceTable", &ours.to_string()).await;
    set_source(&api, "pinned", "litellm").await;
    let again = api.data("model-prices/uploadPriceTable", &ours.to_string()).await;
    assert_eq!(again["unchanged"], json!(["ours", "pinned"]));
    let prices = async || {
        let rows = api.data("model-prices/getModelPrices", "").await;
        let price = |row: &Value| (row["modelName"].as_str().unwrap().to_owned(), row["inputPrice"].clone());
        rows.as_array().unwrap().iter().map(price).collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = prices().await;
    keep_synced::run(&api.state, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(
        (prices().await, mock.requests().len()),
        (before.clone(), 0),
        "a period after the first start"
    );
    let generation = async || {
        let mut conn = api.state.pool.write().await.unwrap();
        crate::db::generation::current(&mut conn).await.unwrap()
    };
    let first = generation().await;
    keep_synced::run(&api.state, Duration::ZERO).await.unwrap();
    let after = prices().await;
    let price = |model: &str| after.get(model).cloned();
    assert_eq!(
        [price("bundled-model"), price("ours"), price("pinned"), price("new-claude")],
        [2, 1, 1, 3].map(|price| Some(json!(price)))
    );
    let shown = api.data("model-prices/getModelPricesPaginated", r#"{"search":"new-claude"}"#).await;
    let shown =
        ["cacheCreationInputPrice", "cacheReadInputPrice"].map(|name| shown["prices"][0][name].clone());
    assert_eq!(shown, [json!(3.75), json!(0.3)], "as it is billed");
    let second = generation().await;
    assert!(second > first);
    keep_synced::run(&api.state, Duration::ZERO).await.unwrap();
    assert_eq!((generation().await, mock.requests().len()), (second, 2), "nothing new, nothing written");

    let broken = Mock::start(500, "no").await;
    let broken = api.restarted(|settings| settings.outbound = outbound(&broken.url));
    let mut conn = api.state.pool.write().await.unwrap();
    let earlier = "UPDATE notification_checks SET checked_at = checked_at - interval '2 hours'";
    diesel::sql_query(earlier).execute(&mut conn).await.unwrap();
    drop(conn);
    for time in ["first", "after a failure"] {
        let error = keep_synced::run(&broken.state, Duration::from_secs(3600)).await.expect_err(time);
        assert!(error.to_string().contains("HTTP 500"), "{error:#}");
    }
    assert_eq!(prices().await, after);
}
