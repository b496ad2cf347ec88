//! All sessions that go on.

use super::view::{SessionView, Sessions};
use super::{live, whose};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::sessions;
use actix_web::post;
use actix_web::web::Data;
use chrono::Utc;

/// Most rows of an answer.
const MOST: i64 = 1_000;

/// List the active sessions
///
/// Those with a request that is open or ended within `SESSION_TTL_SECONDS`; one's own, or as admin everybody's.
#[utoipa::path(tag = "active-sessions", operation_id = "getActiveSessions", request_body = Nothing, responses(
    (status = 200, description = "The sessions, the one seen last first", body = Envelope<Vec<SessionView>>),
    Failures))]
#[post("/actions/active-sessions/getActiveSessions")]
pub async fn get_active_sessions(
    caller: LoggedIn,
    state: Data<State>,
    _ask: Ask<Nothing>,
) -> Reply<Vec<SessionView>> {
    let (whose, now) = (whose(&caller.0), Utc::now());
    let mut conn = state.pool.read().await?;
    let mut all = Sessions::default();
    for row in sessions::since(&mut conn, whose, now - state.settings.conversation_ttl, MOST).await? {
        all.add(row);
    }
    for open in live::open(&mut conn, whose).await? {
        all.open(open, now);
    }
    let names = sessions::names(&mut conn, whose.owner, all.ids()).await?;
    Ok(Answer::read(all.named(&names, caller.0.is_admin)))
}
