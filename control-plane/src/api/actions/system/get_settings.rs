//! The settings as they are.

use super::view::SystemSettings;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, State};
use actix_web::post;
use actix_web::web::Data;

/// Show the settings of the gateway (admin)
#[utoipa::path(tag = "system", operation_id = "getSettings", request_body = Nothing,
    responses((status = 200, description = "The settings", body = Envelope<SystemSettings>), Failures))]
#[post("/actions/system/getSettings")]
pub async fn get_settings(admin: Admin, state: Data<State>, _ask: Ask<Nothing>) -> Reply<SystemSettings> {
    let mut conn = state.pool.read().await?;
    Ok(Answer::read(SystemSettings::read(&mut conn, &state, admin.0.owner).await?))
}
