//! A change of a key.

use super::form::{KeyFields, NAME_MAX};
use super::view::KeyView;
use super::{duplicate, rule};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::{Caller, LoggedIn};
use crate::api::{Answer, Ask, Failure, State};
use crate::db::keys::{Change, Key};
use crate::db::{Conn, keys, users};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// Only what is named changes; null clears a limit.
    #[schema(example = json!({"keyId": 1, "name": "Production Key", "limitDailyUsd": 5}))]
    pub struct EditKey {
        /// Which key.
        key_id: i64 = ["keyId", "id"] {example = 1},
        /// Unique among the user's keys.
        name: Option<String> = ["name"] {min_length = 1, max_length = 64},
        ..fields: KeyFields,
    }
}

/// Edit a key
///
/// One's own, or as admin any. Only an admin may change its groups.
#[utoipa::path(tag = "keys", operation_id = "editKey", request_body = EditKey, responses(
    (status = 200, description = "The key as it is now", body = Envelope<KeyView>), Failures))]
#[post("/actions/keys/editKey")]
pub async fn edit_key(caller: LoggedIn, state: Data<State>, ask: Ask<EditKey>) -> Reply<KeyView> {
    let (state, caller) = (&state, &caller.0);
    let id = ask.form.key_id.id()?;
    let change = ask.form.fields.check(state.settings.time_zone)?;
    let change = Change { name: ask.form.name.name(NAME_MAX)?, ..change };
    let fields = ask.names();
    let mut conn = state.pool.write().await?;
    let (key, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let old = keys::find(conn, caller.owner, id).await?;
            let old = visible(caller, old)?;
            let change = Change { generation: Some(write.generation), ..change };
            allowed_in_tx(conn, caller, &old, &change).await?;
            let name = change.name.as_deref().unwrap_or(&old.name);
            let key = keys::update_in_tx(conn, caller.owner, id, &change).await;
            let key = key.map_err(|error| duplicate(error, name))?.ok_or(Code::NoKey)?;
            let user = users::find(conn, caller.owner, key.user_id).await?.ok_or(Code::NoUser)?;
            rule::within_user(Some(&old), &key, &user)?;
            // Only what an admin gives: a key may still carry what was taken away from its user.
            if caller.is_admin
                && change.groups.is_some()
                && let Some(groups) = rule::widened(&user, &key.groups)
            {
                let generation = Some(write.generation);
                let change = users::Change { groups: Some(groups), generation, ..users::Change::default() };
                users::update_in_tx(conn, caller.owner, user.id, &change).await?;
            }
            let details = json!({"name": key.name, "userId": key.user_id, "fields": fields});
            let closed = write.close_in_tx(conn, caller, ("key", Some(id)), details).await?;
            Ok((KeyView::new(key, None), closed))
        })
        .await?;
    Ok(Answer::written(key, closed.committed(state)))
}

/// Somebody else's key is as unknown to a user as one that does not exist.
pub(super) fn visible(caller: &Caller, key: Option<Key>) -> Result<Key, Failure> {
    match key {
        Some(key) => caller.may_touch(key.user_id).map(|()| key),
        None if caller.is_admin => Err(Code::NoKey.into()),
        None => Err(Code::PermissionDenied.into()),
    }
}

/// What a user may not do to its own key.
async fn allowed_in_tx(conn: &mut Conn, caller: &Caller, old: &Key, change: &Change) -> Result<(), Failure> {
    if caller.is_admin {
        return Ok(());
    }
    if change.groups.as_ref().is_some_and(|groups| *groups != old.groups) {
        return Err(Code::PermissionDenied.into());
    }
    if change.enabled == Some(false) {
        let all = keys::of_users(conn, caller.owner, &[old.user_id]).await?;
        if rule::is_last_enabled(old, &all) {
            return Err(Code::LastKeyDisable.into());
        }
    }
    Ok(())
}
