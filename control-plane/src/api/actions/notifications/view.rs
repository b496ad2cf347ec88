//! How the settings are shown.

use crate::rules::notification::{Channel, Stored, Topic};
use serde::Serialize;

/// What stands for a secret that is set.
const MASK: &str = "[REDACTED]";

/// The settings. Webhooks and secrets are shown as `[REDACTED]`, and are kept when that is sent back.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationSettings {
    enabled: bool,
    use_legacy_mode: bool,
    /// `zh` or `en`.
    language: String,
    circuit_breaker_enabled: bool,
    circuit_breaker_webhook: Option<&'static str>,
    circuit_breaker_webhook_type: &'static str,
    circuit_breaker_webhook_secret: Option<&'static str>,
    daily_leaderboard_enabled: bool,
    daily_leaderboard_webhook: Option<&'static str>,
    daily_leaderboard_webhook_type: &'static str,
    daily_leaderboard_webhook_secret: Option<&'static str>,
    #[schema(example = "09:00")]
    daily_leaderboard_time: String,
    #[schema(example = 5)]
    daily_leaderboard_top_n: u32,
    cost_alert_enabled: bool,
    cost_alert_webhook: Option<&'static str>,
    cost_alert_webhook_type: &'static str,
    cost_alert_webhook_secret: Option<&'static str>,
    #[schema(example = "0.80")]
    cost_alert_threshold: String,
    #[schema(example = 60)]
    cost_alert_check_interval: u32,
    /// Always false: there is no such alert here.
    cache_hit_rate_alert_enabled: bool,
}

impl From<Stored> for NotificationSettings {
    fn from(stored: Stored) -> Self {
        let none = Channel::default();
        let channel = |topic| stored.channels.get(&topic).unwrap_or(&none);
        let mask = |text: &Option<String>| text.as_ref().map(|_| MASK);
        let breaker = channel(Topic::CircuitBreaker);
        let board = channel(Topic::DailyLeaderboard);
        let cost = channel(Topic::CostAlert);
        Self {
            enabled: stored.enabled,
            use_legacy_mode: stored.use_legacy_mode,
            language: stored.language.clone().unwrap_or_else(|| "en".to_owned()),
            circuit_breaker_enabled: breaker.enabled,
            circuit_breaker_webhook: mask(&breaker.webhook),
            circuit_breaker_webhook_type: breaker.kind.as_str(),
            circuit_breaker_webhook_secret: mask(&breaker.secret),
            daily_leaderboard_enabled: board.enabled,
            daily_leaderboard_webhook: mask(&board.webhook),
            daily_leaderboard_webhook_type: board.kind.as_str(),
            daily_leaderboard_webhook_secret: mask(&board.secret),
            daily_leaderboard_time: stored.leaderboard_time.clone(),
            daily_leaderboard_top_n: stored.leaderboard_top,
            cost_alert_enabled: cost.enabled,
            cost_alert_webhook: mask(&cost.webhook),
            cost_alert_webhook_type: cost.kind.as_str(),
            cost_alert_webhook_secret: mask(&cost.secret),
            cost_alert_threshold: stored.cost_threshold.clone(),
            cost_alert_check_interval: stored.cost_interval,
            cache_hit_rate_alert_enabled: false,
        }
    }
}
