//! The end of a user: its keys stop at once, its history stays.

use crate::api::answer::{Bare, Failures};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Ask, Done, Failure, State};
use crate::db::{keys, users};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// A user.
    #[schema(example = json!({"userId": 1}))]
    pub struct RemoveUser {
        /// Which user.
        user_id: i64 = ["userId", "id"] {example = 1},
    }
}

/// Delete a user (admin)
///
/// Its keys and logins end; its usage stays in every sum.
#[utoipa::path(tag = "users", operation_id = "removeUser", request_body = RemoveUser, responses(
    (status = 200, description = "Deleted", body = Bare), Failures))]
#[post("/actions/users/removeUser")]
pub async fn remove_user(admin: Admin, state: Data<State>, ask: Ask<RemoveUser>) -> Result<Done, Failure> {
    let id = ask.form.user_id.id()?;
    let (state, caller) = (&state, &admin.0);
    if id == caller.owner {
        return Err(Code::OwnerProtected.into());
    }
    let mut conn = state.pool.write().await?;
    let closed = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let user = users::find(conn, caller.owner, id).await?.ok_or(Code::NoUser)?;
            users::remove_in_tx(conn, caller.owner, id, write.generation).await?;
            let keys = keys::remove_of_user_in_tx(conn, caller.owner, id, write.generation).await?;
            let details = json!({"name": user.name, "keys": keys});
            write.close_in_tx(conn, caller, ("user", Some(id)), details).await
        })
        .await?;
    Ok(Done::written(closed.committed(state)))
}
