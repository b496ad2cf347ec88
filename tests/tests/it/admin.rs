//! The admin API as clients see it: who may call what, the envelope whatever happens, the examples of the seed; and
//! what a process says that cannot start.

use crate::scene::{CLAUDE, Scene};
use anyhow::{Context, Result};
use http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use std::process::Command;
use testkit::client::http;
use testkit::fleet::{ADMIN_TOKEN, Fleet};
use testkit::process::{free_port, program};

fn lonely() -> testkit::fleet::Plan {
    Fleet::plan().proxies(0).without_redis()
}

/// Status and JSON of any request to the admin port; the body must be JSON whatever happens.
async fn envelope(request: RequestBuilder) -> Result<(u16, Value)> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let text = answer.text().await?;
    Ok((status, serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))?))
}

/// Every action of this stage, with a body that an admin could send, and whether other users may call it.
fn actions(user: i64, key: i64, provider: i64) -> Vec<(&'static str, Value, bool)> {
    vec![
        ("users/addUser", json!({"name": "Mallory"}), false),
        ("users/getUsers", json!({}), false),
        ("users/editUser", json!({"userId": user, "note": "x"}), false),
        ("users/removeUser", json!({"userId": user}), false),
        ("keys/addKey", json!({"userId": user, "name": "stolen"}), false),
        ("keys/getKeys", json!({"userId": user}), false),
        ("keys/editKey", json!({"keyId": key, "name": "stolen"}), false),
        ("keys/removeKey", json!({"keyId": key}), false),
        (
            "providers/addProvider",
            json!({"name": "p", "baseUrl": "http://127.0.0.1:9", "apiKey": "k", "type": "claude"}),
            false,
        ),
        ("providers/getProviders", json!({}), false),
        ("providers/editProvider", json!({"providerId": provider, "weight": 7}), false),
        ("providers/removeProvider", json!({"providerId": provider}), false),
        ("model-prices/uploadPriceTable", json!({"jsonContent": "{}"}), false),
        ("model-prices/getModelPricesPaginated", json!({}), true),
        ("model-prices/hasPriceTable", json!({}), true),
        ("usage-logs/getUsageLogs", json!({}), true),
    ]
}

#[tokio::test]
async fn nobody_reaches_what_is_not_theirs() -> Result<()> {
    let fleet = lonely().start().await?;
    let admin = &fleet.admin;
    let (alice, _) = admin.user(json!({"name": "Alice"})).await?;
    let (key, _) = admin.key(alice, "second", json!({})).await?;
    let provider = admin.provider("claude", "http://127.0.0.1:9", json!({})).await?;
    let (bob, bobs) = admin.user(json!({"name": "Bob"})).await?;
    let intent = "SELECT (SELECT json_agg(u ORDER BY id) FROM users u)::text || (SELECT json_agg(k ORDER BY id) \
                  FROM keys k)::text || (SELECT json_agg(p ORDER BY id) FROM providers p)::text";
    let before = fleet.sql(intent)?;
    for (action, body, open) in actions(alice, key, provider) {
        let url = format!("{}/api/actions/{action}", fleet.control_url());
        let request = || http().post(&url).json(&body);
        let strangers = [
            ("no credential", request()),
            ("garbage", request().bearer_auth("garbage")),
            ("a garbage cookie", request().header("cookie", "session=garbage; auth-token=garbage")),
            ("a wrong scheme", request().header("authorization", format!("Basic {ADMIN_TOKEN}"))),
        ];
        for (who, request) in strangers {
            let (status, body) = envelope(request).await?;
            assert_eq!((status, &body["ok"]), (401, &json!(false)), "{action} with {who}: {body}");
            assert!(body["error"].is_string(), "{body}");
        }
        let (status, answer) = admin.with_token(&bobs).attempt(action, body).await?;
        match open {
            true => assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{action}: {answer}"),
            false => {
                assert!([400, 403, 404].contains(&status), "{action} by Bob: {status} {answer}");
                assert_eq!(answer["ok"], json!(false));
            }
        }
    }
    assert_eq!(fleet.sql(intent)?, before, "a refused action changed something");
    // His own keys are his.
    let bob_sees = admin.with_token(&bobs);
    bob_sees.action("keys/addKey", json!({"userId": bob, "name": "my second"})).await?;
    for (request, status) in [(http().get(format!("{}/api/fleet", fleet.control_url())), 401)] {
        assert_eq!(envelope(request).await?.0, status);
    }
    let request = http().get(format!("{}/api/fleet", fleet.control_url())).bearer_auth(&bobs);
    assert_eq!(envelope(request).await?.0, 403);
    Ok(())
}

#[tokio::test]
async fn logins_come_as_cookies_and_end() -> Result<()> {
    let fleet = lonely().start().await?;
    let base = fleet.control_url();
    for (name, content_type) in [("token", "text/plain"), ("key", "application/json")] {
        let body = json!({name: ADMIN_TOKEN}).to_string();
        let login =
            http().post(format!("{base}/api/auth/login")).header("content-type", content_type).body(body);
        let answer = login.send().await?;
        assert_eq!(answer.status(), 200);
        let cookies: Vec<String> = answer
            .headers()
            .get_all("set-cookie")
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect();
        let body: Value = answer.json().await?;
        assert_eq!(body["ok"], json!(true), "{body}");
        let session =
            cookies.iter().find(|cookie| cookie.starts_with("session=")).context("the cookie `session`")?;
        for part in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(session.contains(part), "{session}");
        }
        assert!(!session.contains("Secure"), "not usable over plain HTTP: {session}");
        assert!(!session.contains(ADMIN_TOKEN), "{session}");
        let pair = session.split(';').next().unwrap_or_default();
        let value = pair.strip_prefix("session=").unwrap_or_default();
        let users = || http().post(format!("{base}/api/actions/users/getUsers"));
        // No body, no content type; the other cookie's name; the raw token as bearer, as key and as cookie.
        let ways = [
            users().header("cookie", pair),
            users().header("cookie", format!("auth-token={value}")),
            users().bearer_auth(ADMIN_TOKEN),
            users().header("x-api-key", ADMIN_TOKEN),
            users().header("cookie", format!("session={ADMIN_TOKEN}")),
        ];
        for way in ways {
            let (status, body) = envelope(way).await?;
            assert_eq!((status, body["data"].is_array()), (200, true), "{body}");
        }
        let logout = http().post(format!("{base}/api/auth/logout")).header("cookie", pair);
        assert_eq!(envelope(logout).await?.1["ok"], json!(true));
        assert_eq!(envelope(users().header("cookie", pair)).await?.0, 401, "after the logout");
    }
    for (body, status) in [(json!({}), 400), (json!({"token": "wrong"}), 401), (json!({"token": 5}), 400)] {
        let answer = http().post(format!("{base}/api/auth/login")).json(&body).send().await?;
        assert_eq!(answer.status(), status, "{body}");
        assert!(answer.headers().get("set-cookie").is_none(), "{body}");
    }
    let guess = async || -> Result<u16> {
        Ok(http()
            .post(format!("{base}/api/auth/login"))
            .json(&json!({"token": "no"}))
            .send()
            .await?
            .status()
            .as_u16())
    };
    for _ in 0..9 {
        guess().await?;
    }
    let answer =
        http().post(format!("{base}/api/auth/login")).json(&json!({"token": ADMIN_TOKEN})).send().await?;
    assert_eq!(answer.status(), 429, "even the right one, after ten wrong ones");
    assert!(answer.headers().contains_key("retry-after"));
    Ok(())
}

#[tokio::test]
async fn whatever_is_wrong_comes_in_the_envelope() -> Result<()> {
    let fleet = lonely().start().await?;
    let post = |path: &str, body: &str| {
        let url = format!("{}{path}", fleet.control_url());
        http()
            .post(url)
            .bearer_auth(ADMIN_TOKEN)
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    let long = "n".repeat(65);
    let long = format!(r#"{{"name":"{long}"}}"#);
    let cases: [(&str, &str, u16, &str); 17] = [
        ("/api/actions/users/addUser", "{", 400, ""),
        ("/api/actions/users/addUser", "[]", 400, ""),
        ("/api/actions/users/addUser", "{}", 400, "name"),
        ("/api/actions/users/addUser", r#"{"name":""}"#, 400, "name"),
        ("/api/actions/users/addUser", &long, 400, "name"),
        ("/api/actions/users/addUser", r#"{"name":"a","rpm":"abc"}"#, 400, "rpm"),
        ("/api/actions/users/addUser", r#"{"name":"a","rpm":-1}"#, 400, "rpm"),
        ("/api/actions/users/addUser", r#"{"name":"a","rpm":1000001}"#, 400, "rpm"),
        ("/api/actions/users/addUser", r#"{"name":"a","dailyQuota":100001}"#, 400, "dailyQuota"),
        ("/api/actions/users/editUser", r#"{"userId":999999,"note":"a"}"#, 400, ""),
        ("/api/actions/keys/addKey", r#"{"userId":999999,"name":"a"}"#, 400, ""),
        (
            "/api/actions/providers/addProvider",
            r#"{"name":"a","baseUrl":"abc","apiKey":"k"}"#,
            400,
            "baseUrl",
        ),
        ("/api/actions/model-prices/uploadPriceTable", r#"{"jsonContent":"{"}"#, 400, ""),
        ("/api/actions/model-prices/uploadPriceTable", r#"{"jsonContent":"[]"}"#, 400, ""),
        ("/api/actions/users/noSuchAction", "{}", 404, ""),
        ("/api/actions/noSuchModule/getUsers", "{}", 404, ""),
        ("/api/nothing", "{}", 404, ""),
    ];
    for (path, body, status, names) in cases {
        let (found, answer) = envelope(post(path, body)).await?;
        assert_eq!((found, &answer["ok"]), (status, &json!(false)), "{path} {body}: {answer}");
        let text = answer["error"].as_str().with_context(|| format!("{path}: {answer}"))?;
        assert!(text.contains(names), "{path} {body}: {answer}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let url = format!("{}/api/actions/users/getUsers", fleet.control_url());
        let (status, answer) = envelope(http().request(method.clone(), url).bearer_auth(ADMIN_TOKEN)).await?;
        assert!([404, 405].contains(&status) && answer["ok"] == json!(false), "{method}: {status} {answer}");
    }
    // An empty body is an empty object.
    assert_eq!(envelope(post("/api/actions/users/getUsers", "")).await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn the_examples_of_the_seed_work_as_printed() -> Result<()> {
    let scene = Scene::open(Fleet::plan().proxies(1).without_redis()).await?;
    let admin = &scene.fleet.admin;
    let alice = json!({"name": "Alice", "description": "测试用户", "rpm": 60, "dailyQuota": 10});
    let data = admin.action("users/addUser", alice.clone()).await?;
    for (name, value) in alice.as_object().context("an object")? {
        assert_eq!(&data[name], value, "{name}: {data}");
    }
    let id = data["id"].as_i64().context("id")?;
    admin.action("users/addUser", json!({"name": "Bob", "rpm": 60, "dailyQuota": 5})).await?;

    let wanted = json!({"userId": id, "name": "Production Key", "expiresAt": "2025-12-31T23:59:59Z"});
    let data = admin.action("keys/addKey", wanted.clone()).await?;
    let key = data["generatedKey"].as_str().context("generatedKey")?;
    let digits = key.strip_prefix("sk-").context("sk-")?;
    assert!(
        digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{key}"
    );
    scene.fleet.sync().await?;
    let answer = crate::answers::read(scene.fleet.caller(0, key).message(CLAUDE, false).await?).await;
    assert_eq!((answer.status, answer.json()?["error"]["code"].as_str()), (401, Some("key_expired")));
    let (status, again) = admin.attempt("keys/addKey", wanted).await?;
    assert_eq!((status, again["errorCode"].as_str()), (400, Some("DUPLICATE_NAME")), "{again}");
    let keys = admin.action("keys/getKeys", json!({"userId": id})).await?.to_string();
    assert!(
        !keys.contains(digits) && keys.contains(&key[key.len() - 4..]) && keys.contains("••••••"),
        "{keys}"
    );

    let provider = json!({"name": "GLM Provider", "baseUrl": "https://api.provider.com/v1", "apiKey": "sk-xxx",
        "type": "claude", "weight": 10, "priority": 1, "isEnabled": true});
    let added = admin.action("providers/addProvider", provider).await?;
    let snake = json!({"name": "GLM 2", "url": "https://api.provider.com/v1", "key": "sk-yyyyyyyyyyyy",
        "provider_type": "openai-compatible", "weight": 10, "priority": 1, "is_enabled": false});
    admin.action("providers/addProvider", snake).await?;
    let all = admin.action("providers/getProviders", json!({})).await?;
    let found = all.as_array().and_then(|all| all.iter().find(|one| one["name"] == "GLM Provider"));
    let found = found.context("the provider in the list")?;
    let facts =
        [&found["id"], &found["providerType"], &found["weight"], &found["priority"], &found["isEnabled"]];
    assert_eq!(facts, [&added["id"], &json!("claude"), &json!(10), &json!(1), &json!(true)], "{found}");
    assert!(!all.to_string().contains("sk-xxx") && !all.to_string().contains("sk-yyyyyyyyyyyy"), "{all}");

    let prices = json!({"page": 1, "pageSize": 50, "search": "CLAUDE"});
    let data = admin.action("model-prices/getModelPricesPaginated", prices).await?;
    let ours = data["prices"].as_array().and_then(|all| all.iter().find(|one| one["modelName"] == CLAUDE));
    let ours = ours.with_context(|| format!("{CLAUDE} in {data}"))?;
    let per_million = ["inputPrice", "outputPrice", "cacheCreationInputPrice", "cacheReadInputPrice"];
    let found =
        per_million.map(|name| crate::answers::decimal(&ours[name]).ok().map(|price| price.to_string()));
    assert_eq!(found, ["3", "15", "3.75", "0.3"].map(|price| Some(price.to_owned())), "{ours}");
    assert_eq!((&data["page"], &data["pageSize"]), (&json!(1), &json!(50)));
    assert_eq!(admin.action("model-prices/hasPriceTable", json!({})).await?, json!(true));

    assert_eq!(scene.alice(0).status(CLAUDE).await?, 200);
    scene.fleet.expect_records("status = 200", 1).await?;
    let today = chrono::Utc::now().format("%Y-%m-%d").to_string();
    let logs = json!({"startDate": today, "endDate": today, "limit": 100});
    let data = admin.action("usage-logs/getUsageLogs", logs).await?;
    assert_eq!((data["logs"].as_array().map(Vec::len), data["total"].as_i64()), (Some(1), Some(1)), "{data}");
    let old = admin.action(
        "usage-logs/getUsageLogs",
        json!({"startDate": "2025-01-01", "endDate": "2025-01-31", "limit": 100}),
    );
    assert_eq!(old.await?["total"], json!(0));
    Ok(())
}

#[tokio::test]
async fn limits_of_keys_fit_below_their_users_and_the_last_key_stays() -> Result<()> {
    let fleet = lonely().start().await?;
    let admin = &fleet.admin;
    let (user, _) = admin.user(json!({"name": "Alice", "limit5hUsd": 5})).await?;
    let key = |name: &str, limit: f64| json!({"userId": user, "name": name, "limit5hUsd": limit});
    let (status, body) = admin.attempt("keys/addKey", key("six", 6.0)).await?;
    assert_eq!(
        (status, body["errorCode"].as_str()),
        (400, Some("KEY_LIMIT_5H_EXCEEDS_USER_LIMIT")),
        "{body}"
    );
    let five = admin.action("keys/addKey", key("five", 5.0)).await?["id"].clone();
    let keys = admin.action("keys/getKeys", json!({"userId": user})).await?;
    let first = keys.as_array().and_then(|all| all.iter().find(|one| one["name"] == "default"));
    let first = first.context("the default key")?["id"].clone();
    admin.action("keys/removeKey", json!({"keyId": first})).await?;
    let (status, body) = admin.attempt("keys/removeKey", json!({"keyId": five})).await?;
    assert_eq!((status, body["errorCode"].as_str()), (400, Some("CANNOT_DELETE_LAST_KEY")), "{body}");
    Ok(())
}

#[tokio::test]
async fn the_description_of_the_api_is_open_and_whole() -> Result<()> {
    let fleet = lonely().start().await?;
    let url = format!("{}/api/actions/openapi.json", fleet.control_url());
    let (status, document) = envelope(http().get(url)).await?;
    assert_eq!((status, document["openapi"].as_str()), (200, Some("3.1.0")));
    for (action, _, _) in actions(1, 1, 1) {
        let paths = document["paths"].as_object().context("paths")?;
        let path = paths
            .iter()
            .find(|(path, _)| path.ends_with(action))
            .with_context(|| format!("{action} is missing"))?;
        let operation = &path.1["post"];
        assert!(
            operation["requestBody"]["content"]["application/json"]["schema"].is_object(),
            "{action}: {operation}"
        );
        for code in ["200", "400", "401", "403", "500"] {
            assert!(operation["responses"][code].is_object(), "{action}: no answer {code}");
        }
    }
    Ok(())
}

/// What a program that must not start says, and its exit code.
fn refusal(name: &str, env: &[(String, String)]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(program(name)?);
    if name == "control-plane" {
        command.arg("serve");
    }
    command.env_clear().envs(env.iter().cloned());
    let output = command.output()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), text))
}

/// Each case is a variable with a wrong value, or without one, among settings that are right.
fn each_is_named(name: &str, right: &[(&str, String)], cases: &[(&str, Option<&str>)]) -> Result<()> {
    for (variable, value) in cases {
        let others = right.iter().filter(|(name, _)| name != variable);
        let mut env: Vec<(String, String)> =
            others.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        env.extend(value.map(|value| ((*variable).to_owned(), value.to_owned())));
        let (code, text) = refusal(name, &env)?;
        let what = format!("{name} with {variable}={value:?}: {code:?} {text}");
        assert!(code.is_some_and(|code| code != 0), "{what}");
        assert_eq!(text.trim().lines().count(), 1, "{what}");
        assert!(text.contains(variable), "{what}");
        assert!(!text.contains("too-short-a-secret") && !text.contains("panicked"), "{what}");
    }
    Ok(())
}

fn addr() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

fn common() -> Result<Vec<(&'static str, String)>> {
    let secrets = [("CONTROL_TOKEN", "c".repeat(32)), ("SECRETS_KEY", "ab".repeat(32))];
    Ok(secrets.into_iter().chain([("LISTEN_ADDR", addr()?), ("OPS_ADDR", addr()?)]).collect())
}

#[test]
fn a_control_plane_names_the_setting_that_is_missing_or_wrong() -> Result<()> {
    let mut right = common()?;
    right.extend([("ADMIN_TOKEN", "a".repeat(32)), ("GRPC_ADDR", addr()?)]);
    right.push(("DATABASE_URL", "postgres://127.0.0.1:9/none".to_owned()));
    let cases = [
        ("DATABASE_URL", None),
        ("ADMIN_TOKEN", None),
        ("SECRETS_KEY", None),
        ("CONTROL_TOKEN", None),
        ("ADMIN_TOKEN", Some("change-me")),
        ("SECRETS_KEY", Some("too-short-a-secret")),
        ("DATABASE_URL", Some("no url")),
        ("LISTEN_ADDR", Some("nowhere")),
        ("TIME_ZONE", Some("Mars/Olympus")),
        ("PUBLISH_POLL_MS", Some("often")),
        ("LOG_FORMAT", Some("sideways")),
    ];
    each_is_named("control-plane", &right, &cases)
}

#[test]
fn a_proxy_names_the_setting_that_is_missing_or_wrong() -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut right = common()?;
    right.push(("DATA_DIR", data.path().to_string_lossy().into_owned()));
    let cases = [
        ("CONTROL_TOKEN", None),
        ("SECRETS_KEY", None),
        ("SECRETS_KEY", Some("too-short-a-secret")),
        ("LISTEN_ADDR", Some("nowhere")),
        ("WORKERS", Some("many")),
        ("MAX_BODY_BYTES", Some("-1")),
        ("QUOTA_STATUS", Some("418")),
        ("CONTROL_PLANE_GRPC", Some("no url")),
        ("CONNECT_TIMEOUT", Some("soon")),
        ("REDIS_URL", Some("no url")),
        ("LOG_FORMAT", Some("sideways")),
        ("DATA_DIR", Some("/proc/no/such/folder")),
        ("UPSTREAM_CA_FILE", Some("/no/such/file")),
    ];
    each_is_named("data-plane", &right, &cases)
}
