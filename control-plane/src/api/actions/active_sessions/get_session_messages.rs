//! What was said last in a session. Kept only where the operator switched it on, sealed, for some minutes.

use super::{session_id, whose};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::{messages, sessions};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use chrono::Utc;
use serde_json::Value;

form! {
    /// A session.
    #[schema(example = json!({"sessionId": "0197f1c2-0000-7000-8000-000000000000"}))]
    pub struct GetSessionMessages {
        /// Which.
        session_id: String = ["sessionId"] {min_length = 1, max_length = 512},
    }
}

/// One turn, as its protocol has it; most have a role and a content.
#[derive(Debug, utoipa::ToSchema)]
pub struct MessageView {
    /// Who speaks.
    #[schema(required = false, example = "user")]
    pub role: String,
    /// What is said: a text, or parts.
    #[schema(required = false, value_type = Value)]
    pub content: Value,
}

/// Show the messages of a session
///
/// One's own, or as admin anybody's: what the newest request of the last minutes said. Messages are stored only
/// where `STORE_SESSION_MESSAGES` is on; otherwise the answer is 400.
#[utoipa::path(tag = "active-sessions", operation_id = "getSessionMessages", request_body = GetSessionMessages,
    responses((status = 200, description = "The messages", body = Envelope<Vec<MessageView>>), Failures))]
#[post("/actions/active-sessions/getSessionMessages")]
pub async fn get_session_messages(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetSessionMessages>,
) -> Reply<Vec<Value>> {
    let id = session_id(&ask.form.session_id)?;
    let mut conn = state.pool.read().await?;
    let known = sessions::find(&mut conn, whose(&caller.0), &id).await?.ok_or(Code::NoSession)?;
    let ttl = state.settings.messages_ttl.ok_or(Code::NoMessages)?;
    let owner = caller.0.owner;
    let sealed = messages::find(&mut conn, owner, known.user_id, &id, Utc::now() - ttl).await?;
    let sealed = sealed.ok_or(Code::NoMessages)?;
    let clear = state.settings.sealer.open(&sealed, &messages::aad(owner, known.user_id, &id))?;
    Ok(Answer::read(serde_json::from_slice(&clear).map_err(Failure::internal)?))
}
