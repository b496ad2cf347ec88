//! A change of a user.

use super::form::{NAME_MAX, UserFields};
use super::view::UserView;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Edit;
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Answer, Failure, State};
use crate::db::keys;
use crate::db::users::{self, Change};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use chrono::Utc;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// Only what is named changes; null clears a limit.
    #[schema(example = json!({"userId": 1, "rpm": 120, "dailyQuota": null}))]
    pub struct EditUser {
        /// Which user.
        user_id: i64 = ["userId", "id"] {example = 1},
        /// Name.
        name: Option<String> = ["name"] {min_length = 1, max_length = 64},
        ..fields: UserFields,
    }
}

/// Edit a user (admin)
///
/// Limits of its keys that would be above its own are lowered to them, and its keys lose the groups that it
/// loses; a key left with none of its groups is served nothing until its user has one of them again.
#[utoipa::path(tag = "users", operation_id = "editUser", request_body = EditUser, responses(
    (status = 200, description = "The user as it is now", body = Envelope<UserView>), Failures))]
#[post("/actions/users/editUser")]
pub async fn edit_user(admin: Admin, state: Data<State>, edit: Edit<EditUser>) -> Reply<UserView> {
    let (pool, owner) = (&state.pool, admin.0.owner);
    let shown = async |id| Ok(users::find(&mut *pool.read().await?, owner, id).await?.map(UserView::from));
    let ask = edit.of(&["userId", "id"], shown).await?;
    let id = ask.form.user_id.id()?;
    let change = ask.form.fields.check(state.settings.time_zone, Utc::now())?;
    let change = Change { name: ask.form.name.name(NAME_MAX)?, ..change };
    let fields = ask.names();
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let (user, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let change = Change { generation: Some(write.generation), ..change };
            if id == caller.owner && locks_out(&change) {
                return Err(Code::OwnerProtected.into());
            }
            let user = users::update_in_tx(conn, caller.owner, id, &change).await?.ok_or(Code::NoUser)?;
            let lowered = keys::lower_to_user_in_tx(conn, caller.owner, id, write.generation).await?;
            let details = json!({"name": user.name, "fields": fields, "keysLowered": lowered});
            let closed = write.close_in_tx(conn, caller, ("user", Some(id)), details).await?;
            Ok((UserView::from(user), closed))
        })
        .await?;
    Ok(Answer::written(user, closed.committed(state)))
}

/// The owner's account carries ADMIN_TOKEN: a change that ended it would lock everybody out.
fn locks_out(change: &Change) -> bool {
    change.enabled == Some(false)
        || change.expires_at.flatten().is_some()
        || change.role.is_some_and(|role| role != "admin")
}
