//! The actions API: `POST /api/actions/<module>/<action>`, one folder per module and one file per action.

pub mod active_sessions;
pub mod health;
pub mod keys;
pub mod limits;
pub mod model_prices;
pub mod notifications;
pub mod overview;
pub mod providers;
pub mod sensitive_words;
pub mod spending;
pub mod statistics;
pub mod system;
pub mod usage_logs;
pub mod users;
