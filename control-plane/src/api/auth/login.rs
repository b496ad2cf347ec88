//! Login and logout. A login is an opaque token; Postgres keeps its hash.

use super::identity::{Found, Identity, find, is_admin_token, login_hash};
use super::{Guard, cookies, presented, site};
use crate::api::answer::Failures;
use crate::api::{Ask, Failure, State};
use crate::db::{audit, logins};
use crate::rules::form::form;
use crate::rules::{Code, Refusal, key};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, post};
use chrono::Utc;
use diesel_async::AsyncConnection;
use serde::Serialize;
use serde_json::json;
use std::time::Instant;

/// Longest part of a User-Agent that is kept.
const AGENT_MAX: usize = 256;

form! {
    /// One of the names is enough.
    #[schema(example = json!({"token": "admin-token"}))]
    pub struct Login {
        /// ADMIN_TOKEN or a client key. Also accepted as `key` and `password`.
        token: String = ["token", "key", "password"],
    }
}

/// The body of a login that worked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoggedInAs {
    /// Always true.
    ok: bool,
    /// Who logged in.
    user: Me,
    /// The page to go to.
    redirect_to: &'static str,
    /// `admin`, `dashboard_user` or `readonly_user`.
    login_type: &'static str,
    /// The same once more, where every other answer has it.
    data: Welcome,
}

/// Who logged in.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Me {
    id: i64,
    name: String,
    description: String,
    role: &'static str,
}

/// `data` of a login that worked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    user: Me,
    redirect_to: &'static str,
    login_type: &'static str,
}

/// Log in
///
/// Sets the cookies `session` and `auth-token`, both to the same opaque value.
#[utoipa::path(tag = "auth", operation_id = "login", request_body = Login, security(()), responses(
    (status = 200, description = "Logged in", body = LoggedInAs),
    (status = 429, description = "Too many failed logins", body = crate::api::error::Problem),
    Failures))]
#[post("/auth/login")]
pub async fn login(
    state: Data<State>,
    request: HttpRequest,
    ask: Ask<Login>,
) -> Result<HttpResponse, Failure> {
    let address = site::client_ip(&request, &state.settings).unwrap_or_default();
    let now = Instant::now();
    unlocked(&state.guard, &address, now)?;
    let token = match ask.form.token.text(usize::MAX)?.flatten() {
        Some(token) if !token.is_empty() => token,
        _ => return Err(Code::KeyRequired.into()),
    };
    let is_known_form = is_admin_token(&state, &token) || !token.starts_with(key::SESSION_PREFIX);
    let found = match is_known_form {
        true => find(&state, &token).await?,
        false => Found::Unknown,
    };
    match found {
        Found::Active(identity) => {
            // Who holds a client key could otherwise guess ADMIN_TOKEN for ever, a few times between two logins.
            if identity.is_admin() {
                state.guard.succeeded(&address);
            }
            let value = remember(&state, &request, &identity, &address).await?;
            Ok(welcome(&state, &request, identity, &value))
        }
        Found::Inactive => Err(Code::KeyInvalid.into()),
        Found::Unknown => {
            state.guard.failed(&address, now);
            Err(Code::KeyInvalid.into())
        }
    }
}

pub(super) fn unlocked(guard: &Guard, address: &str, now: Instant) -> Result<(), Failure> {
    let Some(left) = guard.locked(address, now) else { return Ok(()) };
    let seconds = left.as_secs().max(1);
    Err(Failure::from(Refusal::new(Code::LoginLocked).with("seconds", seconds)).retry_after(seconds))
}

/// Stores the login and answers its token.
async fn remember(
    state: &State,
    request: &HttpRequest,
    identity: &Identity,
    address: &str,
) -> Result<String, Failure> {
    let value = key::mint_session();
    let hash = login_hash(state, &value, identity.key.is_none());
    let agent = request.headers().get("user-agent").and_then(|agent| agent.to_str().ok());
    let agent: Option<String> = agent.map(|agent| agent.chars().take(AGENT_MAX).collect());
    let account = &identity.account;
    let new = logins::New {
        token_hash: &hash,
        owner_id: account.owner_id,
        user_id: account.id,
        key_id: identity.key.as_ref().map(|key| key.id),
        expires_at: Utc::now() + state.settings.session_ttl,
        client_ip: Some(address),
        user_agent: agent.as_deref(),
    };
    let entry = audit::New {
        owner_id: account.owner_id,
        operator_id: Some(account.id),
        action: "auth/login",
        target_kind: "user",
        target_id: Some(account.id),
        details: json!({"keyId": new.key_id}),
        client_ip: Some(address),
        generation: None,
    };
    let mut conn = state.pool.write().await?;
    conn.transaction::<_, Failure, _>(async |conn| {
        logins::insert_in_tx(conn, new).await?;
        Ok(audit::insert_in_tx(conn, entry).await?)
    })
    .await?;
    Ok(value)
}

fn welcome(state: &State, request: &HttpRequest, identity: Identity, value: &str) -> HttpResponse {
    let (role, login_type, redirect_to) = match (identity.is_admin(), identity.is_read_only()) {
        (true, _) => ("admin", "admin", "/dashboard"),
        (_, true) => ("user", "readonly_user", "/my-usage"),
        _ => ("user", "dashboard_user", "/dashboard"),
    };
    let account = identity.account;
    let user = Me { id: account.id, name: account.name, description: account.note, role };
    let data = Welcome { user: user.clone(), redirect_to, login_type };
    let mut response = HttpResponse::Ok();
    for cookie in cookies::set(value, state.settings.session_ttl, site::is_https(request)) {
        response.cookie(cookie);
    }
    response.json(LoggedInAs { ok: true, user, redirect_to, login_type, data })
}

/// Log out
///
/// Ends the login and clears the cookies; does nothing where there is none.
#[utoipa::path(tag = "auth", operation_id = "logout", security(()), responses(
    (status = 200, description = "Logged out", body = crate::api::answer::Bare), Failures))]
#[post("/auth/logout")]
pub async fn logout(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    // Whatever else is presented, the cookies are what the browser holds.
    let mut values = cookies::values(&request);
    values.extend(presented(&request).map(|presented| presented.values).unwrap_or_default());
    values.retain(|value| value.starts_with(key::SESSION_PREFIX));
    if !values.is_empty() {
        let mut conn = state.pool.write().await?;
        for value in values {
            for by_admin_token in [false, true] {
                logins::revoke(&mut conn, &login_hash(&state, &value, by_admin_token)).await?;
            }
        }
    }
    let mut response = HttpResponse::Ok();
    for cookie in cookies::clear(site::is_https(&request)) {
        response.cookie(cookie);
    }
    Ok(response.json(json!({"ok": true})))
}
