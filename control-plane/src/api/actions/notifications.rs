//! What an owner is told of, and where. Webhooks are sealed before they are stored and never shown again.

mod form;
pub mod get_notification_settings;
mod sealed;
pub mod test_webhook;
pub mod update_notification_settings;
mod view;
