//! Conversations that go on now: what the ledger saw in the last minutes, and what the proxies say is open.

pub mod get_active_sessions;
pub mod get_session_details;
pub mod get_session_messages;
mod live;
mod view;

use crate::api::auth::Caller;
use crate::db::sessions::Whose;
use crate::rules::{Code, Field, Refusal};

/// Longest name of a session.
const ID_MAX: usize = 512;

/// Admins see their owner's, everybody else their own.
fn whose(caller: &Caller) -> Whose {
    Whose { owner: caller.owner, user: (!caller.is_admin).then_some(caller.id) }
}

fn session_id(field: &Field) -> Result<String, Refusal> {
    field.name(ID_MAX)?.ok_or_else(|| field.refuse(Code::Required))
}
