//! A change of the settings.

use super::view::SystemSettings;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::settings;
use crate::rules::Refusal;
use crate::rules::form::form;
use crate::rules::settings::{BILLING, Setting, UNPRICED, WORD_SCOPE};
use actix_web::post;
use actix_web::web::Data;
use contract::table::{Unpriced, WordScope};
use diesel_async::AsyncConnection;
use serde_json::{Map, Value, json};

form! {
    /// Only what is named changes; null goes back to the default.
    #[schema(example = json!({"unpriced": "refuse", "upstreamResources": false}))]
    pub struct UpdateSettings {
        /// Whether callers may reach what the upstream accounts keep: files, batches, stored responses, threads and
        /// the like. All callers of an account share it: each sees and removes what others put there.
        upstream_resources: Option<bool> = ["upstreamResources"] {example = false},
        /// Whose price counts where a provider redirects a model.
        billing_model: Option<String> = ["billingModelSource"] {pattern = "^(original|redirected)$"},
        /// What happens to a request for a model without a price: it is refused to callers with a money limit, it
        /// counts towards money limits at the dearest price of a like name, or it counts nothing.
        unpriced: Option<String> = ["unpriced"] {pattern = "^(refuse|ceiling|serve)$"},
        /// Where sensitive words are looked for: in what people wrote and tools answered, or in system prompts and
        /// descriptions of tools as well.
        word_scope: Option<String> = ["wordScope"] {pattern = "^(people|all)$"},
    }
}

impl UpdateSettings {
    /// What is to be set (`Some`) or to go back to its default (`None`), by key.
    fn changes(&self) -> Result<Vec<(&'static str, Option<Setting>)>, Refusal> {
        let fields = [
            (&self.upstream_resources, self.upstream_resources.flag(false)?.map(Setting::UpstreamResources)),
            (
                &self.billing_model,
                self.billing_model.word(BILLING)?.map(|word| Setting::BillRedirected(word == "redirected")),
            ),
            (&self.unpriced, self.unpriced.word(UNPRICED)?.and_then(Unpriced::parse).map(Setting::Unpriced)),
            (
                &self.word_scope,
                self.word_scope.word(WORD_SCOPE)?.and_then(WordScope::parse).map(Setting::WordScope),
            ),
        ];
        let named = fields.into_iter().filter(|(field, _)| field.is_given());
        let set =
            |json: Option<Option<&str>>, setting: Option<Setting>| setting.filter(|_| json != Some(None));
        Ok(named.map(|(field, setting)| (field.name, set(field.json(), setting))).collect())
    }
}

/// Change the settings of the gateway (admin)
#[utoipa::path(tag = "system", operation_id = "updateSettings", request_body = UpdateSettings, responses(
    (status = 200, description = "The settings as they are now", body = Envelope<SystemSettings>), Failures))]
#[post("/actions/system/updateSettings")]
pub async fn update_settings(
    admin: Admin,
    state: Data<State>,
    ask: Ask<UpdateSettings>,
) -> Reply<SystemSettings> {
    let (state, caller) = (&state, &admin.0);
    let changes = ask.form.changes()?;
    let mut conn = state.pool.write().await?;
    let (now, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let mut details = Map::new();
            for (key, setting) in &changes {
                let value = setting.map(Setting::value);
                match &value {
                    Some(value) => {
                        settings::put_in_tx(conn, caller.owner, key, value, write.generation).await?;
                    }
                    None => settings::clear_in_tx(conn, caller.owner, key, write.generation).await?,
                }
                details.insert((*key).to_owned(), value.unwrap_or(Value::Null));
            }
            let now = SystemSettings::read(conn, state, caller.owner).await?;
            let closed = write.close_in_tx(conn, caller, ("setting", None), json!({"set": details})).await?;
            Ok((now, closed))
        })
        .await?;
    Ok(Answer::written(now, closed.committed(state)))
}
