//! A new user, with a first key.

use super::form::{NAME_MAX, UserFields};
use super::view::UserView;
use crate::api::actions::keys::mint_in_tx;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::{Admin, Caller};
use crate::api::{Answer, Ask, Failure, State};
use crate::db::Conn;
use crate::db::users::{self, Change};
use crate::rules::form::form;
use crate::rules::{Code, time};
use actix_web::post;
use actix_web::web::Data;
use chrono::Utc;
use diesel_async::AsyncConnection;
use serde::Serialize;
use serde_json::json;

/// The name of the key that every user begins with.
const FIRST_KEY: &str = "default";

form! {
    /// A new user.
    #[schema(example = json!({"name": "Alice", "description": "测试用户", "rpm": 60, "dailyQuota": 10}))]
    pub struct AddUser {
        /// Name.
        name: String = ["name"] {min_length = 1, max_length = 64, example = "Alice"},
        ..fields: UserFields,
    }
}

/// The user, flat and once more under `user`, and its first key: the only time that key is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddedUser {
    #[serde(flatten)]
    flat: UserView,
    user: UserView,
    default_key: FirstKey,
}

/// The first key of a user.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FirstKey {
    id: i64,
    #[schema(example = "default")]
    name: &'static str,
    #[schema(example = "sk-0123456789abcdef0123456789abcdef")]
    key: String,
}

/// Create a user (admin)
#[utoipa::path(tag = "users", operation_id = "addUser", request_body = AddUser, responses(
    (status = 200, description = "The new user", body = Envelope<AddedUser>), Failures))]
#[post("/actions/users/addUser")]
pub async fn add_user(admin: Admin, state: Data<State>, ask: Ask<AddUser>) -> Reply<AddedUser> {
    let now = Utc::now();
    let name = ask.form.name.name(NAME_MAX)?.ok_or_else(|| ask.form.name.refuse(Code::Required))?;
    let change = ask.form.fields.check(state.settings.time_zone, now)?;
    time::must_be_future(change.expires_at.flatten(), now)?;
    let fields = ask.names();
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let (added, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let user = insert_in_tx(conn, caller, name, change, write.generation).await?;
            let key = mint_in_tx(conn, state, &user, FIRST_KEY, write.generation).await?;
            let default_key = FirstKey { id: key.row.id, name: FIRST_KEY, key: key.clear };
            let details = json!({"name": user.name, "fields": fields});
            let closed = write.close_in_tx(conn, caller, ("user", Some(user.id)), details).await?;
            let view = UserView::from(user);
            Ok((AddedUser { flat: view.clone(), user: view, default_key }, closed))
        })
        .await?;
    Ok(Answer::written(added, closed.committed(state)))
}

/// New accounts stand right below the caller's owner.
async fn insert_in_tx(
    conn: &mut Conn,
    caller: &Caller,
    name: String,
    change: Change,
    generation: i64,
) -> Result<users::User, Failure> {
    let owner = users::find(conn, caller.owner, caller.owner).await?;
    let owner = owner.ok_or_else(|| Failure::internal("the owner's account does not exist"))?;
    let new = users::New {
        owner_id: owner.id,
        parent_id: Some(owner.id),
        dna: owner.dna_of_children(),
        name,
        generation,
    };
    let user = users::insert_in_tx(conn, new).await?;
    let change = Change { generation: Some(generation), ..change };
    let user = users::update_in_tx(conn, caller.owner, user.id, &change).await?;
    user.ok_or_else(|| Failure::internal("a row vanished within its transaction"))
}
