//! Who calls: the credential of a request, the caller behind it, and what it may do.
//!
//! Deny by default: the middleware stands around all of `/api` and lets nobody pass without a caller but on
//! the few open paths; the permission of each action is an extractor in its signature.

mod cookies;
mod guard;
mod identity;
pub mod login;
mod site;

pub use guard::Guard;

use super::State;
use super::answer::GENERATION;
use super::error::Failure;
use crate::rules::{Code, Refusal, key};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, web};
use contract::ids::Generation;
use identity::{Found, Identity};
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

/// Where the actions are.
pub const ACTIONS: &str = "/api/actions/";

/// The paths that need no caller.
const OPEN: [&str; 6] = [
    "/api/auth/login",
    "/api/auth/logout",
    "/api/actions/openapi.json",
    "/api/actions/docs",
    "/api/actions/scalar",
    "/api/actions/health",
];

/// Whether a path needs no caller: those of [`OPEN`], and the files that the two pages load.
pub(super) fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || super::docs::FILES.iter().any(|folder| path.starts_with(folder))
}

/// What a key that may not use the web may still do: read its own usage.
const READ_ONLY: [&str; 6] = [
    "users/getUsers",
    "users/getUserLimitUsage",
    "statistics/getUserStatistics",
    "usage-logs/getUsageLogs",
    "overview/getOverviewData",
    "active-sessions/getActiveSessions",
];

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The account.
    pub id: i64,
    /// Whose rows it sees.
    pub owner: i64,
    /// Whether it may do everything in its owner's tree.
    pub is_admin: bool,
    /// For people.
    pub name: String,
    /// The action, as `users/addUser`.
    pub action: String,
    /// Where the call comes from.
    pub client_ip: Option<String>,
}

impl Caller {
    /// Refuses what concerns another account, unless the caller is an admin.
    pub fn may_touch(&self, user: i64) -> Result<(), Failure> {
        match self.is_admin || self.id == user {
            true => Ok(()),
            false => Err(Code::PermissionDenied.into()),
        }
    }
}

/// Any caller.
#[derive(Clone, Debug)]
pub struct LoggedIn(pub Arc<Caller>);

/// A caller that is an admin.
#[derive(Clone, Debug)]
pub struct Admin(pub Arc<Caller>);

impl FromRequest for LoggedIn {
    type Error = Failure;
    type Future = Ready<Result<Self, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        ready(caller.map(Self).ok_or_else(|| Code::Unauthorized.into()))
    }
}

impl FromRequest for Admin {
    type Error = Failure;
    type Future = Ready<Result<Self, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        ready(match caller {
            None => Err(Code::Unauthorized.into()),
            Some(caller) if caller.is_admin => Ok(Self(caller)),
            Some(_) => Err(Code::PermissionDenied.into()),
        })
    }
}

/// A credential as it came.
struct Presented {
    values: Vec<String>,
    /// Browsers send cookies by themselves, so another site could make them act.
    is_cookie: bool,
}

/// Bearer before `X-Api-Key` before cookies.
fn presented(request: &HttpRequest) -> Option<Presented> {
    let header = |name: &str| request.headers().get(name)?.to_str().ok().map(str::trim);
    let bearer = header("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let explicit = bearer.or_else(|| header("x-api-key")).filter(|token| !token.is_empty());
    if let Some(token) = explicit {
        return Some(Presented { values: vec![token.to_owned()], is_cookie: false });
    }
    let values = cookies::values(request);
    (!values.is_empty()).then_some(Presented { values, is_cookie: true })
}

/// Finds the caller of every request, and stops those that have none.
pub async fn required(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let state = request.app_data::<web::Data<State>>().cloned();
    let is_open = is_open(request.path());
    // Held until the answer is made. What is open waits for nobody, and holds up nobody with a slow body.
    let turn = match (&state, is_open) {
        (Some(state), false) => turn(state).await.map(Some),
        _ => Ok(None),
    };
    let checked = match (&turn, is_open) {
        (Err(code), _) => Err(Failure::from(*code).retry_after(1)),
        (Ok(_), true) => open(request.request()),
        (Ok(_), false) => authenticate(&request).await.map(Some),
    };
    match checked {
        Err(failure) => {
            // Not by `into_response`: that forgets the failure, which the envelope is yet to render.
            let (request, _) = request.into_parts();
            Ok(ServiceResponse::new(request, HttpResponse::from_error(failure)))
        }
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(Arc::new(caller));
            }
            let answer = next.call(request).await?.map_into_boxed_body();
            drop(turn);
            if let Some(state) = &state {
                applied(state, &answer).await;
            }
            Ok(answer)
        }
    }
}

/// A change is answered when the proxies that this replica serves act on it, or when the time for that is up: what a
/// caller sends next finds it in force.
async fn applied(state: &State, answer: &ServiceResponse<BoxBody>) {
    let generation = answer.headers().get(GENERATION).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(generation) = generation {
        state.fleet.wait_for(Generation(generation), state.settings.apply_wait).await;
    }
}

/// A request's turn. Queueing here keeps a crowd from waiting for Postgres' connections, where the wait means
/// that Postgres is in trouble.
async fn turn(state: &State) -> Result<SemaphorePermit<'_>, Code> {
    let turn = timeout(state.settings.queue, state.turns.acquire()).await;
    turn.ok().and_then(Result::ok).ok_or(Code::TooMany)
}

/// Logging somebody in from another site is an attack as well.
fn open(request: &HttpRequest) -> Result<Option<Caller>, Failure> {
    match is_write(request) && site::is_foreign(request) {
        true => Err(Code::CsrfRejected.into()),
        false => Ok(None),
    }
}

fn is_write(request: &HttpRequest) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
}

async fn authenticate(request: &ServiceRequest) -> Result<Caller, Failure> {
    let state = request.app_data::<web::Data<State>>().ok_or_else(|| Failure::internal("no state"))?.clone();
    let request = request.request();
    let Some(presented) = presented(request) else { return Err(Code::Unauthorized.into()) };
    if presented.is_cookie && is_write(request) && site::is_foreign(request) {
        return Err(Code::CsrfRejected.into());
    }
    let identity = identify(&state, request, &presented.values).await?;
    let path = request.path();
    // No path of ours needs an escape; one spelled with them would pass by the lists here and in the audit log.
    if path.contains('%') {
        let shown: String = path.chars().take(200).collect();
        return Err(Refusal::new(Code::UnknownPath).with("path", shown).into());
    }
    let action = path.strip_prefix(ACTIONS).unwrap_or(path);
    if identity.is_read_only() && !READ_ONLY.contains(&action) {
        return Err(Code::ReadOnly.into());
    }
    Ok(caller(identity, action, site::client_ip(request, &state.settings)))
}

/// The first account that one of the credentials leads to. A login's token is too long to be guessed, and so is a right
/// ADMIN_TOKEN of some length; anything else might be, so an address with many that nobody has is locked out as from
/// logging in.
///
/// The cookie `session` may be that of another program on this host: logins are looked at first, and what came beside
/// one that holds is no guess.
async fn identify(state: &State, request: &HttpRequest, values: &[String]) -> Result<Identity, Failure> {
    let (logins, others): (Vec<&String>, Vec<&String>) =
        values.iter().partition(|value| key::is_login(value));
    for value in logins {
        if let Found::Active(identity) = identity::find(state, value).await? {
            return Ok(identity);
        }
    }
    let (address, now) = (site::client_ip(request, &state.settings).unwrap_or_default(), Instant::now());
    for value in others {
        // Too long to be guessed, it is not locked out by what others behind this address try.
        if !identity::is_long_admin_token(state, value) {
            login::unlocked(&state.guard, &address, now)?;
        }
        match identity::find(state, value).await? {
            Found::Active(identity) => return Ok(identity),
            // At once: a key of his own beside it would make a guess free.
            Found::Unknown => state.guard.guessed(&address, value, now),
            Found::Inactive => {}
        }
    }
    Err(Code::InvalidCredential.into())
}

fn caller(identity: Identity, action: &str, client_ip: Option<String>) -> Caller {
    Caller {
        id: identity.account.id,
        owner: identity.account.owner_id,
        is_admin: identity.is_admin(),
        name: identity.account.name,
        action: action.chars().take(128).collect(),
        client_ip,
    }
}
