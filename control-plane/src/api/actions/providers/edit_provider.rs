//! A change of a provider.

use super::form::{NAME_MAX, ProviderFields, kind};
use super::view::ProviderView;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Edit;
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::health;
use crate::db::providers::{self, Change, Provider};
use crate::rules::form::form;
use crate::rules::{Code, key, provider};
use actix_web::post;
use actix_web::web::Data;
use contract::ids::{Generation, ProviderId};
use contract::table::credential_aad;
use diesel_async::AsyncConnection;
use serde_json::json;

form! {
    /// Only what is named changes; null clears.
    #[schema(example = json!({"providerId": 1, "weight": 20}))]
    pub struct EditProvider {
        /// Which provider.
        provider_id: i64 = ["providerId", "id"] {example = 1},
        /// Name.
        name: Option<String> = ["name"] {min_length = 1, max_length = 64},
        /// Absolute http(s) URL. Also accepted as `url`.
        base_url: Option<String> = ["baseUrl", "url"] {max_length = 255},
        /// A new credential; absent, empty or masked keeps the old one. Also accepted as `key`.
        api_key: Option<String> = ["apiKey", "key"],
        /// Dialect and credential form. Also accepted as `providerType`.
        kind: Option<String> = ["type", "providerType"]
            {pattern = "^(claude|claude-auth|codex|gemini|gemini-cli|openai-compatible)$"},
        ..fields: ProviderFields,
    }
}

/// Edit a provider (admin)
#[utoipa::path(tag = "providers", operation_id = "editProvider", request_body = EditProvider, responses(
    (status = 200, description = "The provider as it is now", body = Envelope<ProviderView>), Failures))]
#[post("/actions/providers/editProvider")]
pub async fn edit_provider(
    admin: Admin,
    state: Data<State>,
    edit: Edit<EditProvider>,
) -> Reply<ProviderView> {
    let (state, caller) = (&state, &admin.0);
    let shown = async |id| {
        let mut conn = state.pool.read().await?;
        Ok(providers::find(&mut conn, caller.owner, id).await?.map(ProviderView::from))
    };
    let ask = edit.of(&["providerId", "id"], shown).await?;
    let id = ask.form.provider_id.id()?;
    let fields = ask.names();
    let mut conn = state.pool.write().await?;
    let (view, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let old = providers::find(conn, caller.owner, id).await?.ok_or(Code::NoProvider)?;
            let change = checked(state, &ask, &old)?;
            let change = Change { generation: Some(write.generation), ..change };
            let row = providers::update_in_tx(conn, caller.owner, id, &change).await?;
            let row = row.ok_or(Code::NoProvider)?;
            if change.disabled_reason.is_some() {
                health::reset_in_tx(conn, caller.owner, id, Generation(write.generation)).await?;
            }
            let details = json!({"name": row.name, "fields": fields});
            let closed = write.close_in_tx(conn, caller, ("provider", Some(id)), details).await?;
            Ok((ProviderView::from(row), closed))
        })
        .await?;
    Ok(Answer::written(view, closed.committed(state)))
}

fn checked(state: &State, ask: &Ask<EditProvider>, old: &Provider) -> Result<Change, Failure> {
    let form = &ask.form;
    let credential = provider::credential(&form.api_key)?;
    let sealed = match &credential {
        None => None,
        Some(clear) => {
            let identity = credential_aad(ProviderId(old.id));
            Some(state.settings.sealer.seal(clear.as_bytes(), &identity)?)
        }
    };
    let fields = form.fields.check(&ask.members, old)?;
    // A new credential, or being switched on, wakes a provider whose credential was refused. Whether it is enabled
    // is only what the form says.
    let was_refused = old.disabled_reason.is_some();
    let is_remedied = credential.is_some() || (was_refused && fields.enabled == Some(true));
    Ok(Change {
        name: form.name.name(NAME_MAX)?,
        base_url: provider::base_url(&form.base_url)?,
        kind: kind(&form.kind)?,
        credential_mask: credential.as_deref().map(key::mask),
        credential: sealed,
        disabled_reason: is_remedied.then_some(None),
        ..fields
    })
}
