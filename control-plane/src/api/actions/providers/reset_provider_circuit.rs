//! A person says that a provider is well again.

use crate::api::answer::{Bare, Failures};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Ask, Done, Failure, State};
use crate::db::health;
use crate::db::providers;
use crate::rules::Code;
use crate::rules::form::form;
use actix_web::post;
use actix_web::web::Data;
use contract::ids::Generation;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// A provider.
    #[schema(example = json!({"providerId": 1}))]
    pub struct ResetProviderCircuit {
        /// Which provider.
        provider_id: i64 = ["providerId", "id"] {example = 1},
    }
}

/// Close the circuit of a provider (admin)
///
/// Every proxy forgets its failures and refusals. Whether the provider is enabled stays as it is.
#[utoipa::path(tag = "providers", operation_id = "resetProviderCircuit", request_body = ResetProviderCircuit,
    responses((status = 200, description = "Closed", body = Bare), Failures))]
#[post("/actions/providers/resetProviderCircuit")]
pub async fn reset_provider_circuit(
    admin: Admin,
    state: Data<State>,
    ask: Ask<ResetProviderCircuit>,
) -> Result<Done, Failure> {
    let id = ask.form.provider_id.id()?;
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let closed = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let provider = providers::find(conn, caller.owner, id).await?.ok_or(Code::NoProvider)?;
            health::reset_in_tx(conn, caller.owner, id, Generation(write.generation)).await?;
            let details = json!({"name": provider.name});
            write.close_in_tx(conn, caller, ("provider", Some(id)), details).await
        })
        .await?;
    Ok(Done::written(closed.committed(state)))
}
