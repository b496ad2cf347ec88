//! The keys of a user.

use super::view::{KeyView, revealed};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::LoggedIn;
use crate::api::{Answer, Ask, State};
use crate::db::{keys, users};
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;

form! {
    /// A user.
    #[schema(example = json!({"userId": 1}))]
    pub struct GetKeys {
        /// Whose.
        user_id: i64 = ["userId"] {example = 1},
    }
}

/// List the keys of a user
///
/// One's own, or as admin anybody's. Keys are masked.
#[utoipa::path(tag = "keys", operation_id = "getKeys", request_body = GetKeys, responses(
    (status = 200, description = "The keys", body = Envelope<Vec<KeyView>>), Failures))]
#[post("/actions/keys/getKeys")]
pub async fn get_keys(caller: LoggedIn, state: Data<State>, ask: Ask<GetKeys>) -> Reply<Vec<KeyView>> {
    let (user, caller) = (ask.form.user_id.id()?, &caller.0);
    caller.may_touch(user)?;
    let mut conn = state.pool.read().await?;
    users::find(&mut conn, caller.owner, user).await?.ok_or(Code::NoUser)?;
    let keys = keys::of_users(&mut conn, caller.owner, &[user]).await?;
    let view = |key: keys::Key| {
        let clear = if caller.is_admin { revealed(&state, &key) } else { None };
        KeyView::new(key, clear)
    };
    Ok(Answer::read(keys.into_iter().map(view).collect()))
}
