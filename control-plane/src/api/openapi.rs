//! The OpenAPI document: made from the handlers, with what holds for all of them.

mod tidy;

use super::routes::{BASE, Handlers};
use actix_web::{HttpResponse, get};
use std::sync::LazyLock;
use tidy::tidy;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{InfoBuilder, OpenApi, Paths, Server};

/// In the order in which the documentation lists them.
const TAGS: &[(&str, &str)] = &[
    ("users", "People and their limits"),
    ("keys", "Client keys"),
    ("providers", "Upstream credentials, their health and their limits"),
    ("model-prices", "Price tables"),
    ("statistics", "Usage over time"),
    ("usage-logs", "Requests and what they cost"),
    ("overview", "The first page of a dashboard"),
    ("sensitive-words", "Words that a request must not hold"),
    ("active-sessions", "Conversations that go on"),
    ("notifications", "What is told, and where"),
    ("auth", "Login and logout"),
    ("system", "The gateway itself"),
];

/// The ways to present a credential.
const SCHEMES: [&str; 4] = ["session", "authToken", "bearer", "apiKey"];

/// The document, made once.
static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(document);
static TEXT: LazyLock<Result<String, String>> = LazyLock::new(|| {
    let document = serde_json::to_value(&*DOCUMENT).map_err(|error| error.to_string())?;
    Ok(tidy(document).to_string())
});

fn document() -> OpenApi {
    let mut document = Handlers::openapi();
    document.info = InfoBuilder::new()
        .title("Switchyard")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Every action is a POST with a JSON object (an empty body is `{}`) and answers \
             `{ok: true, data}` or `{ok: false, error, errorCode?, errorParams?}`. A change also answers its \
             `generation`; `GET /api/fleet` shows which proxies act on it.",
        ))
        .build();
    document.servers = Some(vec![Server::new("/")]);
    document.tags = Some(
        TAGS.iter()
            .map(|(name, text)| TagBuilder::new().name(*name).description(Some(*text)).build())
            .collect(),
    );
    let mut paths = Paths::new();
    for (path, item) in std::mem::take(&mut document.paths.paths) {
        paths.paths.insert(format!("{BASE}{path}"), item);
    }
    document.paths = paths;
    secure(&mut document);
    document
}

fn secure(document: &mut OpenApi) {
    let cookie = |name| SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(name)));
    let schemes = [
        cookie("session"),
        cookie("auth-token"),
        SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Api-Key"))),
    ];
    let components = document.components.get_or_insert_default();
    for (name, scheme) in SCHEMES.into_iter().zip(schemes) {
        components.add_security_scheme(name, scheme);
    }
    let any = SCHEMES.map(|name| SecurityRequirement::new::<&str, [&str; 0], &str>(name, []));
    document.security = Some(any.to_vec());
}

/// The method that a path takes, if it exists.
pub(super) fn method_of(path: &str) -> Option<&'static str> {
    let item = DOCUMENT.paths.paths.get(path)?;
    match (&item.post, &item.get) {
        (Some(_), _) => Some("POST"),
        (_, Some(_)) => Some("GET"),
        _ => None,
    }
}

/// The operation of a path.
#[cfg(test)]
pub(super) fn operation_of(path: &str) -> String {
    let item = &DOCUMENT.paths.paths[path];
    let operation = item.post.as_ref().or(item.get.as_ref());
    operation.and_then(|operation| operation.operation_id.clone()).expect("an operation with a name")
}

/// Every documented path.
#[cfg(test)]
pub(super) fn paths() -> Vec<String> {
    DOCUMENT.paths.paths.keys().cloned().collect()
}

/// This document
#[utoipa::path(tag = "system", operation_id = "openapi", security(()), responses(
    (status = 200, description = "OpenAPI 3.1.0", content_type = "application/json")))]
#[get("/actions/openapi.json")]
pub async fn openapi() -> Result<HttpResponse, super::Failure> {
    match &*TEXT {
        Ok(text) => Ok(HttpResponse::Ok().content_type("application/json").body(text.as_str())),
        Err(error) => Err(super::Failure::internal(error.clone())),
    }
}
