//! Who may call what: every operation of the document against everybody. An operation without an entry fails.

use super::super::openapi;
use super::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Who may call an operation.
#[derive(Clone, Copy)]
enum May {
    /// Nobody need be logged in.
    Open,
    /// Every caller; what is shown is their own.
    Anyone,
    /// Admins.
    Admin,
    /// Whoever owns what the body names. `$user`, `$key`, `$spare` (a key that may go) and
    /// `$session` stand for ids.
    Owner,
}
use May::{Admin, Anyone, Open, Owner};

/// One line per operation, with a body that names what an admin may touch.
const MATRIX: &[(&str, May, &str)] = &[
    ("login", Open, r#"{"token":"x"}"#),
    ("logout", Open, "{}"),
    ("openapi", Open, ""),
    ("docs", Open, ""),
    ("scalar", Open, ""),
    ("health", Open, ""),
    ("fleet", Admin, ""),
    ("getUsers", Admin, "{}"),
    ("addUser", Admin, r#"{"name":"New"}"#),
    ("editUser", Admin, r#"{"userId":$user,"rpm":5}"#),
    ("removeUser", Admin, r#"{"userId":$user}"#),
    ("getUserLimitUsage", Owner, r#"{"userId":$user}"#),
    ("getKeys", Owner, r#"{"userId":$user}"#),
    ("addKey", Owner, r#"{"userId":$user,"name":"second"}"#),
    ("editKey", Owner, r#"{"keyId":$key,"name":"renamed"}"#),
    ("getKeyLimitUsage", Owner, r#"{"keyId":$key}"#),
    ("removeKey", Owner, r#"{"keyId":$spare}"#),
    ("getProviders", Admin, "{}"),
    ("addProvider", Admin, r#"{"name":"p","url":"https://h","key":"k"}"#),
    ("editProvider", Admin, r#"{"providerId":1,"weight":2}"#),
    ("removeProvider", Admin, r#"{"providerId":1}"#),
    ("getProvidersHealthStatus", Anyone, "{}"),
    ("resetProviderCircuit", Admin, r#"{"providerId":1}"#),
    ("getProviderLimitUsage", Anyone, r#"{"providerId":1}"#),
    ("getModelPrices", Anyone, "{}"),
    ("getModelPricesPaginated", Anyone, r#"{"page":1}"#),
    ("uploadPriceTable", Admin, r#"{"jsonContent":"{}"}"#),
    ("syncLiteLLMPrices", Admin, "{}"),
    ("getAvailableModelsByProviderType", Anyone, "{}"),
    ("hasPriceTable", Anyone, "{}"),
    ("getUserStatistics", Anyone, r#"{"timeRange":"today"}"#),
    ("getUsageLogs", Anyone, "{}"),
    ("getModelList", Anyone, "{}"),
    ("getStatusCodeList", Anyone, "{}"),
    ("getOverviewData", Anyone, "{}"),
    ("listSensitiveWords", Admin, "{}"),
    ("createSensitiveWordAction", Admin, r#"{"word":"w","matchType":"contains"}"#),
    ("updateSensitiveWordAction", Admin, r#"{"id":1,"isEnabled":false}"#),
    ("deleteSensitiveWordAction", Admin, r#"{"id":1}"#),
    ("refreshCacheAction", Admin, "{}"),
    ("getCacheStats", Anyone, "{}"),
    ("getActiveSessions", Anyone, "{}"),
    ("getSessionDetails", Owner, r#"{"sessionId":"$session"}"#),
    ("getSessionMessages", Owner, r#"{"sessionId":"$session"}"#),
    ("getNotificationSettingsAction", Admin, "{}"),
    ("updateNotificationSettingsAction", Admin, r#"{"enabled":false}"#),
    ("getSettings", Admin, "{}"),
    ("updateSettings", Admin, r#"{"unpriced":"refuse"}"#),
    ("testWebhookAction", Admin, r#"{"webhookUrl":"http://127.0.0.1:1/"}"#),
];

/// A user with a login.
struct Person {
    api: Api,
    user: i64,
    key: i64,
    spare: i64,
    session: String,
}

impl Person {
    async fn new(admin: &Api, name: &str) -> Self {
        let user = admin.data("users/addUser", &json!({"name": name}).to_string()).await;
        let clear = user["defaultKey"]["key"].as_str().unwrap().to_owned();
        let (id, key) = (user["id"].as_i64().unwrap(), user["defaultKey"]["id"].as_i64().unwrap());
        let spare = json!({"userId": id, "name": "spare"}).to_string();
        let spare = admin.data("keys/addKey", &spare).await["id"].as_i64().unwrap();
        let session = format!("of-{name}");
        let mut conn = admin.state.pool.write().await.unwrap();
        let insert = format!(
            "INSERT INTO sessions VALUES (1, {id}, '{session}', {key}, NULL, 'm', 'anthropic', now(), now(), \
             1, 1, 1, 0, 0, 0, 1, 200)"
        );
        diesel_async::RunQueryDsl::execute(diesel::sql_query(insert), &mut conn).await.unwrap();
        let login = TestRequest::post().uri("/api/auth/login").set_payload(json!({"key": clear}).to_string());
        let cookie = admin.anonymous().send(login).await.header("set-cookie").to_owned();
        let token = cookie.split(';').next().unwrap().trim_start_matches("session=").to_owned();
        Self { api: admin.by(&token), user: id, key, spare, session }
    }

    fn fill(&self, body: &str) -> String {
        let body = body.replace("$user", &self.user.to_string()).replace("$key", &self.key.to_string());
        body.replace("$spare", &self.spare.to_string()).replace("$session", &self.session)
    }
}

/// Path and method by operation.
fn operations() -> BTreeMap<String, (String, &'static str)> {
    let paths = openapi::paths().into_iter();
    paths
        .map(|path| {
            let method = openapi::method_of(&path).unwrap();
            (openapi::operation_of(&path), (path, method))
        })
        .collect()
}

/// Status and code of one call.
async fn call(api: &Api, (path, method): &(String, &'static str), body: &str) -> (u16, String) {
    let request = TestRequest::with_uri(path).method(method.parse().unwrap()).set_payload(body.to_owned());
    let request = match &api.bearer {
        Some(bearer) => request.insert_header(("authorization", format!("Bearer {bearer}"))),
        None => request,
    };
    let app = test::init_service(App::new().app_data(api.state.clone()).configure(configure)).await;
    let response = call_service(&app, request.to_request()).await;
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(&test::read_body(response).await).unwrap_or_default();
    (status, body["errorCode"].as_str().unwrap_or_default().to_owned())
}

#[actix_web::test]
async fn every_operation_has_an_entry() {
    let listed: BTreeSet<&str> = MATRIX.iter().map(|(operation, ..)| *operation).collect();
    assert_eq!(listed.len(), MATRIX.len(), "an operation is listed twice");
    let operations = operations();
    let missing: Vec<_> = operations.keys().filter(|name| !listed.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "say in MATRIX who may call {missing:?}");
}

#[actix_web::test]
async fn who_may_call_what() {
    let admin = Api::new().await;
    let (ann, bob) = (Person::new(&admin, "Ann").await, Person::new(&admin, "Bob").await);
    let gone = Person::new(&admin, "Gone").await;
    let logout = TestRequest::post().uri("/api/auth/logout");
    assert_eq!(gone.api.send(logout).await.status, 200);
    let nobody = admin.anonymous();
    let operations = operations();
    let entries =
        MATRIX.iter().filter_map(|(name, may, body)| Some((*name, *may, *body, operations.get(*name)?)));
    for (name, may, body, at) in entries.clone() {
        for (who, api) in [("nobody", &nobody), ("a login that ended", &gone.api)] {
            let (status, _) = call(api, at, &ann.fill(body)).await;
            assert_eq!(status == 401, !matches!(may, Open) || name == "login", "{name} by {who}: {status}");
        }
        if matches!(may, Open) {
            continue;
        }
        let (status, code) = call(&ann.api, at, &ann.fill(body)).await;
        match may {
            Admin => assert_eq!((status, code.as_str()), (403, "PERMISSION_DENIED"), "{name} by a user"),
            _ => assert!(![401, 403].contains(&status) && status < 500, "{name} by a user: {status} {code}"),
        }
        if matches!(may, Owner) {
            let other = call(&ann.api, at, &bob.fill(body)).await;
            let is_refused = other.0 == 403 || other == (400, "NOT_FOUND".to_owned());
            assert!(is_refused, "{name} of somebody else: {other:?}");
        }
    }
    for (name, _, body, at) in entries.filter(|(_, may, ..)| !matches!(may, Open)) {
        let (status, code) = call(&admin, at, &bob.fill(body)).await;
        assert!(![401, 403].contains(&status) && status < 500, "{name} by an admin: {status} {code}");
    }
}
