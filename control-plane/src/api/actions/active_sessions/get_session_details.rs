//! One session with the decision trail of each of its requests.

use super::view::{SessionView, Sessions};
use super::{live, session_id, whose};
use crate::api::actions::usage_logs::LogView;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::sessions;
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use chrono::Utc;
use serde::Serialize;
use serde_json::Value;

/// Most requests of an answer.
const MOST: i64 = 200;

form! {
    /// A session.
    #[schema(example = json!({"sessionId": "0197f1c2-0000-7000-8000-000000000000"}))]
    pub struct GetSessionDetails {
        /// Which.
        session_id: String = ["sessionId"] {min_length = 1, max_length = 512},
        /// The number of one of its requests, from 1 on; the newest, if nothing is said.
        sequence: Option<i64> = ["requestSequence", "sequence"] {minimum = 1},
    }
}

/// A session. What was said in it is not kept, so all that would hold it is null.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionDetails {
    session_id: String,
    session_stats: SessionView,
    /// The requests that ended, newest first, at most 200; `providerChain` is the decision trail.
    requests: Vec<LogView>,
    /// The number of the request that `requestMeta` speaks of.
    current_sequence: Option<i64>,
    prev_sequence: Option<i64>,
    next_sequence: Option<i64>,
    request_meta: Option<RequestMeta>,
    response_meta: Option<ResponseMeta>,
    #[schema(value_type = Option<Object>)]
    request_body: Option<Value>,
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Value>,
    response: Option<String>,
    #[schema(value_type = Option<Object>)]
    request_headers: Option<Value>,
    #[schema(value_type = Option<Object>)]
    response_headers: Option<Value>,
    #[schema(value_type = Option<Object>)]
    snapshots: Option<Value>,
    #[schema(value_type = Option<Object>)]
    special_settings: Option<Value>,
}

/// What is known of how a request came.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestMeta {
    endpoint: String,
    method: &'static str,
    model: String,
    messages_count: i32,
    user_agent: Option<String>,
    client_ip: Option<String>,
}

/// What is known of how it was answered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseMeta {
    status_code: Option<i16>,
    outcome: String,
    duration_ms: i32,
    ttft_ms: Option<i32>,
}

/// Show a session
///
/// One's own, or as admin anybody's.
#[utoipa::path(tag = "active-sessions", operation_id = "getSessionDetails", request_body = GetSessionDetails,
    responses((status = 200, description = "The session", body = Envelope<SessionDetails>), Failures))]
#[post("/actions/active-sessions/getSessionDetails")]
pub async fn get_session_details(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetSessionDetails>,
) -> Reply<SessionDetails> {
    let id = session_id(&ask.form.session_id)?;
    let asked = ask.form.sequence.int(1..=i64::MAX)?.flatten();
    let (whose, now, is_admin) = (whose(&caller.0), Utc::now(), caller.0.is_admin);
    let mut conn = state.pool.read().await?;
    let known = sessions::find(&mut conn, whose, &id).await?;
    let records = match &known {
        Some(session) => sessions::requests(&mut conn, whose.owner, session, MOST).await?,
        None => Vec::new(),
    };
    let (user, ended) = known.as_ref().map_or((None, 0), |known| (Some(known.user_id), known.requests));
    let mut all = Sessions::default();
    known.into_iter().for_each(|row| all.add(row));
    let is_it = |open: &contract::pb::OpenRequest| {
        open.session_id == id && user.is_none_or(|user| user == open.user_id)
    };
    live::open(&mut conn, whose).await?.into_iter().filter(is_it).for_each(|open| all.open(open, now));
    let mut ids = all.ids();
    ids[1].extend(records.iter().map(|record| record.key_id));
    ids[2].extend(records.iter().filter_map(|record| record.provider_id));
    let names = sessions::names(&mut conn, whose.owner, ids).await?;
    drop(conn);
    let stats = all.named(&names, is_admin).into_iter().next().ok_or(Code::NoSession)?;
    let logs = records.into_iter().map(|record| LogView::new(record, &names, is_admin)).collect();
    details(stats, logs, ended, asked).map(Answer::read)
}

/// `ended` requests carry the numbers 1 to `ended`; `requests` are the newest of them.
fn details(
    stats: SessionView,
    requests: Vec<LogView>,
    ended: i64,
    asked: Option<i64>,
) -> Result<SessionDetails, Failure> {
    let current = asked.or((ended > 0).then_some(ended));
    if asked.is_some_and(|asked| asked > ended) {
        return Err(Code::NoSession.into());
    }
    let at = current.and_then(|current| usize::try_from(ended - current).ok());
    let one = at.and_then(|at| requests.get(at));
    Ok(SessionDetails {
        session_id: stats.session_id.clone(),
        current_sequence: current,
        prev_sequence: current.map(|current| current - 1).filter(|previous| *previous > 0),
        next_sequence: current.map(|current| current + 1).filter(|next| *next <= ended),
        request_meta: one.map(|log| RequestMeta {
            endpoint: log.endpoint.clone(),
            method: "POST",
            model: log.original_model.clone(),
            messages_count: log.messages_count,
            user_agent: log.user_agent.clone(),
            client_ip: log.client_ip.clone(),
        }),
        response_meta: one.map(|log| ResponseMeta {
            status_code: log.status_code,
            outcome: log.outcome.clone(),
            duration_ms: log.duration_ms,
            ttft_ms: log.ttft_ms,
        }),
        session_stats: stats,
        requests,
        request_body: None,
        messages: None,
        response: None,
        request_headers: None,
        response_headers: None,
        snapshots: None,
        special_settings: None,
    })
}
