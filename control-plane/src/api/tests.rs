//! The handlers against a real Postgres, by the numbered cases of the actions API's reference.

mod access;
mod charts;
mod conversations;
mod logs;
mod matrix;
mod notifications;
mod numbers;
mod people;
mod prices;
mod settings;
mod upstreams;
mod words;

use super::{Settings, State, configure};
use crate::config::{KeyReveal, Secret};
use crate::db::{first_start, rollup, testing};
use crate::outbound::testing::outbound;
use crate::publish;
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::test::{self, TestRequest};
use actix_web::web::Data;
use actix_web::{App, test::call_service};
use contract::seal::Sealer;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::watch;

const TOKEN: &str = "an-admin-token";

/// An API on an empty database.
struct Api {
    state: Data<State>,
    /// Sent with every call.
    bearer: Option<String>,
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
    text: String,
}

impl Answered {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Api {
    async fn new() -> Self {
        Self::with(KeyReveal::Never).await
    }

    async fn with(key_reveal: KeyReveal) -> Self {
        Self::made(|settings| settings.key_reveal = key_reveal).await
    }

    async fn in_zone(time_zone: chrono_tz::Tz) -> Self {
        Self::made(|settings| settings.time_zone = time_zone).await
    }

    async fn made(change: impl FnOnce(&mut Settings)) -> Self {
        let pool = testing::database().await;
        let prices = r#"{"bundled-model":{"mode":"chat","input_cost_per_token":"0.000001"}}"#;
        first_start::prepare(&mut pool.write().await.unwrap(), prices).await.unwrap();
        let mut settings = Settings {
            admin_token: Secret::new(TOKEN),
            sealer: Sealer::from_hex(&"0f".repeat(32)).unwrap(),
            key_reveal: KeyReveal::Never,
            session_ttl: Duration::from_secs(3600),
            time_zone: chrono_tz::Asia::Shanghai,
            max_body: 100_000,
            body_timeout: Duration::from_secs(10),
            forwarded_hops: 0,
            forget: Duration::from_secs(60),
            messages_ttl: None,
            conversation_ttl: Duration::from_secs(300),
            ranking_ttl: Duration::ZERO,
            parallel: 3,
            queue: Duration::from_secs(10),
            apply_wait: Duration::from_millis(1),
            refresh_wait: Duration::from_secs(5),
            outbound: outbound("http://127.0.0.1:1/"),
            health_wait: Duration::from_secs(1),
            unpriced: contract::table::Unpriced::Ceiling,
            retention_days: 0,
        };
        change(&mut settings);
        rollup::follow_zone(&mut pool.write().await.unwrap(), settings.time_zone).await.unwrap();
        let newest = watch::channel(None).1;
        let state = State::new(pool, settings, publish::Wake::default(), publish::Fleet::default(), newest);
        Self { state: Data::new(state), bearer: Some(TOKEN.to_owned()) }
    }

    /// The same database under other settings.
    fn restarted(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.state.settings.clone();
        change(&mut settings);
        let (pool, newest) = (self.state.pool.clone(), watch::channel(None).1);
        let state = State::new(pool, settings, publish::Wake::default(), publish::Fleet::default(), newest);
        Self { state: Data::new(state), bearer: self.bearer.clone() }
    }

    /// The same, called with another credential.
    fn by(&self, bearer: &str) -> Self {
        Self { state: self.state.clone(), bearer: Some(bearer.to_owned()) }
    }

    fn anonymous(&self) -> Self {
        Self { state: self.state.clone(), bearer: None }
    }

    async fn send(&self, request: TestRequest) -> Answered {
        let app = test::init_service(App::new().app_data(self.state.clone()).configure(configure)).await;
        let request = match &self.bearer {
            Some(bearer) => request.insert_header(("authorization", format!("Bearer {bearer}"))),
            None => request,
        };
        let response = call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
        Answered { status, headers, body, text }
    }

    /// Anything, as its bytes.
    async fn fetch(&self, path: &str) -> (u16, HeaderMap, Vec<u8>) {
        let app = test::init_service(App::new().app_data(self.state.clone()).configure(configure)).await;
        let response = call_service(&app, TestRequest::get().uri(path).to_request()).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, test::read_body(response).await.to_vec())
    }

    /// An action with a body as text.
    async fn act(&self, action: &str, body: &str) -> Answered {
        let request = TestRequest::post().uri(&format!("/api/actions/{action}"));
        self.send(request.set_payload(body.to_owned())).await
    }

    /// An action that must work: its data.
    async fn data(&self, action: &str, body: &str) -> Value {
        let answer = self.act(action, body).await;
        assert_eq!(answer.status, 200, "{action} {body}: {}", answer.text);
        assert_eq!(answer.body["ok"], true);
        answer.body["data"].clone()
    }

    /// An action that must be refused: status and code.
    async fn refused(&self, action: &str, body: &str) -> (u16, String) {
        let answer = self.act(action, body).await;
        assert_eq!(answer.body["ok"], false, "{action} {body}: {}", answer.text);
        assert!(answer.body["error"].as_str().is_some_and(|text| !text.is_empty() && !text.contains('{')));
        (answer.status.as_u16(), answer.body["errorCode"].as_str().unwrap_or_default().to_owned())
    }
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
