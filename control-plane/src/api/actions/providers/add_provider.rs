//! A new provider.

use super::form::{NAME_MAX, ProviderFields, kind};
use super::view::ProviderView;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::providers::{self, Change};
use crate::rules::form::form;
use crate::rules::{Code, key, provider};
use actix_web::post;
use actix_web::web::Data;
use contract::ids::ProviderId;
use contract::table::{ProviderKind, credential_aad};
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// A new provider; name, URL and credential are needed.
    #[schema(example = json!({"name": "GLM Provider", "baseUrl": "https://api.provider.com/v1", "apiKey": "sk-xxx",
        "type": "claude", "weight": 10, "priority": 1, "isEnabled": true}))]
    pub struct AddProvider {
        /// Name.
        name: String = ["name"] {min_length = 1, max_length = 64, example = "GLM Provider"},
        /// Absolute http(s) URL, with or without `/v1`. Also accepted as `url`.
        base_url: String = ["baseUrl", "url"] {max_length = 255, example = "https://api.provider.com/v1"},
        /// The upstream's credential. Also accepted as `key`.
        api_key: String = ["apiKey", "key"] {min_length = 1, example = "sk-xxx"},
        /// Dialect and credential form. Also accepted as `providerType`.
        kind: Option<String> = ["type", "providerType"]
            {pattern = "^(claude|claude-auth|codex|gemini|gemini-cli|openai-compatible)$", example = "claude"},
        ..fields: ProviderFields,
    }
}

/// Add a provider (admin)
#[utoipa::path(tag = "providers", operation_id = "addProvider", request_body = AddProvider, responses(
    (status = 200, description = "The new provider, its credential masked", body = Envelope<ProviderView>), Failures))]
#[post("/actions/providers/addProvider")]
pub async fn add_provider(admin: Admin, state: Data<State>, ask: Ask<AddProvider>) -> Reply<ProviderView> {
    let (form, state, caller) = (&ask.form, &state, &admin.0);
    let name = form.name.name(NAME_MAX)?.ok_or_else(|| form.name.refuse(Code::Required))?;
    let base_url = provider::base_url(&form.base_url)?.ok_or_else(|| form.base_url.refuse(Code::Required))?;
    let credential = provider::required_credential(&form.api_key)?;
    let kind = kind(&form.kind)?.unwrap_or(ProviderKind::ALL[0].as_str());
    let fields = ask.names();
    let mut conn = state.pool.write().await?;
    let (view, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let id = providers::next_id_in_tx(conn).await?;
            let identity = credential_aad(ProviderId(id));
            let new = providers::New {
                id,
                owner_id: caller.owner,
                name,
                base_url,
                kind,
                credential: state.settings.sealer.seal(credential.as_bytes(), &identity)?,
                credential_mask: key::mask(&credential),
                generation: write.generation,
            };
            let row = providers::insert_in_tx(conn, new).await?;
            let change = form.fields.check(&ask.members, &row)?;
            let change = Change { generation: Some(write.generation), ..change };
            let row = providers::update_in_tx(conn, caller.owner, id, &change).await?;
            let row = row.ok_or_else(|| Failure::internal("a row vanished within its transaction"))?;
            let details = json!({"name": row.name, "fields": fields});
            let closed = write.close_in_tx(conn, caller, ("provider", Some(id)), details).await?;
            Ok((ProviderView::from(row), closed))
        })
        .await?;
    Ok(Answer::written(view, closed.committed(state)))
}
