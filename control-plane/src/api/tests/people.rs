//! Users and keys.

use super::*;
use serde_json::json;

#[actix_web::test]
async fn case_6_users() {
    let api = Api::new().await;
    let body = r#"{"name":"Alice","description":"测试用户","rpm":60,"dailyQuota":10}"#;
    let alice = api.data("users/addUser", body).await;
    assert!(alice["id"].as_i64().unwrap() > 1);
    for (field, want) in [
        ("name", json!("Alice")),
        ("description", json!("测试用户")),
        ("rpm", json!(60)),
        ("dailyQuota", json!(10)),
    ] {
        assert_eq!(alice[field], want);
        assert_eq!(alice["user"][field], want);
    }
    assert_eq!(alice["defaultKey"]["name"], "default");
    api.data("users/addUser", r#"{"name":"Bob","rpm":60,"dailyQuota":5}"#).await;
    let long = "x".repeat(65);
    for (body, code) in [
        (json!({"name": ""}), "MIN_LENGTH"),
        (json!({"name": long}), "MAX_LENGTH"),
        (json!({}), "REQUIRED_FIELD"),
        (json!({"name": "x", "rpm": -1}), "INVALID_RANGE"),
        (json!({"name": "x", "rpm": 1_000_001}), "INVALID_RANGE"),
        (json!({"name": "x", "dailyQuota": 100_001}), "INVALID_RANGE"),
        (json!({"name": "x", "expiresAt": "2020-01-01"}), "EXPIRES_AT_MUST_BE_FUTURE"),
        (json!({"name": "x", "expiresAt": "2099-01-01"}), "EXPIRES_AT_TOO_FAR"),
        (json!({"name": "x", "description": "a", "note": "b"}), "INVALID_FORMAT"),
    ] {
        assert_eq!(api.refused("users/addUser", &body.to_string()).await, super::code(400, code), "{body}");
    }
    let users = api.data("users/getUsers", "").await;
    let names: Vec<&str> =
        users.as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["Alice", "Bob"],
        "a refused user is not there, and the owner is none of its own users"
    );
    assert_eq!(users[0]["keys"][0]["todayCallCount"], 0);
    let found = api.data("users/getUsers", r#"{"searchTerm":"测试"}"#).await;
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(api.data("users/getUsers", r#"{"page":2,"limit":1}"#).await[0]["name"], "Bob");
    assert_eq!(api.data("users/getUsers", r#"{"query":"%"}"#).await, json!([]));
}

#[actix_web::test]
async fn editing_clears_by_null_and_keeps_the_rest() {
    let api = Api::new().await;
    let body = r#"{"name":"A","rpm":60,"dailyQuota":0.1,"limit_5h_usd":"1.25","tags":["x"],"providerGroup":"b, a，b"}"#;
    let user = api.act("users/addUser", body).await;
    assert!(user.text.contains(r#""dailyQuota":0.1,"#) && user.text.contains(r#""limit5hUsd":1.25,"#));
    let id = user.body["data"]["id"].as_i64().unwrap();
    assert_eq!(user.body["data"]["providerGroup"], "a,b");
    let edit = json!({"userId": id, "rpm": null, "note": "n", "expiresAt": "2020-01-01"}).to_string();
    let user = api.data("users/editUser", &edit).await;
    assert_eq!((&user["rpm"], &user["description"]), (&json!(null), &json!("n")));
    assert_eq!((&user["tags"], &user["name"]), (&json!(["x"]), &json!("A")));
    assert_eq!(user["expiresAt"], "2020-01-01T15:59:59.000Z", "the end of that day in Shanghai");
    let user = api.data("users/editUser", &json!({"userId": id, "expiresAt": ""}).to_string()).await;
    assert_eq!(user["expiresAt"], json!(null));
    // Sending back what was shown changes nothing.
    let shown = api.data("users/getUsers", "").await[0].clone();
    let mut echo = shown.clone();
    echo["userId"] = json!(id);
    let same = api.data("users/editUser", &echo.to_string()).await;
    for field in ["dailyQuota", "limit5hUsd", "providerGroup", "tags", "rpm", "limitConcurrentSessions"] {
        assert_eq!(same[field], shown[field], "{field}");
    }
    // With one of two names for a field changed, that one was meant.
    for (name, text) in [("description", "d"), ("note", "e")] {
        let mut echo = api.data("users/getUsers", "").await[0].clone();
        echo["userId"] = json!(id);
        echo[name] = json!(text);
        let changed = api.data("users/editUser", &echo.to_string()).await;
        assert_eq!((&changed["note"], &changed["description"]), (&json!(text), &json!(text)));
    }
    let both = json!({"userId": id, "note": "f", "description": "g"}).to_string();
    assert_eq!(api.refused("users/editUser", &both).await, code(400, "INVALID_FORMAT"));
    assert_eq!(api.refused("users/editUser", r#"{"userId":999999}"#).await, code(400, "NOT_FOUND"));
    assert_eq!(api.refused("users/editUser", r#"{"rpm":5}"#).await, code(400, "REQUIRED_FIELD"));
    assert_eq!(api.refused("users/removeUser", r#"{"userId":1}"#).await, code(400, "PERMISSION_DENIED"));
    assert_eq!(api.refused("users/editUser", r#"{"userId":1,"isEnabled":false}"#).await.0, 400);
}

#[actix_web::test]
async fn case_7_keys() {
    let api = Api::new().await;
    let user = api.data("users/addUser", r#"{"name":"A"}"#).await["id"].as_i64().unwrap();
    let body =
        json!({"userId": user, "name": "Production Key", "expiresAt": "2025-12-31T23:59:59Z"}).to_string();
    let added = api.data("keys/addKey", &body).await;
    let clear = added["generatedKey"].as_str().unwrap().to_owned();
    assert!(clear.len() == 35 && clear.starts_with("sk-"), "{clear}");
    assert_eq!(added["key"], clear.as_str());
    assert_eq!(api.refused("keys/addKey", &body).await, code(400, "DUPLICATE_NAME"));
    let answer = api.act("keys/getKeys", &json!({"userId": user}).to_string()).await;
    let users = api.act("users/getUsers", "").await;
    assert!(!answer.text.contains(&clear) && !users.text.contains(&clear));
    let key = &answer.body["data"][1];
    assert_eq!(key["key"], format!("{}••••••{}", &clear[..4], &clear[31..]));
    assert_eq!(key["expiresAt"], "2025-12-31T23:59:59.000Z");
    assert_eq!(api.by(&clear).refused("model-prices/hasPriceTable", "").await.0, 401, "it has expired");
    let unknown = json!({"userId": 99_999, "name": "x"}).to_string();
    assert_eq!(api.refused("keys/addKey", &unknown).await, code(400, "NOT_FOUND"));
}

#[actix_web::test]
async fn case_8_limits_of_key_and_user() {
    let api = Api::new().await;
    let user = api.data(
        "users/addUser",
        r#"{"name":"A","limit5hUsd":5,"limitMonthlyUsd":0,"limitConcurrentSessions":2}"#,
    );
    let user = user.await["id"].as_i64().unwrap();
    let key = |name: &str, field: &str, value: Value| {
        json!({"userId": user, "name": name, field: value}).to_string()
    };
    let answer = api.act("keys/addKey", &key("a", "limit5hUsd", json!(6))).await;
    assert_eq!(answer.body["errorCode"], "KEY_LIMIT_5H_EXCEEDS_USER_LIMIT");
    assert_eq!(answer.body["errorParams"], json!({"keyLimit": "6", "userLimit": "5"}));
    let refused = api.refused("keys/addKey", &key("a", "limitConcurrentSessions", json!(3))).await;
    assert_eq!(refused, code(400, "KEY_LIMIT_CONCURRENT_EXCEEDS_USER_LIMIT"));
    let added = api.data("keys/addKey", &key("a", "limit5hUsd", json!(5))).await;
    api.data("keys/addKey", &key("b", "limitMonthlyUsd", json!(200_000))).await;
    let edit = json!({"keyId": added["id"], "limit5hUsd": 5.000_000_001}).to_string();
    assert_eq!(api.refused("keys/editKey", &edit).await, code(400, "KEY_LIMIT_5H_EXCEEDS_USER_LIMIT"));
    let edit = json!({"keyId": added["id"], "limit5hUsd": null, "name": "b"}).to_string();
    assert_eq!(api.refused("keys/editKey", &edit).await, code(400, "DUPLICATE_NAME"));
    let edit = json!({"keyId": added["id"], "limit5hUsd": null, "name": "c", "cacheTtlPreference": "1h"})
        .to_string();
    let edited = api.data("keys/editKey", &edit).await;
    assert_eq!((&edited["limit5hUsd"], &edited["name"]), (&json!(null), &json!("c")));
    assert_eq!(edited["cacheTtlPreference"], "1h");

    // A user's limit that comes down takes the keys' with it, and never lifts one.
    let edit =
        json!({"userId": user, "limitMonthlyUsd": 1000, "limit5hUsd": 4, "limitConcurrentSessions": 1});
    api.data("users/editUser", &edit.to_string()).await;
    let keys = api.data("keys/getKeys", &json!({"userId": user}).to_string()).await;
    let shown = |name: &str, field: &str| {
        let keys = keys.as_array().unwrap();
        keys.iter().find(|key| key["name"] == name).map(|key| key[field].clone()).unwrap()
    };
    assert_eq!((shown("b", "limitMonthlyUsd"), shown("c", "limitMonthlyUsd")), (json!(1000), json!(null)));
    assert_eq!((shown("c", "limit5hUsd"), shown("c", "limitConcurrentSessions")), (json!(null), json!(0)));
}

#[actix_web::test]
async fn case_9_and_10_last_keys_and_other_people() {
    let api = Api::new().await;
    let a = api.data("users/addUser", r#"{"name":"A"}"#).await;
    let b = api.data("users/addUser", r#"{"name":"B"}"#).await;
    let remove = |id: &Value| json!({"keyId": id}).to_string();
    let (first, clear) = (&a["defaultKey"]["id"], a["defaultKey"]["key"].as_str().unwrap());
    assert_eq!(api.refused("keys/removeKey", &remove(first)).await, code(400, "CANNOT_DELETE_LAST_KEY"));
    let alice = api.by(clear);
    let second = alice.data("keys/addKey", &json!({"userId": a["id"], "name": "2"}).to_string()).await;
    assert_eq!(api.act("keys/removeKey", &remove(&second["id"])).await.status, 200);
    assert_eq!(api.refused("keys/removeKey", &remove(&second["id"])).await, code(400, "KEY_NOT_FOUND"));
    let disable = json!({"keyId": first, "isEnabled": false}).to_string();
    assert_eq!(alice.refused("keys/editKey", &disable).await, code(400, "CANNOT_DISABLE_LAST_KEY"));
    let groups = json!({"userId": a["id"], "name": "g", "providerGroup": "vip"}).to_string();
    assert_eq!(alice.refused("keys/addKey", &groups).await, code(400, "NO_GROUP_PERMISSION"));
    api.data("keys/addKey", &groups).await;
    let users = api.data("users/getUsers", "").await;
    assert_eq!(users[0]["providerGroup"], "default,vip", "what an admin gives a key, its user has");

    let (others, foreign) = (json!({"userId": b["id"]}).to_string(), remove(&b["defaultKey"]["id"]));
    assert_eq!(alice.refused("keys/getKeys", &others).await, code(403, "PERMISSION_DENIED"));
    assert_eq!(alice.refused("keys/removeKey", &foreign).await, code(403, "PERMISSION_DENIED"));
    assert_eq!(alice.refused("keys/removeKey", r#"{"keyId":999999}"#).await, code(403, "PERMISSION_DENIED"));
    let own = alice.data("keys/getKeys", &json!({"userId": a["id"]}).to_string()).await;
    assert_eq!(own.as_array().unwrap().len(), 2);
    let reading = json!({"userId": a["id"], "name": "r", "canLoginWebUi": false}).to_string();
    let reader = alice.data("keys/addKey", &reading).await;
    let reader = api.by(reader["key"].as_str().unwrap());
    assert_eq!(reader.refused("keys/addKey", &others).await, code(403, "PERMISSION_DENIED"));
    assert_eq!(reader.act("usage-logs/getUsageLogs", "").await.status, 200);
}

#[actix_web::test]
async fn keys_are_revealed_to_admins_only_where_the_operator_chose_so() {
    let api = Api::with(KeyReveal::Admin).await;
    let user = api.data("users/addUser", r#"{"name":"A"}"#).await;
    let clear = user["defaultKey"]["key"].as_str().unwrap();
    let body = json!({"userId": user["id"]}).to_string();
    assert_eq!(api.data("keys/getKeys", &body).await[0]["key"], clear);
    assert_ne!(api.by(clear).data("keys/getKeys", &body).await[0]["key"], clear);
}

/// What an admin takes away stays away: from the keys that carried it, and whatever their owner does.
#[actix_web::test]
async fn a_group_that_was_taken_away_does_not_come_back() {
    let api = Api::new().await;
    let eve = api.data("users/addUser", r#"{"name":"Eve"}"#).await;
    let (id, own) = (eve["id"].as_i64().unwrap(), eve["defaultKey"]["key"].as_str().unwrap().to_owned());
    let add = json!({"userId": id, "name": "prem", "providerGroup": "premium"}).to_string();
    let key = api.data("keys/addKey", &add).await["id"].as_i64().unwrap();
    let groups = async || {
        let user = api.data("users/getUsers", "").await[0].clone();
        let of_key = user["keys"].as_array().unwrap().iter().find(|own| own["id"] == key).unwrap().clone();
        (user["providerGroup"].clone(), of_key["providerGroup"].clone())
    };
    assert_eq!(groups().await, (json!("default,premium"), json!("premium")), "an admin gives both");
    api.data("users/editUser", &json!({"userId": id, "providerGroup": "default"}).to_string()).await;
    // No group at all would mean all of the user's; the proxies serve it nothing.
    assert_eq!(groups().await, (json!("default"), json!("premium")));
    for by in [Some(own.as_str()), None] {
        let edit = json!({"keyId": key, "name": format!("prem {by:?}").chars().take(9).collect::<String>()});
        match by {
            Some(own) => api.by(own).data("keys/editKey", &edit.to_string()).await,
            None => api.data("keys/editKey", &edit.to_string()).await,
        };
        assert_eq!(groups().await.0, "default", "{by:?}");
    }
    let both = json!({"keyId": key, "providerGroup": "premium,batch"}).to_string();
    api.data("keys/editKey", &both).await;
    api.data("users/editUser", &json!({"userId": id, "providerGroup": "batch"}).to_string()).await;
    assert_eq!(groups().await, (json!("batch"), json!("batch")));
    let more = json!({"userId": id, "name": "more", "providerGroup": "premium"}).to_string();
    assert_eq!(api.by(&own).refused("keys/addKey", &more).await, code(400, "NO_GROUP_PERMISSION"));
}
