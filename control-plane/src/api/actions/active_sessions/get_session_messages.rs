//! What was said in a session: never kept, so this says so. The texts of a conversation are on the caller's
//! machine and at the upstream; a gateway that keeps a third copy is a place to steal them from.

use super::{session_id, whose};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Ask, State};
use crate::db::sessions;
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use serde::Serialize;
use serde_json::Value;

form! {
    /// A session.
    #[schema(example = json!({"sessionId": "0197f1c2-0000-7000-8000-000000000000"}))]
    pub struct GetSessionMessages {
        /// Which.
        session_id: String = ["sessionId"] {min_length = 1, max_length = 512},
    }
}

/// One message, as its protocol has it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct MessageView {
    /// Who speaks.
    pub role: String,
    /// What is said.
    #[schema(value_type = Object)]
    pub content: Value,
}

/// Show the messages of a session
///
/// Messages are not stored: the answer is 400.
#[utoipa::path(tag = "active-sessions", operation_id = "getSessionMessages", request_body = GetSessionMessages,
    responses((status = 200, description = "The messages", body = Envelope<Vec<MessageView>>), Failures))]
#[post("/actions/active-sessions/getSessionMessages")]
pub async fn get_session_messages(
    caller: LoggedIn,
    state: Data<State>,
    ask: Ask<GetSessionMessages>,
) -> Reply<Vec<MessageView>> {
    let id = session_id(&ask.form.session_id)?;
    let known = sessions::find(&mut *state.pool.read().await?, whose(&caller.0), &id).await?;
    Err(if known.is_some() { Code::NoMessages } else { Code::NoSession }.into())
}
