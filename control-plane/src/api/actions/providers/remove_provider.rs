//! The end of a provider: nothing goes there any more, its history stays.

use crate::api::answer::{Bare, Failures};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Ask, Done, Failure, State};
use crate::db::providers;
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// A provider.
    #[schema(example = json!({"providerId": 1}))]
    pub struct RemoveProvider {
        /// Which provider.
        provider_id: i64 = ["providerId", "id"] {example = 1},
    }
}

/// Delete a provider (admin)
#[utoipa::path(tag = "providers", operation_id = "removeProvider", request_body = RemoveProvider, responses(
    (status = 200, description = "Deleted", body = Bare), Failures))]
#[post("/actions/providers/removeProvider")]
pub async fn remove_provider(
    admin: Admin,
    state: Data<State>,
    ask: Ask<RemoveProvider>,
) -> Result<Done, Failure> {
    let (state, caller) = (&state, &admin.0);
    let id = ask.form.provider_id.id()?;
    let mut conn = state.pool.write().await?;
    let closed = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let row = providers::find(conn, caller.owner, id).await?.ok_or(Code::NoProvider)?;
            providers::remove_in_tx(conn, caller.owner, id, write.generation).await?;
            let details = json!({"name": row.name});
            write.close_in_tx(conn, caller, ("provider", Some(id)), details).await
        })
        .await?;
    Ok(Done::written(closed.committed(state)))
}
