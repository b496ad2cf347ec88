//! A change of the settings.

use super::form::UpdateNotificationSettings;
use super::view::NotificationSettings;
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::audit::Write;
use crate::api::auth::Admin;
use crate::api::error::language;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::settings;
use crate::rules::notification::{KEY, Stored};
use actix_web::web::Data;
use actix_web::{HttpRequest, post};
use diesel_async::AsyncConnection;
use serde_json::json;

/// Update the notification settings (admin)
///
/// Whether something is switched on is looked at when it is sent.
#[utoipa::path(tag = "notifications", operation_id = "updateNotificationSettingsAction",
    request_body = UpdateNotificationSettings, responses(
    (status = 200, description = "The settings as they are now", body = Envelope<NotificationSettings>), Failures))]
#[post("/actions/notifications/updateNotificationSettingsAction")]
pub async fn update_notification_settings(
    admin: Admin,
    state: Data<State>,
    ask: Ask<UpdateNotificationSettings>,
    request: HttpRequest,
) -> Reply<NotificationSettings> {
    let language = language(request.headers());
    let fields = ask.names();
    let (state, caller) = (&state, &admin.0);
    let mut conn = state.pool.write().await?;
    let (stored, closed) = conn
        .transaction::<_, Failure, _>(async |conn| {
            let write = Write::begin_in_tx(conn).await?;
            let old = settings::get(conn, caller.owner, KEY).await?;
            let stored = ask.form.apply(state, caller.owner, language, Stored::read(old.as_ref()))?;
            let value = serde_json::to_value(&stored).map_err(Failure::internal)?;
            settings::put_in_tx(conn, caller.owner, KEY, &value, write.generation).await?;
            let details = json!({"fields": fields});
            let closed = write.close_in_tx(conn, caller, ("setting", None), details).await?;
            Ok((stored, closed))
        })
        .await?;
    Ok(Answer::written(stored.into(), closed.committed(state)))
}
