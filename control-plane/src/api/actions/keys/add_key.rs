//! A new key of a user.

use super::form::{KeyFields, NAME_MAX};
use super::{duplicate, mint_in_tx, rule};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::{keys, users};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde::Serialize;
use serde_json::json;

form! {
    /// A new key.
    #[schema(example = json!({"userId": 1, "name": "Production Key", "expiresAt": "2025-12-31T23:59:59Z"}))]
    pub struct AddKey {
        /// Whose.
        user_id: i64 = ["userId"] {example = 1},
        /// Unique among the user's keys.
        name: String = ["name"] {min_length = 1, max_length = 64, example = "Production Key"},
        ..fields: KeyFields,
    }
}

/// The new key. This is the only time it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddedKey {
    id: i64,
    #[schema(example = "sk-0123456789abcdef0123456789abcdef")]
    generated_key: String,
    #[schema(example = "sk-0123456789abcdef0123456789abcdef")]
    key: String,
    name: String,
}

/// Create a key
///
/// For oneself, or as admin for any user.
#[utoipa::path(tag = "keys", operation_id = "addKey", request_body = AddKey, responses(
    (status = 200, description = "The new key", body = Envelope<AddedKey>), Failures))]
#[post("/actions/keys/addKey")]
pub async fn add_key(caller: LoggedIn, state: Data<State>, ask: Ask<AddKey>) -> Reply<AddedKey> {
    let (state, caller) = (&state, &caller.0);
    let user_id = ask.form.user_id.id()?;
    caller.may_touch(user_id)?;
    let name = ask.form.name.name(NAME_MAX)?.ok_or_else(|| ask.form.name.refuse(Code::Required))?;
    let change = ask.form.fields.check(state.settings.time_zone)?;
    let fields = ask.names();
    let mut conn = state.pool.write().await?;
    let (added, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let user = users::find(conn, caller.owner, user_id).await?.ok_or(Code::NoUser)?;
            let asked = change.groups.as_deref().unwrap_or_default();
            if !caller.is_admin {
                rule::may_use(&user, asked)?;
            }
            let minted = mint_in_tx(conn, state, &user, &name, write.generation).await?;
            let change = keys::Change { generation: Some(write.generation), ..change };
            let key = keys::update_in_tx(conn, caller.owner, minted.row.id, &change).await;
            let key = key.map_err(|error| duplicate(error, &name))?;
            let key = key.ok_or_else(|| Failure::internal("a row vanished within its transaction"))?;
            rule::within_user(None, &key, &user)?;
            if caller.is_admin
                && let Some(groups) = rule::widened(&user, &key.groups)
            {
                let generation = Some(write.generation);
                let change = users::Change { groups: Some(groups), generation, ..users::Change::default() };
                users::update_in_tx(conn, caller.owner, user_id, &change).await?;
            }
            let details = json!({"name": key.name, "userId": user_id, "fields": fields});
            let closed = write.close_in_tx(conn, caller, ("key", Some(key.id)), details).await?;
            let key = AddedKey {
                id: key.id,
                generated_key: minted.clear.clone(),
                key: minted.clear,
                name: key.name,
            };
            Ok((key, closed))
        })
        .await?;
    Ok(Answer::written(added, closed.committed(state)))
}
