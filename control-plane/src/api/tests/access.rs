//! Logins, credentials, the envelope, the document.

use super::*;
use serde_json::json;

fn login(body: &str) -> TestRequest {
    TestRequest::post()
        .uri("/api/auth/login")
        .insert_header(("content-type", "text/plain"))
        .set_payload(body.to_owned())
}

fn cookies(answer: &Answered) -> Vec<String> {
    answer.headers.get_all("set-cookie").map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn case_1_and_3_login_by_token_and_both_cookies() {
    let api = Api::new().await.anonymous();
    let answer = api.send(login(&json!({"token": TOKEN}).to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["ok"], true);
    assert_eq!(answer.body["user"]["role"], "admin");
    let set = cookies(&answer);
    assert_eq!(set.len(), 2);
    for (cookie, name) in set.iter().zip(["session=", "auth-token="]) {
        assert!(cookie.starts_with(name), "{cookie}");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && cookie.contains("Path=/"));
        assert!(cookie.contains("Max-Age=3600") && !cookie.contains("Secure") && !cookie.contains(TOKEN));
    }
    let cookie = set[0].split(';').next().unwrap().to_owned();
    let users = |cookie: &str| {
        TestRequest::post().uri("/api/actions/users/getUsers").insert_header(("cookie", cookie.to_owned()))
    };
    let answer = api.send(users(&cookie)).await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &json!({"ok": true, "data": []})));
    let other = set[1].split(';').next().unwrap();
    assert_eq!(api.send(users(other)).await.status, 200);
    assert_eq!(api.send(users(&format!("session=stale; {other}"))).await.status, 200);
    assert_eq!(api.send(users(&format!("session={TOKEN}"))).await.status, 200);
    assert_eq!(api.send(users("session=garbage")).await.status, 401);
    // Another site's page cannot make the cookie act.
    let foreign = users(&cookie).insert_header(("origin", "https://evil.example"));
    let answer = api.send(foreign).await;
    assert_eq!((answer.status.as_u16(), &answer.body["errorCode"]), (403, &json!("CSRF_REJECTED")));
    let answer = api.by(TOKEN).send(users(&cookie).insert_header(("origin", "https://evil.example"))).await;
    assert_eq!(answer.status, 200);

    let logout = TestRequest::post().uri("/api/auth/logout").insert_header(("cookie", cookie.clone()));
    let answer = api.send(logout).await;
    assert_eq!(answer.status, 200);
    assert!(cookies(&answer).iter().all(|cookie| cookie.contains("Max-Age=0")));
    assert_eq!(api.send(users(&cookie)).await.status, 401);
    assert_eq!(api.send(TestRequest::post().uri("/api/auth/logout")).await.status, 200);
}

#[actix_web::test]
async fn case_2_failed_logins() {
    let api = Api::new().await.anonymous();
    for (body, status, code) in [
        ("{}", 400, "KEY_REQUIRED"),
        (r#"{"token":""}"#, 400, "KEY_REQUIRED"),
        (r#"{"token":5}"#, 400, "INVALID_TYPE"),
        ("{", 400, "INVALID_JSON"),
        (r#"{"token":"wrong"}"#, 401, "KEY_INVALID"),
        (r#"{"key":"sk-00000000000000000000000000000000"}"#, 401, "KEY_INVALID"),
        (r#"{"password":"sid_0"}"#, 401, "KEY_INVALID"),
    ] {
        let answer = api.send(login(body)).await;
        assert_eq!((answer.status.as_u16(), &answer.body["errorCode"]), (status, &json!(code)), "{body}");
        assert!(cookies(&answer).is_empty());
        assert_eq!(answer.body["ok"], false);
    }
    let right = json!({"key": TOKEN}).to_string();
    assert_eq!(api.send(login(&right)).await.status, 200, "three failures are forgiven and forgotten");
    for _ in 0..10 {
        assert_eq!(api.send(login(r#"{"key":"wrong"}"#)).await.status, 401);
    }
    let answer = api.send(login(&right)).await;
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((800..=900).contains(&wait), "{wait}");
    let https = login(&right).insert_header(("x-forwarded-proto", "https"));
    assert_eq!(api.send(https).await.status, 429);
}

#[actix_web::test]
async fn guessed_credentials_lock_like_failed_logins() {
    let api = Api::new().await;
    let session = api.anonymous().send(login(&json!({"key": TOKEN}).to_string())).await;
    let session = cookies(&session)[0].clone();
    let session = session.split(['=', ';']).nth(1).unwrap().to_owned();
    let prices = "model-prices/hasPriceTable";
    for _ in 0..20 {
        // A script that goes on with a key that was removed, and logins that expired.
        assert_eq!(api.by("sk-stale").act(prices, "").await.status, 401);
        assert_eq!(api.by(&format!("sid_{}", "0".repeat(64))).act(prices, "").await.status, 401);
    }
    for n in 0..9 {
        assert_eq!(api.act(prices, "").await.status, 200);
        assert_eq!(api.by(&format!("guess {n}")).act(prices, "").await.status, 401);
    }
    let locked = api.act(prices, "").await;
    assert_eq!((locked.status.as_u16(), &locked.body["errorCode"]), (429, &json!("RATE_LIMITED")));
    assert!(locked.header("retry-after").parse::<u64>().is_ok_and(|wait| wait >= 800));
    assert_eq!(api.anonymous().send(login(&json!({"key": TOKEN}).to_string())).await.status, 429);
    assert_eq!(api.by(&session).act(prices, "").await.status, 200, "a login cannot be guessed");
    let long = api.restarted(|settings| settings.admin_token = Secret::new("an-admin-token-of-some-length"));
    let long = Api { bearer: Some("an-admin-token-of-some-length".to_owned()), ..long };
    for n in 0..10 {
        assert_eq!(long.by(&format!("guess {n}")).act(prices, "").await.status, 401);
    }
    assert_eq!(long.by("sk-nobodys").act(prices, "").await.status, 429, "the address is locked");
    assert_eq!(long.act(prices, "").await.status, 200, "and so long a token is no guess");
    let foreign = TestRequest::post().uri("/api/actions/model-prices/hasPriceTable");
    let foreign = foreign.insert_header(("cookie", format!("session=anothers; auth-token={session}")));
    assert_eq!(api.anonymous().send(foreign).await.status, 200, "beside another program's cookie");
    let foreign = TestRequest::post().uri("/api/actions/model-prices/hasPriceTable");
    let foreign = foreign.insert_header(("cookie", format!("session=anothers; session={session}")));
    assert_eq!(api.anonymous().send(foreign).await.status, 200, "of the same name");
}

#[actix_web::test]
async fn keys_of_before_are_no_guesses_and_no_way_around_the_guard() {
    let api = Api::new().await;
    let user = api.data("users/addUser", r#"{"name":"A"}"#).await;
    let (id, default) = (user["id"].clone(), user["defaultKey"]["key"].as_str().unwrap().to_owned());
    let prices = "model-prices/hasPriceTable";
    for n in 0..12 {
        let new = api.data("keys/addKey", &json!({"userId": id, "name": format!("k{n}")}).to_string()).await;
        api.act("keys/removeKey", &json!({"keyId": new["id"]}).to_string()).await;
        assert_eq!(api.by(new["key"].as_str().unwrap()).act(prices, "").await.status, 401);
    }
    for n in 0..10 {
        assert_eq!(api.act(prices, "").await.status, 200);
        let own = api.anonymous().send(login(&json!({"key": default}).to_string())).await;
        assert_eq!(own.status, 200);
        assert_eq!(api.by(&format!("guess {n}")).act(prices, "").await.status, 401);
    }
    assert_eq!(api.act(prices, "").await.status, 429, "a login of one's own forgives no guesses");
}

#[actix_web::test]
async fn a_key_of_ones_own_beside_a_guess_makes_it_no_cheaper() {
    let api = Api::new().await;
    let user = api.data("users/addUser", r#"{"name":"A"}"#).await;
    let own = user["defaultKey"]["key"].as_str().unwrap();
    for (n, status) in (0..9).map(|n| (n, 200)).chain([(9, 429)]) {
        let request = TestRequest::post().uri("/api/actions/model-prices/hasPriceTable");
        let request = request.insert_header(("cookie", format!("session=guess{n}; auth-token={own}")));
        assert_eq!(api.anonymous().send(request).await.status, status, "guess {n}");
    }
}

#[actix_web::test]
async fn https_in_front_makes_the_cookie_secure() {
    let api = Api::new().await.anonymous();
    let request = login(&json!({"key": TOKEN}).to_string()).insert_header(("x-forwarded-proto", "https"));
    let answer = api.send(request).await;
    assert!(cookies(&answer).iter().all(|cookie| cookie.contains("Secure")));
}

#[actix_web::test]
async fn case_3_and_4_deny_by_default_and_always_the_envelope() {
    let api = Api::new().await;
    let nobody = api.anonymous();
    let document = super::super::openapi::paths();
    for path in &document {
        if super::super::auth::is_open(path) {
            continue;
        }
        let method = super::super::openapi::method_of(path).unwrap();
        let request = TestRequest::with_uri(path).method(method.parse().unwrap());
        let answer = nobody.send(request).await;
        assert_eq!((answer.status.as_u16(), &answer.body["ok"]), (401, &json!(false)), "{path}");
    }
    assert_eq!(nobody.by("garbage").refused("users/getUsers", "").await, code(401, "TOKEN_INVALID"));
    assert_eq!(api.refused("nothing/here", "{}").await, code(404, "NOT_FOUND"));
    assert_eq!(
        api.refused("users/%67etUsers", "{}").await,
        code(404, "NOT_FOUND"),
        "one spelling of each path"
    );
    assert_eq!(api.refused("users/getUsers", "{").await, code(400, "INVALID_JSON"));
    assert_eq!(api.refused("users/getUsers", "[]").await, code(400, "INVALID_TYPE"));
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(200_000));
    assert_eq!(api.refused("users/addUser", &large).await, code(413, "PAYLOAD_TOO_LARGE"));
    let answer = api.send(TestRequest::get().uri("/api/actions/users/getUsers")).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    let answer = api.act("users/addUser", r#"{"name":"x","rpm":"abc"}"#).await;
    assert_eq!(answer.body["errorParams"]["field"], "rpm");
    let chinese =
        TestRequest::post().uri("/api/actions/users/addUser").insert_header(("accept-language", "zh-CN"));
    assert_eq!(api.send(chinese).await.body["error"], "name 为必填项");
    let chinese =
        TestRequest::post().uri("/api/actions/users/addUser").insert_header(("accept-language", "zh"));
    assert_eq!(nobody.send(chinese).await.body["error"], "未认证");
    let key = TestRequest::post().uri("/api/actions/users/getUsers").insert_header(("x-api-key", TOKEN));
    assert_eq!(nobody.send(key).await.status, 200);
}

#[actix_web::test]
async fn case_5_the_document() {
    let api = Api::new().await.anonymous();
    let answer = api.send(TestRequest::get().uri("/api/actions/openapi.json")).await;
    assert_eq!(answer.status, 200);
    let document = answer.body;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.keys().all(|path| path.starts_with("/api/")), "{:?}", paths.keys());
    for (path, item) in paths.iter().filter(|(path, _)| path.matches('/').count() == 4) {
        let post = &item["post"];
        assert!(post["requestBody"]["content"]["application/json"]["schema"].is_object(), "{path}");
        for status in ["200", "400", "401", "403", "500"] {
            let schema = &post["responses"][status]["content"]["application/json"]["schema"];
            assert!(schema.is_object(), "{path} {status}: {post}");
        }
    }
    let add = &document["components"]["schemas"]["AddUser"];
    assert!(add.to_string().contains("测试用户"), "{add}");
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
    let references = answer.text.matches("\"$ref\":\"#/components/schemas/");
    assert!(references.count() > 20);
    for name in answer.text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = name.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is not defined");
    }
    let health = api.send(TestRequest::get().uri("/api/actions/health")).await;
    assert_eq!(health.body["status"], "ok");
    for (path, status) in [("health", 200), ("openapi.json", 200), ("users/getUsers", 401)] {
        let request =
            TestRequest::default().method(actix_web::http::Method::HEAD).uri(&format!("/api/actions/{path}"));
        assert_eq!(api.send(request).await.status, status, "HEAD {path}");
    }
    let tags: Vec<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let seed = [
        "users",
        "keys",
        "providers",
        "model-prices",
        "statistics",
        "usage-logs",
        "overview",
        "sensitive-words",
        "active-sessions",
        "notifications",
    ];
    assert_eq!(tags[..10], seed, "in the order of the documentation");
}

#[actix_web::test]
async fn case_5_both_pages_are_open_and_self_contained() {
    let api = Api::new().await.anonymous();
    for (page, files) in [
        ("docs", ["swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"].as_slice()),
        ("scalar", &["scalar.js", "start.js"]),
    ] {
        let (status, headers, bytes) = api.fetch(&format!("/api/actions/{page}")).await;
        let html = String::from_utf8(bytes).unwrap();
        assert_eq!(
            (status, headers.get("content-type").unwrap().to_str().unwrap()),
            (200, "text/html; charset=utf-8")
        );
        assert!(
            headers.get("content-security-policy").unwrap().to_str().unwrap().contains("connect-src 'self'")
        );
        assert!(!html.contains("//"), "no other host: {html}");
        for file in files {
            assert!(html.contains(file), "{file}");
            let (status, headers, bytes) = api.fetch(&format!("/api/actions/{page}/{file}")).await;
            assert!(status == 200 && bytes.len() > 100, "{file}: {status}, {} bytes", bytes.len());
            assert!(headers.get("cache-control").unwrap().to_str().unwrap().starts_with("public"));
        }
        let (status, _, _) = api.fetch(&format!("/api/actions/{page}/index.html")).await;
        assert_eq!(status, 404);
    }
}

#[actix_web::test]
async fn a_new_admin_token_ends_the_logins_of_the_old_one_and_no_others() {
    let api = Api::new().await;
    let user = api.data("users/addUser", r#"{"name":"Alice"}"#).await;
    let key = user["defaultKey"]["key"].as_str().unwrap();
    let mut sessions = Vec::new();
    for token in [TOKEN, key] {
        let answer = api.anonymous().send(login(&json!({"token": token}).to_string())).await;
        let session = cookies(&answer)[0].split(';').next().unwrap().replace("session=", "");
        assert_eq!(api.by(&session).act("model-prices/hasPriceTable", "").await.status, 200);
        sessions.push(session);
    }
    let api = api.restarted(|settings| settings.admin_token = Secret::new("another-admin-token"));
    let (admin, alice) = (api.by(&sessions[0]), api.by(&sessions[1]));
    assert_eq!(admin.refused("model-prices/hasPriceTable", "").await, code(401, "TOKEN_INVALID"));
    assert_eq!(alice.act("model-prices/hasPriceTable", "").await.status, 200);
}

#[actix_web::test]
async fn the_end_of_a_key_or_user_ends_its_logins() {
    let api = Api::new().await;
    let user = api.data("users/addUser", r#"{"name":"Alice"}"#).await;
    let (id, key) = (user["id"].as_i64().unwrap(), user["defaultKey"]["key"].as_str().unwrap());
    let answer = api.anonymous().send(login(&json!({"key": key}).to_string())).await;
    assert_eq!(answer.body["loginType"], "dashboard_user");
    let session = cookies(&answer)[0].split(';').next().unwrap().replace("session=", "");
    let alice = api.by(&session);
    assert_eq!(alice.act("model-prices/hasPriceTable", "").await.body["data"], true);
    assert_eq!(api.by(key).refused("users/getUsers", "").await, code(403, "PERMISSION_DENIED"));
    for action in
        ["users/addUser", "users/getUsers", "providers/getProviders", "model-prices/uploadPriceTable"]
    {
        assert_eq!(
            alice.refused(action, r#"{"name":"x"}"#).await,
            code(403, "PERMISSION_DENIED"),
            "{action}"
        );
    }
    let fleet = alice.send(TestRequest::get().uri("/api/fleet")).await;
    assert_eq!(fleet.status, 403);
    api.data("users/editUser", &json!({"userId": id, "isEnabled": false}).to_string()).await;
    assert_eq!(alice.refused("model-prices/hasPriceTable", "").await, code(401, "TOKEN_INVALID"));
    api.data("users/editUser", &json!({"userId": id, "isEnabled": true}).to_string()).await;
    assert_eq!(alice.act("model-prices/hasPriceTable", "").await.status, 200);
    assert_eq!(api.act("users/removeUser", &json!({"userId": id}).to_string()).await.status, 200);
    assert_eq!(alice.refused("model-prices/hasPriceTable", "").await, code(401, "TOKEN_INVALID"));
    assert_eq!(api.by(key).refused("model-prices/hasPriceTable", "").await, code(401, "TOKEN_INVALID"));
}

#[actix_web::test]
async fn postgres_away_is_503_and_never_401() {
    let api = Api::new().await;
    api.state.pool.close();
    assert_eq!(api.refused("users/getUsers", "").await, code(503, "SERVICE_UNAVAILABLE"));
    assert_eq!(api.by("sk-x").refused("users/getUsers", "").await, code(503, "SERVICE_UNAVAILABLE"));
    let answer = api.anonymous().send(login(r#"{"key":"x"}"#)).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    let answer = api.act("users/getUsers", "").await;
    assert_eq!(answer.header("retry-after"), "1", "refused by the middleware, and still the whole answer");
}

#[actix_web::test]
async fn the_fleet() {
    let api = Api::new().await;
    let written = api.act("users/addUser", r#"{"name":"x"}"#).await;
    let generation = written.body["generation"].as_i64().unwrap();
    assert_eq!(written.header("x-switchyard-generation"), generation.to_string());
    let answer = api.send(TestRequest::get().uri("/api/fleet")).await;
    assert_eq!(answer.body["data"]["generation"], generation, "{}", answer.text);
    assert_eq!(answer.body["data"]["summary"], format!("0 of 0 at {generation}"));
}

#[actix_web::test]
async fn a_crowd_waits_for_its_turn_and_then_is_told_so() {
    let api = Api::made(|settings| settings.queue = Duration::from_millis(20)).await;
    let held = api.state.turns.acquire_many(3).await.unwrap();
    let answer = api.act("users/getUsers", "").await;
    assert_eq!((answer.status.as_u16(), &answer.body["errorCode"]), (429, &json!("RATE_LIMITED")));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(api.anonymous().fetch("/api/actions/docs").await.0, 200, "what is open waits for nobody");
    drop(held);
    assert_eq!(api.act("users/getUsers", "").await.status, 200);
}
