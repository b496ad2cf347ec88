//! The two pages that show the document: Swagger UI and Scalar. Both come inside crates and are served from here; a
//! policy on the pages keeps the browser from asking any other host, whatever their scripts try.

use super::Failure;
use crate::rules::{Code, Refusal};
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS,
};
use actix_web::web::{Bytes, Path};
use actix_web::{HttpResponse, get};
use std::borrow::Cow;
use std::sync::LazyLock;

/// The scripts come from here and call here. Both style their elements by hand, and draw icons from data.
const POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// Scripts change with the program only, and the pages name them without a version.
const KEPT: &str = "public, max-age=3600";
/// The files of Swagger UI that its page uses.
const SWAGGER: [&str; 3] = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"];
/// Where the files of both pages are: open without a login, like the pages.
pub(super) const FILES: [&str; 2] = ["/api/actions/docs/", "/api/actions/scalar/"];

/// Almost five megabytes; shared by all answers.
static SCALAR: LazyLock<Bytes> =
    LazyLock::new(|| scalar_api_reference::get_asset("scalar.js").unwrap_or_default().into());

/// The document in Swagger UI
#[utoipa::path(tag = "system", operation_id = "docs", security(()), responses(
    (status = 200, description = "A page", body = String, content_type = "text/html")))]
#[get("/actions/docs")]
pub async fn docs() -> HttpResponse {
    page(include_str!("docs/swagger.html"))
}

/// The document in Scalar
#[utoipa::path(tag = "system", operation_id = "scalar", security(()), responses(
    (status = 200, description = "A page", body = String, content_type = "text/html")))]
#[get("/actions/scalar")]
pub async fn scalar() -> HttpResponse {
    page(include_str!("docs/scalar.html"))
}

/// What the page of Swagger UI loads.
#[get("/actions/docs/{file}")]
pub async fn docs_file(file: Path<String>) -> Result<HttpResponse, Failure> {
    if file.as_str() == "start.js" {
        return Ok(kept("text/javascript", include_str!("docs/swagger.js").into()));
    }
    let name = SWAGGER.into_iter().find(|name| *name == file.as_str());
    let name = name.ok_or_else(|| unknown("docs", &file))?;
    let found = utoipa_swagger_ui::serve(name, Default::default());
    let found = found.map_err(|error| Failure::internal(error.to_string()))?;
    let found = found.ok_or_else(|| unknown("docs", &file))?;
    let body = match found.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    Ok(kept(&found.content_type, body))
}

/// What the page of Scalar loads.
#[get("/actions/scalar/{file}")]
pub async fn scalar_file(file: Path<String>) -> Result<HttpResponse, Failure> {
    match file.as_str() {
        "start.js" => Ok(kept("text/javascript", include_str!("docs/scalar.js").into())),
        "scalar.js" => Ok(kept("text/javascript", SCALAR.clone())),
        _ => Err(unknown("scalar", &file).into()),
    }
}

fn page(html: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .body(html)
}

fn kept(kind: &str, body: Bytes) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, kind)).insert_header((CACHE_CONTROL, KEPT)).body(body)
}

fn unknown(page: &str, file: &str) -> Refusal {
    let file: String = file.chars().take(100).collect();
    Refusal::new(Code::UnknownPath).with("path", format!("/api/actions/{page}/{file}"))
}
