//! How the settings are shown.

use crate::api::{Failure, State};
use crate::db::rows::SETTINGS;
use crate::db::{Conn, settings};
use crate::rules::settings::Setting;
use contract::ids::UserId;
use contract::table::OwnerConfig;
use serde::Serialize;

/// The settings. What was not set is shown with its default.
#[derive(Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemSettings {
    /// Whether callers may reach what the upstream accounts keep: files, batches, stored responses, threads and the
    /// like. All callers of an account share it.
    upstream_resources: bool,
    /// Whose price counts where a provider redirects a model: `original` or `redirected`.
    #[schema(example = "original")]
    billing_model_source: &'static str,
    /// What happens to a request for a model without a price: `refuse`, `ceiling` or `serve`.
    #[schema(example = "ceiling")]
    unpriced: &'static str,
    /// Where sensitive words are looked for: `people` or `all`.
    #[schema(example = "people")]
    word_scope: &'static str,
}

impl SystemSettings {
    /// As they are in the database. A value without meaning is shown as what the proxies take it for.
    pub(super) async fn read(conn: &mut Conn, state: &State, owner: i64) -> Result<Self, Failure> {
        let plain = OwnerConfig::new(UserId(owner), state.settings.time_zone);
        let mut config = OwnerConfig { unpriced: state.settings.unpriced, ..plain };
        for (key, value) in settings::of_keys(conn, owner, &SETTINGS).await? {
            if let Ok(setting) = Setting::read(&key, &value) {
                setting.lay_over(&mut config);
            }
        }
        Ok(Self {
            upstream_resources: config.upstream_resources,
            billing_model_source: if config.bill_redirected { "redirected" } else { "original" },
            unpriced: config.unpriced.as_str(),
            word_scope: config.word_scope.as_str(),
        })
    }
}
