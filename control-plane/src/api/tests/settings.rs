//! The settings of the gateway.

use super::*;
use crate::db::rows::changed_since;
use crate::db::schema::audit_log;
use contract::ids::Generation;
use contract::table::Unpriced;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

const GET: &str = "system/getSettings";
const UPDATE: &str = "system/updateSettings";

fn shown(resources: bool, billing: &str, unpriced: &str, scope: &str) -> Value {
    json!({"upstreamResources": resources, "billingModelSource": billing, "unpriced": unpriced, "wordScope": scope})
}

#[actix_web::test]
async fn settings_have_defaults_and_change_one_by_one() {
    let api = Api::made(|settings| settings.unpriced = Unpriced::Refuse).await;
    assert_eq!(api.data(GET, "").await, shown(false, "original", "refuse", "people"));
    for (body, want) in [
        (json!({}), shown(false, "original", "refuse", "people")),
        (json!({"upstreamResources": true}), shown(true, "original", "refuse", "people")),
        (json!({"word_scope": "all", "unpriced": "serve"}), shown(true, "original", "serve", "all")),
        (json!({"billingModelSource": "redirected"}), shown(true, "redirected", "serve", "all")),
        (json!({"unpriced": null, "wordScope": null}), shown(true, "redirected", "refuse", "people")),
    ] {
        let answer = api.act(UPDATE, &body.to_string()).await;
        assert_eq!((answer.status.as_u16(), &answer.body["data"]), (200, &want), "{body}");
        assert!(answer.body["generation"].as_i64().is_some(), "{}", answer.text);
        assert_eq!(api.data(GET, "").await, want, "{body}");
    }
    // What was shown can be sent back.
    let now = api.data(GET, "").await;
    assert_eq!(api.data(UPDATE, &now.to_string()).await, now);

    let mut conn = api.state.pool.read().await.unwrap();
    let details = audit_log::table
        .filter(audit_log::action.eq(UPDATE))
        .order(audit_log::id)
        .select(audit_log::details)
        .load::<Value>(&mut conn)
        .await
        .unwrap();
    assert_eq!(details[4], json!({"set": {"unpriced": null, "wordScope": null}}), "{details:?}");
    let changes = changed_since(&mut conn, Generation(0)).await.unwrap();
    let mut keys: Vec<_> = changes.settings.iter().map(|row| row.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["billingModelSource", "unpriced", "upstreamResources", "wordScope"]);
}

#[actix_web::test]
async fn what_has_no_meaning_is_refused_and_changes_nothing() {
    let api = Api::new().await;
    let before = api.data(GET, "").await;
    for (body, want) in [
        (json!({"upstreamResources": "yes"}), "INVALID_TYPE"),
        (json!({"unpriced": "free"}), "INVALID_FORMAT"),
        (json!({"unpriced": "Refuse"}), "INVALID_FORMAT"),
        (json!({"wordScope": 1}), "INVALID_TYPE"),
        (json!({"billingModelSource": ""}), "INVALID_FORMAT"),
        (json!({"upstreamResource": true}), "UNKNOWN_FIELD"),
        (json!({"upstreamResources": true, "siteTitle": "x"}), "UNKNOWN_FIELD"),
    ] {
        assert_eq!(api.refused(UPDATE, &body.to_string()).await, code(400, want), "{body}");
        let chinese = TestRequest::post()
            .uri(&format!("/api/actions/{UPDATE}"))
            .insert_header(("accept-language", "zh"))
            .set_payload(body.to_string());
        let text = api.send(chinese).await.body["error"].as_str().unwrap().to_owned();
        assert!(!text.is_ascii(), "{text}");
    }
    assert_eq!(api.data(GET, "").await, before);
}
