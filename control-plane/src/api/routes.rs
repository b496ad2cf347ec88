//! The one list of endpoints: what is mounted is what is documented.

use super::actions::{
    active_sessions, health, keys, model_prices, notifications, overview, providers, sensitive_words,
    statistics, system, usage_logs, users,
};
use super::auth::{self, login};
use super::error::Failure;
use super::{docs, error, fleet, openapi};
use crate::rules::{Code, Refusal};
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, web};

/// Where everything of this module is.
pub(super) const BASE: &str = "/api";

/// Mounts every handler, and makes the document of the same list.
macro_rules! endpoints {
    ($($handler:path,)+) => {
        fn mount(scope: actix_web::Scope) -> actix_web::Scope {
            scope$(.service($handler))+
        }

        /// What each handler says about itself.
        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($handler,)+))]
        pub(super) struct Handlers;
    };
}

endpoints! {
    login::login,
    login::logout,
    users::get_users::get_users,
    users::add_user::add_user,
    users::edit_user::edit_user,
    users::remove_user::remove_user,
    keys::get_keys::get_keys,
    keys::add_key::add_key,
    keys::edit_key::edit_key,
    keys::remove_key::remove_key,
    providers::get_providers::get_providers,
    providers::add_provider::add_provider,
    providers::edit_provider::edit_provider,
    providers::remove_provider::remove_provider,
    providers::get_providers_health_status::get_providers_health_status,
    providers::reset_provider_circuit::reset_provider_circuit,
    model_prices::get_model_prices::get_model_prices,
    model_prices::get_model_prices_paginated::get_model_prices_paginated,
    model_prices::upload_price_table::upload_price_table,
    model_prices::sync_litellm_prices::sync_litellm_prices,
    model_prices::get_available_models_by_provider_type::get_available_models_by_provider_type,
    model_prices::has_price_table::has_price_table,
    usage_logs::get_usage_logs::get_usage_logs,
    usage_logs::lists::get_model_list,
    usage_logs::lists::get_status_code_list,
    users::get_user_limit_usage::get_user_limit_usage,
    keys::get_key_limit_usage::get_key_limit_usage,
    providers::get_provider_limit_usage::get_provider_limit_usage,
    statistics::get_user_statistics,
    overview::get_overview_data,
    sensitive_words::list_sensitive_words::list_sensitive_words,
    sensitive_words::create_sensitive_word::create_sensitive_word,
    sensitive_words::update_sensitive_word::update_sensitive_word,
    sensitive_words::delete_sensitive_word::delete_sensitive_word,
    sensitive_words::refresh_cache::refresh_cache,
    sensitive_words::get_cache_stats::get_cache_stats,
    notifications::get_notification_settings::get_notification_settings,
    notifications::update_notification_settings::update_notification_settings,
    notifications::test_webhook::test_webhook,
    active_sessions::get_active_sessions::get_active_sessions,
    active_sessions::get_session_details::get_session_details,
    active_sessions::get_session_messages::get_session_messages,
    system::get_settings::get_settings,
    system::update_settings::update_settings,
    fleet::fleet,
    openapi::openapi,
    docs::docs,
    docs::scalar,
    health::health,
}

/// Everything under `/api`, behind the credential check and inside the envelope. Needs `Data<State>`.
pub fn configure(config: &mut web::ServiceConfig) {
    let scope = mount(web::scope(BASE)).service(docs::docs_file).service(docs::scalar_file);
    let scope = scope.default_service(web::to(unknown));
    config.service(scope.wrap(from_fn(auth::required)).wrap(from_fn(error::envelope)));
}

/// A path that exists with another method, or does not exist.
async fn unknown(request: HttpRequest) -> Result<String, Failure> {
    let path: String = request.path().chars().take(200).collect();
    Err(match openapi::method_of(request.path()) {
        Some(method) => Refusal::new(Code::Method).with("path", path).with("allow", method).into(),
        None => Refusal::new(Code::UnknownPath).with("path", path).into(),
    })
}
