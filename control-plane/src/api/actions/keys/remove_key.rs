//! The end of a key. Every proxy refuses it at once.

use super::edit_key::visible;
use super::rule;
use crate::api::answer::{Bare, Failures};
use crate::api::audit::Write;
use crate::api::auth::LoggedIn;
use crate::api::{Ask, Done, Failure, State};
use crate::db::keys;
use crate::rules::form::form;
use crate::rules::{Code, Refusal};
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// A key.
    #[schema(example = json!({"keyId": 1}))]
    pub struct RemoveKey {
        /// Which key.
        key_id: i64 = ["keyId", "id"] {example = 1},
    }
}

/// Delete a key
///
/// One's own, or as admin any; never the last enabled key of a user.
#[utoipa::path(tag = "keys", operation_id = "removeKey", request_body = RemoveKey, responses(
    (status = 200, description = "Deleted", body = Bare), Failures))]
#[post("/actions/keys/removeKey")]
pub async fn remove_key(caller: LoggedIn, state: Data<State>, ask: Ask<RemoveKey>) -> Result<Done, Failure> {
    let (state, caller) = (&state, &caller.0);
    let id = ask.form.key_id.id()?;
    let mut conn = state.pool.write().await?;
    let closed = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let key = keys::find(conn, caller.owner, id).await?;
            let key = visible(caller, key)?;
            let all = keys::of_users(conn, caller.owner, &[key.user_id]).await?;
            if rule::is_last_enabled(&key, &all) {
                return Err(Code::LastKeyDelete.into());
            }
            if let (false, Some(group)) = (caller.is_admin, rule::sole_group(&key, &all)) {
                return Err(Refusal::new(Code::LastGroupKey).with("group", group).into());
            }
            keys::remove_in_tx(conn, caller.owner, id, write.generation).await?;
            let details = json!({"name": key.name, "userId": key.user_id});
            write.close_in_tx(conn, caller, ("key", Some(id)), details).await
        })
        .await?;
    Ok(Done::written(closed.committed(state)))
}
