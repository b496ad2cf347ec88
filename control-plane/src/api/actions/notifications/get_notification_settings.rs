//! The settings as they are.

use super::view::NotificationSettings;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::ask::Nothing;
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, State};
use crate::db::settings;
use crate::rules::notification::{KEY, Stored};
use actix_web::post;
use actix_web::web::Data;

/// Show the notification settings (admin)
#[utoipa::path(tag = "notifications", operation_id = "getNotificationSettingsAction", request_body = Nothing,
    responses((status = 200, description = "The settings", body = Envelope<NotificationSettings>), Failures))]
#[post("/actions/notifications/getNotificationSettingsAction")]
pub async fn get_notification_settings(
    admin: Admin,
    state: Data<State>,
    _ask: Ask<Nothing>,
) -> Reply<NotificationSettings> {
    let mut conn = state.pool.read().await?;
    let value = settings::get(&mut conn, admin.0.owner, KEY).await?;
    Ok(Answer::read(Stored::read(value.as_ref()).into()))
}
