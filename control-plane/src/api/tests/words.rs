//! Sensitive words.

use super::*;
use serde_json::json;

#[actix_web::test]
async fn case_36_words() {
    let api = Api::new().await;
    let create = async |word: &str, kind: &str| {
        let body = json!({"word": word, "matchType": kind}).to_string();
        api.data("sensitive-words/createSensitiveWordAction", &body).await["id"].as_i64().unwrap()
    };
    let (foo, bar) = (create(" foo ", "contains").await, create("b.r", "regex").await);
    create("whole", "exact").await;
    let listed = api.data("sensitive-words/listSensitiveWords", "").await;
    let texts: Vec<&str> =
        listed.as_array().unwrap().iter().map(|row| row["word"].as_str().unwrap()).collect();
    assert_eq!(texts, ["whole", "b.r", "foo"], "newest first");
    for (body, want) in [
        (json!({"word": " ", "matchType": "contains"}), "REQUIRED_FIELD"),
        (json!({"matchType": "contains"}), "REQUIRED_FIELD"),
        (json!({"word": "x"}), "INVALID_FORMAT"),
        (json!({"word": "x", "matchType": "prefix"}), "INVALID_FORMAT"),
        (json!({"word": "(", "matchType": "regex"}), "INVALID_FORMAT"),
        (json!({"word": "(?=x)", "matchType": "regex"}), "INVALID_FORMAT"),
        (json!({"word": "x".repeat(256), "matchType": "exact"}), "MAX_LENGTH"),
    ] {
        let refused = api.refused("sensitive-words/createSensitiveWordAction", &body.to_string()).await;
        assert_eq!(refused, code(400, want), "{body}");
    }
    let update = "sensitive-words/updateSensitiveWordAction";
    let bad = json!({"id": foo, "word": "(", "matchType": "regex"}).to_string();
    assert_eq!(api.refused(update, &bad).await, code(400, "INVALID_FORMAT"));
    let off = api.data(update, &json!({"id": bar, "isEnabled": false}).to_string()).await;
    assert_eq!((&off["isEnabled"], &off["word"]), (&json!(false), &json!("b.r")));
    let stats = api.data("sensitive-words/getCacheStats", "").await;
    for (field, want) in [
        ("containsCount", json!(1)),
        ("exactCount", json!(1)),
        ("regexCount", json!(0)),
        ("totalCount", json!(2)),
        ("isLoading", json!(false)),
    ] {
        assert_eq!(stats[field], want, "{field}");
    }
    assert!(stats["lastReloadTime"].as_i64().is_some_and(|at| at > 1_700_000_000_000));
    let refreshed = api.data("sensitive-words/refreshCacheAction", "").await;
    assert_eq!(refreshed["stats"]["totalCount"], 2);
    let gone = json!({"id": foo}).to_string();
    assert_eq!(api.act("sensitive-words/deleteSensitiveWordAction", &gone).await.status, 200);
    for action in ["sensitive-words/deleteSensitiveWordAction", update] {
        assert_eq!(api.refused(action, &gone).await, code(400, "NOT_FOUND"), "{action}");
    }
    assert_eq!(api.data("sensitive-words/getCacheStats", "").await["containsCount"], 0);
}
